from __future__ import annotations

import re
from pathlib import Path

import pytest

from salver.cli.graphs import dot, mermaid, tree
from salver.registry.lineage import Edge, Graph, Node


@pytest.fixture
def two(salver, models: Path):
    data = ("--set", f"training_data.digest={'ab' * 32}", "--set", "training_data.name=pairs", "--set", "run_id=7")
    assert salver("register", "times", models / "times2.onnx", *data).code == 0
    assert salver("register", "triple", models / "times3.onnx", "--set", "base_model=times@1.0.0").code == 0
    for reference in ("times@1.0.0", "triple@1.0.0"):
        assert salver("deploy", reference, "--endpoint", "numbers").code == 0


def test_lineage_is_a_tree_both_ways(two, salver) -> None:
    lines = [line.split("  20")[0].rstrip() for line in salver("lineage", "times").out.splitlines()]
    assert lines[:5] == [
        "times@1.0.0  development",
        "made of:",
        "  made-by  run:7",
        "  trained-on  data:abababababab (pairs)",
        "what came of it:",
    ]
    assert "  based-on  triple@1.0.0  development" in lines
    assert salver("lineage", "times", "--mermaid").out.startswith("flowchart LR\n")
    assert salver("lineage", "times", "--dot").out.startswith("digraph lineage {\n")
    assert salver("--json", "lineage", "times").json["root"] == "version:times@1.0.0"
    assert salver("lineage", "times", "--dot", "--mermaid").code == 1


def test_impact_goes_from_data_to_endpoints(two, salver) -> None:
    shown = salver("impact", "data:abababa").out
    assert "2 versions, 0 predictions" in shown
    assert "triple@1.0.0  development  based-on version:times@1.0.0" in shown
    found = salver("--json", "impact", "run:7").json
    assert [(each["endpoint"], each["model"], "until_s" in each) for each in found["endpoints"]] == [
        ("numbers", "triple", False),
        ("numbers", "times", True),
    ]
    assert salver("impact", "data:nothing").code == 1


def test_what_retiring_breaks_is_told(two, salver) -> None:
    shown = salver("impact", "triple@1.0.0", "--retire").out
    assert "cannot be retired without harm" in shown
    assert "deployed as numbers" in shown
    assert salver("--json", "impact", "times", "--retire").json["verdict"] == "inconclusive"


# Drawings.

A, B, ODD = (
    Node("version:a@1.0.0", "version", "a@1.0.0"),
    Node("version:b@1.0.0", "version", "b@1.0.0"),
    'x"];\n-->]#<b>\\',
)


def test_a_circle_is_drawn_once() -> None:
    graph = Graph(A.id, (A, B), (Edge(A.id, B.id, "based-on"), Edge(B.id, A.id, "based-on")))
    assert tree(graph) == [
        "a@1.0.0",
        "made of:",
        "  based-on  b@1.0.0",
        "    based-on  a@1.0.0  (as above)",
        "what came of it:",
        "  based-on  b@1.0.0",
        "    based-on  a@1.0.0  (as above)",
    ]


def test_predictions_stand_with_the_version_that_gave_them() -> None:
    end = Node("endpoint:e", "endpoint", "e")
    gave = [Node(f"predictions:e/{each}@1.0.0", "predictions", f"by {each}") for each in "ab"]
    edges = (
        Edge(A.id, B.id, "based-on"),
        Edge(B.id, end.id, "deployed-as", 0.0, 1.0),
        *(Edge(end.id, each.id, "answered") for each in gave),
    )
    lines = tree(Graph(A.id, (A, B, end, *gave), edges))
    assert "      answered  by b" in lines
    assert not any("by a" in line for line in lines)


def test_odd_names_stay_names_in_drawings() -> None:
    graph = Graph(A.id, (A, Node(f"run:{ODD}", "run", ODD)), (Edge(f"run:{ODD}", A.id, "made-by"),))
    drawn = mermaid(graph)
    assert drawn[2] == '  n1["run:x#34;#93;#59;#10;--#62;#93;#35;#60;b#62;#92;"]'
    (node,) = [line for line in dot(graph) if "shape=cylinder" in line]
    assert '\\"];' in node
    assert "\n" not in node
    assert re.sub(r"\\.", "", node).count('"') == 4
