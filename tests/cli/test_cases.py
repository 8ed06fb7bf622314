"""`salver case` and `salver record`: what is written is what is kept, and what a server answers is replayable."""

from __future__ import annotations

import json

import numpy as np
import pytest

from salver.cli.cases import described, parse_expectation
from salver.evaluation.subject.traffic import read_traffic
from salver.protocol.errors import SalverError
from salver.registry.cases import Equal, InRange, Labelled, Refused


@pytest.mark.parametrize(
    ("text", "expected", "said"),
    [
        ("label=1", Labelled(label="1"), "label 1"),
        ("kind:label=a=b", Labelled(output="kind", label="a=b"), "kind label a=b"),
        ("range=0.2..0.4", InRange(at_least=0.2, at_most=0.4), "at least 0.2 and at most 0.4"),
        ("p[1]:range=-1e-3..", InRange(output="p", column=1, at_least=-0.001), "p[1] at least -0.001"),
        ("p[yes]:range=..1", InRange(output="p", column="yes", at_most=1.0), "p[yes] at most 1"),
        ("y:equal=[[1,2]]", Equal(output="y", values=[[1, 2]], tolerance=0.5), "y equals [[1, 2]] within 0.5"),
        ("refused", Refused(), "refused"),
        ("refused=WRONG_SHAPE", Refused("WRONG_SHAPE"), "refused with WRONG_SHAPE"),
    ],
)
def test_expectations_are_read_and_said(text, expected, said) -> None:
    assert parse_expectation(text, 0.5) == expected
    assert described(expected) == said


@pytest.mark.parametrize(
    "text",
    ["", "label", "label=", "p[1]:label=1", "range=1", "range=a..b", "equal={", "y:refused", "likely=1"],
)  # fmt: skip
def test_what_is_no_expectation_is_refused_with_the_forms(text) -> None:
    with pytest.raises(SalverError) as refused:
        parse_expectation(text)
    assert "label=X" in refused.value.remedy


@pytest.fixture
def asked(shared, salver, monkeypatch):
    monkeypatch.setenv("SALVER_HOME", str(shared.home))
    return lambda *words, **more: salver("--json", *words, **more)


def test_a_case_is_added_listed_and_removed_through_a_running_server(asked, shared) -> None:
    request = json.dumps(shared.rows([1, 2])).encode()
    words = ("case", "add", "double", "--expect", "y:equal=[[2,4]]", "--source", "incident 12")
    done = asked(*words, stdin=request)
    assert (done.code, done.json["created"]) == (0, True), done.err
    identity = done.json["case"]["id"]
    assert asked(*words, stdin=request).json["created"] is False
    (listed,) = asked("case", "list", "double").json
    assert (listed["id"], listed["request"]) == (identity, request.decode())
    assert asked("case", "remove", "double", identity).json["id"] == identity
    assert asked("case", "list", "double").json == []
    assert asked("case", "remove", "double", identity).error["code"] == "NOT_FOUND"


def test_a_case_of_nobody_or_of_bytes_that_are_no_text_is_refused(asked) -> None:
    words = ("case", "add", "nobody", "--expect", "refused", "--source", "x")
    assert asked(*words, stdin=b"{}").error["code"] == "NOT_FOUND"
    assert asked(*words, stdin=b"\xff\xfe").error["code"] == "INVALID_PARAMETER"


def test_requests_and_rows_are_recorded_with_answers_and_refusals(asked, shared, tmp_path) -> None:
    good, bad = shared.rows([1, 2]), shared.rows([1, 2])
    bad["inputs"][0]["name"] = "z"
    (tmp_path / "requests.jsonl").write_text(json.dumps(good) + "\n\n" + json.dumps(bad) + "\n")
    out = tmp_path / "traffic.jsonl"
    done = asked("record", "double", "--input", tmp_path / "requests.jsonl", "--out", out)
    assert done.json == {"answered": 1, "refused": 1, "file": str(out)}
    np.save(tmp_path / "rows.npy", np.array([[1, 2], [3, 4], [5, 6]], np.float32))
    assert asked("record", "double", "--input", tmp_path / "rows.npy", "--out", out).json["answered"] == 3
    found = read_traffic(out)
    assert [each.error for each in found] == ["", "UNKNOWN_INPUT", "", "", ""]
    assert json.loads(bytes(found[0].request)) == good
    assert found[4].outputs["y"].data == [10, 12]


def test_what_cannot_be_recorded_is_refused_and_what_was_recorded_stays(asked, tmp_path) -> None:
    (tmp_path / "requests.jsonl").write_text("no json\n")
    words = ("record", "double", "--input", tmp_path / "requests.jsonl", "--out")
    assert asked(*words, tmp_path / "t.jsonl").error["code"] == "INVALID_JSON"
    assert asked(*words, tmp_path).error["code"] == "INVALID_PARAMETER"
    gone = asked(*words[:-1], "--url", "http://127.0.0.1:1", "--out", tmp_path / "t.jsonl")
    assert gone.code == 1
