"""Regression cases in an evaluation: asked in every suite, one that fails fails the version."""

from __future__ import annotations

import json

import numpy as np
import pytest
from subjects import make_subject, run_salver

from salver.evaluation.service.regression import RegressionCheck
from salver.evaluation.subject.given import Given
from salver.evaluation.suites.service_sections import CasesSettings
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.verdict import Verdict
from salver.registry.cases import Equal, InRange, KnownCase, Labelled, Refused
from salver.testing import make_manifest

USUAL = CasesSettings()
SIGNATURE = Signature(
    (TensorSpec("x", "FP32", (-1, 2)),),
    (
        TensorSpec("label", "BYTES", (-1,)),
        TensorSpec("p", "FP32", (-1, 2), labels=("no", "yes")),
        TensorSpec("n", "INT64", (-1,)),
    ),
)
ANSWER = {
    "label": np.array([b"yes", b"yes"], dtype=object),
    "p": np.array([[0.1, 0.9], [0.2, 0.8]], dtype=np.float32),
    "n": np.array([3, 4]),
}


class Served:
    """Answers every request with this."""

    def __init__(self, answer) -> None:
        self.answer = answer

    def exchange(self, body: bytes):
        if isinstance(self.answer, SalverError):
            raise self.answer
        return self.answer


def outcome(*expect, answer=ANSWER, settings=USUAL):
    known = KnownCase("c1", "digits", "{}", expect, "incident 12", 0.0, "me")
    subject = make_subject(target=[0, 1], labels=[0, 1], asked={"served": Served(answer)}, given=Given(cases=(known,)))
    subject.asked.manifest = make_manifest(signature=SIGNATURE)
    return RegressionCheck(settings).run(subject)


@pytest.mark.parametrize(
    "met",
    [
        Labelled(label="yes"),
        Labelled(output="p", label="yes"),
        InRange(output="p", column="yes", at_least=0.8),
        InRange(output="p", column=0, at_most=0.2001),
        InRange(at_least=0.1, at_most=0.9001),
        Equal(output="n", values=[3, 4]),
        Equal(output="p", values=[[0.1, 0.9], [0.2, 0.8]], tolerance=1e-6),
        Equal(output="label", values=["yes", "yes"]),
    ],
)
def test_an_expectation_that_is_met_passes(met) -> None:
    found = outcome(met)
    assert (found.verdict, found.reasons) == (Verdict.SUCCESSFUL, ("0 of 1 cases fail",))


@pytest.mark.parametrize(
    ("unmet", "said"),
    [
        (Labelled(label="no"), "label is yes, not no"),
        (Labelled(output="p", label="no"), "p is yes, not no"),
        (InRange(output="p", column="yes", at_least=0.85), "p is 0.8, not within 0.85 to inf"),
        (InRange(output="p", column="maybe", at_least=0), "has no column 'maybe'"),
        (InRange(output="p", column=2, at_least=0), "has no column 2"),
        (InRange(output="label", at_least=0), "holds no numbers"),
        (Equal(output="n", values=[3, 5]), "n is 4, not 5"),
        (Equal(output="n", values=[3]), "n has 2 values, not 1"),
        (Equal(output="p", values=[[0.1, 0.9], [0.2, 0.7]], tolerance=0.01), "p is 0.8, not 0.7 within 0.01"),
        (Equal(output="p", values=["a"]), "which is no array of its kind"),
        (Labelled(output="q", label=1), "it has no output 'q'"),
        (Refused(), "it is answered, and must be refused"),
    ],
)
def test_an_expectation_that_is_not_met_fails_and_says_what_came(unmet, said) -> None:
    found = outcome(unmet)
    assert found.verdict is Verdict.FAILED
    assert said in found.reasons[1]
    assert found.reasons[1].startswith("incident 12 (c1): ")


def test_nan_is_in_no_range() -> None:
    nothing = {"p": np.array([[np.nan, 0.5]], dtype=np.float32)}
    assert outcome(InRange(at_least=0), answer=nothing).verdict is Verdict.FAILED
    assert outcome(Equal(values=[[0.5, 0.5]], tolerance=1e9), answer=nothing).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("expected", "code", "verdict"),
    [
        (Refused(), "WRONG_SHAPE", Verdict.SUCCESSFUL),
        (Refused("WRONG_SHAPE"), "WRONG_SHAPE", Verdict.SUCCESSFUL),
        (Refused("INVALID_JSON"), "WRONG_SHAPE", Verdict.FAILED),
        (Labelled(label="yes"), "WRONG_SHAPE", Verdict.FAILED),
        (Refused(), "MODEL_ERROR", Verdict.FAILED),
    ],
)
def test_a_refusal_is_right_only_where_it_is_expected_and_the_clients_fault(expected, code, verdict) -> None:
    assert outcome(expected, answer=SalverError(code, "no")).verdict is verdict


def test_what_a_suite_leaves_out_is_named_and_too_few_cases_are_inconclusive() -> None:
    found = outcome(Labelled(label="no"), settings=CasesSettings(leave_out=("c1",)))
    assert found.verdict is Verdict.SUCCESSFUL
    assert found.reasons == ("0 of 0 cases fail", "this suite leaves out c1")
    assert outcome(Labelled(label="yes"), settings=CasesSettings(required=2)).verdict is Verdict.INCONCLUSIVE
    assert outcome(Labelled(label="no"), settings=CasesSettings(required=2)).verdict is Verdict.FAILED


def test_every_suite_asks_the_cases_of_the_model(house, evaluated, tmp_path, capsys) -> None:
    row = [float(house.rows.column(name)[0]) for name in house.rows.columns if name != "target"]
    tensor = {"name": "X", "shape": [1, 30], "datatype": "FP32", "data": row}
    (tmp_path / "request.json").write_text(json.dumps({"inputs": [tensor]}))
    (tmp_path / "short.json").write_text(json.dumps({"inputs": [tensor | {"shape": [1, 29], "data": row[:29]}]}))
    add = ("case", "add", "cancer", "--source", "incident 12", "--input")
    assert run_salver(house.home, *add, tmp_path / "request.json", "--expect", "label=0") == 0
    first = json.loads(capsys.readouterr().out)["case"]["id"]
    assert run_salver(house.home, *add, tmp_path / "short.json", "--expect", "refused=WRONG_SHAPE") == 0
    second = json.loads(capsys.readouterr().out)["case"]["id"]
    try:
        code, record = evaluated(house.good, "")
        found = next(check for check in record["checks"] if check["name"] == "cases")
        assert (code, found["verdict"], found["numbers"]["cases"]) == (0, "successful", 2)
        code, record = evaluated(house.worse, "")
        assert (code, record["verdict"]) == (1, "failed")
        assert "incident 12" in str(record["reasons"])
        assert evaluated(house.worse, "[cases]\nenabled = false\n")[0] == 0
    finally:
        for each in (first, second):
            assert run_salver(house.home, "case", "remove", "cancer", each) == 0
