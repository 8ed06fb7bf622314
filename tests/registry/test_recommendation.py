from __future__ import annotations

import pytest

from salver.protocol.description import DataReference, Description
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.registry.evidence import Evaluations
from salver.registry.offers import Offers
from salver.registry.recommendation import Column, DataShape, Offer, recommend
from salver.testing import make_manifest

X4 = TensorSpec("x", "FP32", (-1, 4))
CLASSES = TensorSpec("p", "FP32", (-1, 2), labels=("no", "yes"))
NUMBERS = tuple(Column(name, "number") for name in "abcd")
DATA = DataShape((*NUMBERS, Column("churned", "text")), "churned", ("no", "yes"), digest="ab" * 32)


def offer(model="m", inputs=(X4,), outputs=(CLASSES,), stage="staging", version="1.0.0", **said) -> Offer:
    manifest = make_manifest(model=model, version=version, signature=Signature(tuple(inputs), tuple(outputs)))
    description = Description(**said)
    return Offer(manifest, description, stage, description.metrics)


def names(*offers: Offer, **asked) -> list[str]:
    return [each.model for each in recommend(offers, **asked)]


def test_columns_that_are_named_count_more_than_columns_that_are_as_many() -> None:
    named = offer("named", [TensorSpec("x", "FP32", (-1, 4), labels=tuple("dcba"))])
    assert names(offer("counted"), named, data=DATA) == ["named", "counted"]
    first, second = recommend([offer("counted"), named], data=DATA)
    assert "has all 4 columns of its input x" in first.reasons
    assert any("not known" in caveat for caveat in second.caveats)


@pytest.mark.parametrize(
    "inputs",
    [
        [TensorSpec("x", "FP32", (-1, 5))],
        [TensorSpec("x", "BYTES", (-1, 4))],
        [TensorSpec("x", "FP32", (-1, 4), labels=("a", "b", "c", "other"))],
        [TensorSpec("a", "FP32", (-1,)), TensorSpec("other", "FP32", (-1,))],
        [TensorSpec("a", "BYTES", (-1,)), TensorSpec("b", "FP32", (-1,))],
    ],
)
def test_inputs_that_the_columns_do_not_fill_do_not_fit(inputs) -> None:
    assert names(offer(inputs=inputs), data=DATA) == []


def test_inputs_called_as_columns_fit_and_what_is_left_over_is_told() -> None:
    (found,) = recommend([offer(inputs=[TensorSpec("a", "FP32", (-1,)), TensorSpec("b", "INT64", (-1,))])], data=DATA)
    assert found.fit_ratio == 1.0
    assert "2 columns unused" in found.caveats


def test_the_target_tells_which_outputs_fit() -> None:
    three = TensorSpec("p", "FP32", (-1, 3))
    value = TensorSpec("v", "FP32", (-1, 1))
    other = TensorSpec("p", "FP32", (-1, 2), labels=("cat", "dog"))
    for outputs in ([three], [value], [other]):
        assert names(offer(outputs=outputs), data=DATA) == []
    price = DataShape((*NUMBERS, Column("price", "number")), "price")
    assert names(offer("classes"), offer("price", outputs=[value]), data=price) == ["price"]
    grades = DataShape((*NUMBERS, Column("grade", "number")), "grade", ("0", "1", "2"), whole=True)
    assert names(offer("three", outputs=[three]), offer("price", outputs=[value]), data=grades) == ["three"]


def test_texts_want_an_input_of_texts() -> None:
    texts = DataShape((Column("review", "text"),))
    text = TensorSpec("text", "BYTES", (-1,))
    assert names(offer("text", [text]), offer("numbers"), data=texts) == ["text"]


def test_who_was_trained_on_these_rows_is_told() -> None:
    trained = offer("trained", training_data=DataReference(digest="sha256:" + "AB" * 32))
    (found,) = recommend([trained], data=DATA)
    assert any("these very rows" in reason for reason in found.reasons)


def test_a_task_is_stated_or_spoken_of() -> None:
    stated, spoken = offer("stated", task="Text classification"), offer("spoken", description="text classification!")
    assert names(spoken, stated, offer("silent"), task="text-classification") == ["stated", "spoken"]


def test_clients_of_another_version_must_be_able_to_go_on() -> None:
    like = make_manifest(model="old", signature=Signature((X4,), (CLASSES,)))
    wide = offer("wide", [TensorSpec("x", "FP32", (-1, 5))])
    more = offer("more", [X4, TensorSpec("y", "FP32", (-1,), optional=True)])
    assert names(wide, more, offer("same"), offer("old"), like=like) == ["same", "more"]


def test_a_signature_finds_what_its_clients_could_ask() -> None:
    more = offer("more", [X4, TensorSpec("y", "FP32", (-1,), optional=True)])
    coded = offer("coded", [TensorSpec("x", "FP32", (-1, 5))])
    found = recommend([coded, more, offer("same")], like=Signature((X4,), (CLASSES,)))
    assert [each.model for each in found] == ["same", "more"]
    assert "it takes and gives what that signature does" in found[0].reasons


def test_what_failed_comes_last_and_that_is_said() -> None:
    manifest, said, stage, metrics, _ = offer("failed", stage="production", task="digits")
    failed = Offer(manifest, said, stage, metrics, ("release",))
    found = recommend([failed, offer("untried", stage="development", task="digits")], task="digits")
    assert [each.model for each in found] == ["untried", "failed"]
    assert "its newest evaluation of release failed" in found[1].caveats


def test_the_newest_evaluation_of_a_suite_counts(database, catalog, journal, clock, admin, draft) -> None:
    catalog.add_version(admin, draft("a", description=Description(task="digits")))
    evaluations = Evaluations(database, journal, clock)
    for suite, verdict in (("release", "failed"), ("fair", "failed"), ("release", "successful")):
        evaluations.record(admin, "digits", "1.0.0", {"suite": suite, "verdict": verdict})
    (found,) = Offers(database).recommended(task="digits")
    assert found.failed == ("fair",)


def test_of_each_model_the_best_is_named_by_fit_stage_metric_and_number() -> None:
    offers = [
        offer("a", version="1.0.0", stage="production", metrics={"roc_auc": 0.8}),
        offer("a", version="2.0.0", stage="development", metrics={"roc_auc": 0.99}),
        offer("b", version="1.0.0", stage="production", metrics={"roc_auc": 0.9}),
        offer("b", version="2.0.0", stage="production", metrics={"roc_auc": 0.7}),
        offer("c", stage="archived"),
    ]
    found = recommend(offers, data=DATA)
    assert [(each.model, each.version) for each in found] == [("b", "1.0.0"), ("a", "1.0.0")]
    assert "in production" in found[0].reasons


def test_of_a_loss_less_is_better_and_numbers_of_unknown_meaning_rank_nothing() -> None:
    offers = [offer("a", metrics={"log_loss": 0.9}), offer("b", metrics={"log_loss": 0.1}), offer("c")]
    assert names(*offers, data=DATA) == ["b", "a", "c"]
    odd = [offer("a", metrics={"revenue": 1.0}), offer("b", metrics={"revenue": 2.0})]
    assert names(*odd[::-1], data=DATA) == ["a", "b"]


def test_what_is_registered_and_not_put_away_is_offered(database, catalog, admin, draft) -> None:
    catalog.add_version(admin, draft("a", description=Description(task="digits", metrics={"auc": 0.5})))
    (found,) = Offers(database).recommended(task="digits")
    assert (found.model, found.metrics) == ("digits", {"auc": 0.5})
    (other,) = Offers(database).recommended(data=DataShape(NUMBERS))
    assert other.model == "digits"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"task": " "},
        {"task": "x", "most": 0},
        {"data": DataShape(NUMBERS, "nothing")},
        {"data": DataShape(NUMBERS, "a", values=tuple(map(str, range(2000))))},
    ],
)
def test_what_makes_no_sense_is_refused(database, asked) -> None:
    with pytest.raises(SalverError) as caught:
        Offers(database).recommended(**asked)
    assert caught.value.code == "INVALID_PARAMETER"
