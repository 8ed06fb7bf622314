from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def two(salver, models: Path):
    said = ("--set", "description=Doubles what it is given", "--set", "task=arithmetic", "--metric", "auc=0.9")
    assert salver("register", "times", models / "times2.onnx", *said, "--tag", "team=maths").code == 0
    assert salver("register", "triple", models / "times3.onnx", "--set", "description=Triples it").code == 0


def test_versions_are_found_by_words_and_filters(two, salver) -> None:
    assert [hit["model"] for hit in salver("--json", "search", "doubl").json["hits"]] == ["times"]
    shown = salver("search", "--filter", "metrics.auc >= 0.9 and tags.team = maths").out
    assert "times@1.0.0  development  arithmetic  auc 0.9  Doubles what it is given" in shown
    assert salver("search", "nothing-of-the-sort").out == "nothing was found\n"


def test_a_wrong_filter_is_pointed_at(two, salver) -> None:
    done = salver("search", "--filter", "metrics.auc >= high")
    assert done.code == 1
    assert done.err.splitlines()[1:3] == ["  metrics.auc >= high", " " * 17 + "^^^^"]


def test_without_an_embedding_model_words_are_looked_for_and_that_is_said(two, salver) -> None:
    done = salver("search", "doubles", "--semantic")
    assert "times@1.0.0" in done.out
    assert "no embedding model is deployed" in done.err
    assert "no embedding model" in salver("--json", "search", "doubles", "--semantic").json["notes"][0]
    assert salver("search", "--refresh").code == 1
    assert "nothing is asked for" in salver("search").err


def test_models_are_recommended_for_rows_a_task_or_clients(two, salver, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("a,b,c\n1,2,x\n3,4,y\n")
    found = salver("--json", "recommend", "--data", rows).json
    assert {each["model"] for each in found} == {"times", "triple"}
    assert "takes 2 columns" in salver("recommend", "--data", rows).out
    assert [each["model"] for each in salver("--json", "recommend", "--task", "arithmetic").json] == ["times"]
    assert [each["model"] for each in salver("--json", "recommend", "--like", "times").json] == ["triple"]
    asked = tmp_path / "signature.json"
    asked.write_text(json.dumps(salver("--json", "show", "times").json["manifest"]["signature"]))
    assert {each["model"] for each in salver("--json", "recommend", "--signature", asked).json} == {"times", "triple"}
    for content in ("{}", "no json", '{"inputs": 1, "outputs": []}'):
        asked.write_text(content)
        assert "no signature" in salver("recommend", "--signature", asked).err
    assert salver("recommend", "--task", "painting").out == "no registered model fits\n"
    for words in (("--target", "a"), (), ("--data", rows, "--target", "z"), ("--like", "nobody")):
        assert salver("recommend", *words).code == 1
