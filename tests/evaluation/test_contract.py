"""Contracts: recorded exchanges, replayed; a file that is none is refused with the line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from subjects import make_subject

from salver.evaluation.service.contract import ContractCheck
from salver.evaluation.subject.traffic import read_traffic
from salver.evaluation.suites.service_sections import ContractSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict

LABEL = {"name": "label", "datatype": "INT64", "shape": [1], "data": [1]}
P = {"name": "p", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]}
NOW = {"label": np.array([1]), "p": np.array([[0.25, 0.75]], dtype=np.float32)}


class Served:
    def __init__(self, answers) -> None:
        self.answers = iter(answers)

    def exchange(self, body: bytes):
        json.loads(body)
        answer = next(self.answers)
        if isinstance(answer, SalverError):
            raise answer
        return answer


def replayed(tmp_path, lines, answers, **settings):
    path = tmp_path / "traffic.jsonl"
    path.write_text("".join(json.dumps({"request": {"inputs": []}} | line) + "\n" for line in lines))
    subject = make_subject(target=[0], labels=[0], asked={"served": Served(answers)})
    given = {"exchanges_at_least": 1} | settings
    return ContractCheck(ContractSettings(str(path), **given)).run(subject)


def answered(*outputs):
    return {"answer": {"model_version": "1.0.0", "outputs": list(outputs)}}


def test_the_same_answers_keep_the_contract(tmp_path) -> None:
    lines = [answered(LABEL, P), {"error": "WRONG_SHAPE"}]
    found = replayed(tmp_path, lines, [NOW, SalverError("WRONG_SHAPE", "no")], tolerance=0.0)
    assert found.verdict is Verdict.SUCCESSFUL
    assert (found.numbers["exchanges"], found.numbers["labels_agree"], found.numbers["within"]) == (2, 1.0, 1.0)


@pytest.mark.parametrize(
    ("line", "answer", "said"),
    [
        (answered(LABEL, P), {"label": NOW["label"]}, "output 'p' is gone"),
        (answered(LABEL), {"label": np.array([1], dtype=np.int32)}, "output 'label' was INT64, is INT32"),
        (answered(LABEL), {"label": np.array([[1]])}, "output 'label' had shape [1], has [1, 1]"),
        (answered(LABEL), SalverError("WRONG_SHAPE", "no"), "was answered, is refused with WRONG_SHAPE"),
        ({"error": "WRONG_SHAPE"}, NOW, "was refused with WRONG_SHAPE, is answered"),
        ({"error": "WRONG_SHAPE"}, SalverError("MODEL_ERROR", "no"), "was refused with WRONG_SHAPE, is refused"),
    ],
)
def test_an_answer_of_another_form_breaks_the_contract(tmp_path, line, answer, said) -> None:
    found = replayed(tmp_path, [line], [answer])
    assert found.verdict is Verdict.FAILED
    assert said in found.reasons[0]


def test_one_more_output_hurts_nobody(tmp_path) -> None:
    assert replayed(tmp_path, [answered(LABEL)], [NOW]).verdict is Verdict.SUCCESSFUL


def test_labels_may_differ_as_often_as_is_allowed(tmp_path) -> None:
    lines, other = [answered(LABEL)] * 4, {"label": np.array([0])}
    answers = [NOW, NOW, NOW, other]
    assert replayed(tmp_path, lines, answers, labels_agree_at_least=0.75).verdict is Verdict.SUCCESSFUL
    found = replayed(tmp_path, lines, answers, labels_agree_at_least=0.76)
    assert found.verdict is Verdict.FAILED
    assert found.tables[0].rows == ((4, "label was 1, is 0"),)


def test_numbers_are_held_only_where_the_suite_gives_a_bound(tmp_path) -> None:
    moved = {"p": np.array([[0.26, 0.74]], dtype=np.float32)}
    assert replayed(tmp_path, [answered(P)], [moved]).verdict is Verdict.SUCCESSFUL
    assert replayed(tmp_path, [answered(P)], [moved], tolerance=0.02).verdict is Verdict.SUCCESSFUL
    found = replayed(tmp_path, [answered(P)], [moved], tolerance=0.001)
    assert found.verdict is Verdict.FAILED
    assert found.numbers["largest_difference"] == pytest.approx(0.01, abs=1e-6)
    gone = {"p": np.array([[np.nan, 0.75]], dtype=np.float32)}
    assert replayed(tmp_path, [answered(P)], [gone], tolerance=1e9).verdict is Verdict.FAILED


def test_what_a_tired_server_said_is_no_contract_and_few_exchanges_are_inconclusive(tmp_path) -> None:
    found = replayed(tmp_path, [answered(LABEL), {"error": "QUEUE_FULL"}, {"error": "WORKER_LOST"}], [NOW])
    assert (found.verdict, found.numbers["unusable"]) == (Verdict.SUCCESSFUL, 2)
    few = replayed(tmp_path, [answered(LABEL)], [NOW], exchanges_at_least=2)
    assert few.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}\n", "line 1: Object missing required field `request`"),
        ('{"request": {}}\n', "line 1 has neither an answer nor an error"),
        ('\n{"request": {}, "error": "X", "answer": {"outputs": []}}\n', "line 2 has neither"),
        ("\xff\n", "line 1"),
    ],
)
def test_a_file_that_is_no_traffic_is_refused_with_the_line(tmp_path, text, said) -> None:
    (tmp_path / "t.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(SalverError, match=said):
        read_traffic(tmp_path / "t.jsonl")


def test_no_file_is_refused(tmp_path) -> None:
    with pytest.raises(SalverError, match="cannot read the traffic"):
        read_traffic(tmp_path / "none")
