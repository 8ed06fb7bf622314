from __future__ import annotations

import pytest
from tests.registry.promoting import Promoting, person

from salver.evaluation.reports.records import EvaluationRecord
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict
from salver.registry import evidence
from salver.storage.registry_schema import evaluations


@pytest.fixture
def house(home, database, draft) -> Promoting:
    made = Promoting(home, database)
    made.register(draft())
    return made


def record(house: Promoting, document: object, by: str = "developer"):
    return house.records.evaluations.record(person("ci", by), "digits", "1.0.0", document)


def test_an_evaluation_is_recorded_once_and_listed_with_its_numbers(house) -> None:
    document = {
        "suite": "release",
        "verdict": "successful",
        "digest": house.records.catalog.versions("digits")[0].digest,
        "against": {"model": "digits", "version": "0.9.0", "digest": "x"},
        "data_digest": "d1",
        "data_rows": 500,
        "evaluated_rows": 200,
        "numbers": {"revenue": 1.5, "note": "text", "none": None},
        "checks": [{"name": "roc_auc", "numbers": {"value": 0.98, "low": 0.97}, "unknown": [1]}],
        "more": {"kept": True},
    }
    first, again = record(house, document), record(house, document)
    assert (first.created, again.created) == (True, False)
    assert again.evaluation == first.evaluation
    (found,) = house.records.evaluations.of("digits", "1.0.0")
    assert found == first.evaluation
    assert (found.data_rows, found.evaluated_rows) == (500, 200)
    assert (found.role, found.recorded_by, found.data_rows, found.against) == ("developer", "ci", 500, "digits@0.9.0")
    assert found.numbers == {"revenue": 1.5, "roc_auc.value": 0.98, "roc_auc.low": 0.97, "roc_auc": 0.98}
    assert house.actions() == ["register", "record_evaluation"]


def test_what_salver_evaluate_writes_is_such_a_document() -> None:
    read = set(evidence._Document.__struct_fields__) - {"numbers"}
    assert read <= set(EvaluationRecord.__struct_fields__)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "missing required field `suite`"),
        ({"suite": "release", "verdict": "great"}, "Invalid enum value 'great'"),
        ({"suite": "", "verdict": "failed"}, "is of suite ''"),
        ({"suite": "release", "verdict": "failed", "data_rows": "many"}, "Expected `int`"),
        ({"suite": "release", "verdict": "failed", "numbers": {"a": float("nan")}}, "NaN|JSON compliant"),
        ({"suite": "release", "verdict": "failed", "text": "x" * 5_000_000}, "characters"),
        ({"suite": "release", "verdict": "failed", "numbers": {f"n{i}": 1 for i in range(5001)}}, "5001 numbers"),
        ({"suite": "release", "verdict": "failed", "numbers": {"n" * 300_000: 1}}, "numbers of the evaluation have"),
        ({"suite": "release", "verdict": "failed", "data_rows": -1}, ">= 0 - at"),
    ],
)
def test_a_document_that_says_too_little_or_too_much_is_refused(house, document, words) -> None:
    with pytest.raises(SalverError, match=words) as raised:
        record(house, document)
    assert raised.value.code == "INVALID_PARAMETER"
    assert house.actions() == ["register"]


def test_an_evaluation_of_other_bytes_is_a_conflict(house) -> None:
    with pytest.raises(SalverError, match="the evaluation is about digest eeee") as raised:
        record(house, {"suite": "release", "verdict": "failed", "digest": "e" * 64})
    assert raised.value.code == "CONFLICT"


@pytest.mark.parametrize("role", ["approver", "predictor"])
def test_recording_takes_the_right_to(house, role) -> None:
    with pytest.raises(SalverError) as raised:
        record(house, {"suite": "release", "verdict": "failed"}, role)
    assert raised.value.code == "PERMISSION_DENIED"


@pytest.mark.parametrize("wrong", [{"numbers": "{"}, {"numbers": '{"auc": "high"}'}, {"verdict": "splendid"}])
def test_a_record_that_cannot_be_read_is_an_error_and_never_passes(house, database, wrong) -> None:
    row = {
        "model": "digits",
        "version": "1.0.0",
        "id": "x",
        "suite": "release",
        "verdict": "successful",
        "recorded_s": 1.0,
        "seq": 1,
        "recorded_by": "ci",
        "role": "admin",
        "digest": house.records.catalog.versions("digits")[0].digest,
        "data_digest": "",
        "data_rows": 0,
        "evaluated_rows": 0,
        "against": "",
        "numbers": "{}",
        "document": "{}",
    }
    house.policy('[[transition]]\nto = "validation"\n[[transition.gate]]\nkind = "evaluation"\nsuite = "release"')
    with database.begin() as connection:
        connection.execute(evaluations.insert().values(row | wrong))
    (found,) = house.records.evaluations.of("digits", "1.0.0")
    assert found.verdict is Verdict.ERROR
    assert found.problem
    done = house.promote("1.0.0", "validation")
    assert (done.moved, done.decision.verdict) == (False, "error")


def test_of_a_recorder_and_a_suite_the_newest_counts(house, database) -> None:
    def numbers(by: str, suite: str, auc: float, **more) -> None:
        house.clock.advance(1.0)
        document = {"suite": suite, "verdict": "successful", "numbers": {"auc": auc}} | more
        house.records.evaluations.record(person(by, "developer"), "digits", "1.0.0", document)

    for auc in (0.1, 0.2, 0.3):
        numbers("ci", "release", auc)
    numbers("ci", "release", 0.4, data_digest="other data")
    numbers("ci", "drift", 0.5)
    numbers("eve", "release", 0.6)
    with database.read() as connection:
        found = evidence.evaluations_of(connection, "digits", "1.0.0")
        of_release = evidence.evaluations_of(connection, "digits", "1.0.0", ["release"])
        assert evidence.evaluations_of(connection, "digits", "1.0.0", []) == ()
    assert [each.numbers["auc"] for each in found] == [0.6, 0.5, 0.4, 0.3]
    assert [each.numbers["auc"] for each in of_release] == [0.6, 0.4, 0.3]
    assert len(house.records.evaluations.of("digits", "1.0.0")) == 6


def test_evaluations_of_a_model_are_those_of_all_its_versions(house, draft) -> None:
    house.register(draft("b"))
    house.evaluate("1.0.0")
    house.evaluate("1.0.1", "failed")
    assert [each.version for each in house.records.evaluations.of("digits")] == ["1.0.1", "1.0.0"]
    with pytest.raises(SalverError, match="there is no model 'none'"):
        house.records.evaluations.of("none")


def test_what_is_found_again_after_something_else_is_a_record_of_its_own(house) -> None:
    for verdict, created in (("failed", True), ("failed", False), ("successful", True), ("failed", True)):
        house.clock.advance(1.0)
        assert record(house, {"suite": "release", "verdict": verdict}).created is created
    assert [each.verdict for each in house.records.evaluations.of("digits", "1.0.0")] == [
        "failed",
        "successful",
        "failed",
    ]


def test_nobody_takes_the_place_of_anothers_record_by_saying_the_same_first(house) -> None:
    document = {"suite": "release", "verdict": "failed"}
    record(house, document)
    house.clock.advance(1.0)
    done = house.records.evaluations.record(person("gate", "operator"), "digits", "1.0.0", document)
    assert (done.created, done.evaluation.recorded_by, done.evaluation.role) == (True, "gate", "operator")
