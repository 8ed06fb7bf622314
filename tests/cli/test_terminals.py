from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from salver.cli.tables import table
from salver.protocol.printable import printable


def test_what_anybody_has_typed_does_nothing_to_the_terminal_of_who_reads_it() -> None:
    assert printable("a\x1b[2J\x07\x9b\x7f\rb") == r"a\x1b[2J\x07\x9b\x7f\rb"
    assert printable("exe.\u202egpj \u2066x") == r"exe.\u202egpj \u2066x"
    assert printable("lines\n\tstay, and so do ü, 你 and 👩\u200d🔬") == "lines\n\tstay, and so do ü, 你 and 👩\u200d🔬"
    assert printable("\udcff") == r"\udcff"
    assert printable("\ufeff\u061c\U000e0041") == r"\ufeff\u061c\U000e0041"


def test_a_cell_of_a_table_makes_no_lines_of_its_own() -> None:
    assert table(["why", "who"], [["x\n2026  admin", "ann"]]).splitlines()[1:] == ["x 2026  admin  ann"]


def test_no_command_prints_what_steers_a_terminal_but_json_is_as_it_was(
    salver: Callable, models: Path, tmp_path: Path
) -> None:
    nasty = "fine\x1b]0;owned\x07\x1b[2J\u202etxt.exe\x9b31m"
    salver("register", "double", models / "times2.onnx")
    assert salver("describe", "double@1.0.0", "--set", f"description={nasty}", "--set", f"owner={nasty}").code == 0
    salver("case", "list", "double")
    steering = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
    for command in (
        ("show", "double@1.0.0"), ("card", "double@1.0.0"), ("card", "double@1.0.0", "--format", "html"),
        ("search", "fine"), ("search", "owner ~ fine"), ("models",), ("list",), ("checklist", "double@1.0.0"),
        ("audit",), ("changes",), ("lineage", "double@1.0.0"), ("history", "double"), ("recommend", "--task", "x"),
    ):  # fmt: skip
        done = salver(*command)
        assert not steering.search(done.out + done.err), command
    card = tmp_path / "card.html"
    assert salver("card", "double@1.0.0", "--format", "html", "--out", card).code == 0
    assert not steering.search(card.read_text())
    assert r"fine\x1b]0;owned\x07" in salver("show", "double@1.0.0").out
    assert salver("show", "double@1.0.0", "--json").json["description"]["description"] == nasty
