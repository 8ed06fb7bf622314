"""Odd texts in every text of every command: refused in a line, or taken as the text it is.

A part of all that is tried; tests/chaos/test_odd_names.py tries the rest.
"""

from __future__ import annotations

from itertools import islice

import pytest
from tests.cli.odd_arguments import COMMANDS, attempts

EACH = 90
"""One in so many is tried, others for each command."""


@pytest.fixture
def deployed(salver, models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where some of them write
    assert salver("register", "double", models / "times2.onnx").code == 0
    assert salver("deploy", "double").code == 0
    return salver


def test_no_command_meets_a_fault_over_an_odd_text(deployed) -> None:
    tried = 0
    for place, words in enumerate(COMMANDS):
        for given in islice(attempts(words), place % EACH, None, EACH):
            done = deployed("--json", *given)
            tried += 1
            assert done.code in (0, 1, 2, 3), given
            assert "INTERNAL" not in done.err, (given, done.err)
            assert "Traceback" not in done.err, (given, done.err)
    assert tried > 30


def test_a_file_whose_name_is_not_utf_8_can_be_told_of(deployed, tmp_path) -> None:
    odd = "card\udcff.md"
    plain = deployed("card", "double", "--format", "md", "--out", odd)
    assert (plain.code, "card\\udcff.md" in plain.out + plain.err) == (0, True)
    told = deployed("--json", "card", "double", "--format", "md", "--out", odd)
    assert told.code == 0
    assert told.json["file"] == odd
    missing = deployed("--json", "register", "double", "no\udcff.onnx")
    assert (missing.code, missing.error["code"]) == (1, "INVALID_ARTIFACT")


def test_a_path_that_is_too_long_and_a_text_that_is_not_utf_8_are_refused_as_such(deployed) -> None:
    long = deployed("--json", "datasheet", "--data", "a" * 5000)
    assert (long.code, long.error["code"]) == (1, "INVALID_PARAMETER")
    assert "too long" in long.error["message"]
    undecodable = deployed("--json", "retrain", "set", "double", "--command", "true", "--suite", "a\udcff")
    assert (undecodable.code, undecodable.error["code"]) == (1, "INVALID_PARAMETER")
    assert "not UTF-8" in undecodable.error["message"]
