"""`salver card`, `salver datasheet` and `salver checklist` on a real home, and through a server."""

from __future__ import annotations

import json

import numpy as np
import pytest

from salver.cli import main


@pytest.fixture(name="home")
def registered(home, models, capsys):
    assert main(["--home", str(home), "register", "digits", str(models / "times2.onnx")]) == 0
    capsys.readouterr()
    return home


def run(home, capsys, *arguments):
    code = main(["--home", str(home), *map(str, arguments)])
    return code, capsys.readouterr()


def test_a_card_is_printed_as_markdown_and_written_as_html(home, capsys, tmp_path) -> None:
    code, said = run(home, capsys, "card", "digits")
    assert code == 0
    assert said.out.startswith("# Model card: digits@1.0.0\n")
    out = tmp_path / "card.html"
    assert run(home, capsys, "card", "digits@1.0.0", "--out", out)[0] == 0
    assert out.read_text().startswith("<!doctype html>")
    code, said = run(home, capsys, "card", "digits", "--json")
    assert json.loads(said.out)["kind"] == "Model card"


def test_a_checklist_ends_with_its_verdict(home, capsys, tmp_path) -> None:
    code, said = run(home, capsys, "checklist", "digits")
    assert code == 2
    assert 'owner: salver describe digits@1.0.0 --set owner="..."' in said.out
    code, said = run(home, capsys, "checklist", "digits", "--json")
    assert (code, json.loads(said.out)["verdict"]) == (2, "inconclusive")
    code, said = run(home, capsys, "checklist", "digits", "--format", "md")
    assert (code, said.out[:22]) == (2, "# Readiness checklist:")
    assert run(home, capsys, "revoke", "digits@1.0.0", "--why", "a test")[0] == 0
    assert run(home, capsys, "checklist", "digits@1.0.0")[0] == 1


def test_a_sheet_is_of_a_version_of_a_file_or_of_both(home, capsys, tmp_path) -> None:
    rows = tmp_path / "rows.csv"
    np.savetxt(rows, np.arange(20).reshape(10, 2), delimiter=",", header="a,b", comments="")
    code, said = run(home, capsys, "datasheet", "digits")
    assert (code, said.out[:20]) == (0, "# Data sheet: digits")
    code, said = run(home, capsys, "datasheet", "--data", rows, "--target", "b")
    assert code == 0
    assert "10 in rows.csv" in said.out
    assert run(home, capsys, "datasheet", "digits", "--data", rows)[0] == 0
    assert run(home, capsys, "datasheet")[0] == 1
    assert run(home, capsys, "datasheet", "--data", rows, "--target", "c")[0] == 1


def test_what_cannot_be_written_is_named(home, capsys, tmp_path) -> None:
    code, said = run(home, capsys, "card", "digits", "--out", tmp_path / "nowhere" / "card.html")
    assert code == 1
    assert "nowhere" in said.err


def test_an_unknown_version_is_not_found(home, capsys) -> None:
    for command, expected in (("card", 1), ("datasheet", 1), ("checklist", 3)):  # of a gate, 1 says that it is shut
        code, said = run(home, capsys, command, "digits@9.0.0", "--json")
        assert (code, json.loads(said.err)["error"]["code"]) == (expected, "NOT_FOUND")
