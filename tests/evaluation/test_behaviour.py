"""Behavioural tests by generators: good versions pass, others fail with examples, few cases are inconclusive."""

from __future__ import annotations

import numpy as np
import pytest
from scored import made_subject

from salver.evaluation.behaviour.invariance import BehaviourCheck
from salver.evaluation.suites.sections import BehaviourSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def subject(model=lambda rows: sigmoid(4 * rows.numbers("x")), rows: int = 300, seed: int = 0, **more):
    rng = np.random.default_rng(seed)
    columns = {
        "x": rng.normal(size=rows),
        "sex": rng.choice(["f", "m"], rows).astype(object),
        "text": np.array([f"the film number {i} is good" for i in range(rows)], dtype=object),
    }
    return made_subject(columns, (columns["x"] > 0).astype(int), model, seed=seed, **more)


def check(kind: str, generator: str, **more) -> BehaviourCheck:
    return BehaviourCheck(BehaviourSettings("it", kind, generator=generator, **more))


def test_a_version_that_does_not_look_at_sex_is_invariant_to_it() -> None:
    swap = check("invariance", "swap", columns=("sex",), values=("f", "m"), tolerance=0.0)
    found = swap.run(subject())
    assert (found.verdict, found.numbers["failed"], found.numbers["cases"]) == (Verdict.SUCCESSFUL, 0, 300)
    unfair = subject(lambda rows: sigmoid(4 * rows.numbers("x") + 2 * (rows.column("sex") == "m")))
    found = swap.run(unfair)
    assert found.verdict is Verdict.FAILED
    assert len(found.tables[0].rows) == 10
    _, changed, said, says = found.tables[0].rows[0]
    assert changed in ("sex: f -> m", "sex: m -> f")
    assert said != says


def test_a_score_may_move_within_the_tolerance_while_the_label_stays() -> None:
    noise = {"columns": ("x",), "amount": 0.01}
    assert check("invariance", "noise", tolerance=0.1, **noise).run(subject()).verdict is Verdict.SUCCESSFUL
    assert check("invariance", "noise", tolerance=0.001, **noise).run(subject()).verdict is Verdict.FAILED


def test_a_score_that_must_not_fall_and_does_is_found() -> None:
    raised = check("directional", "shift", columns=("x",), amount=1.0, expect="not_lower")
    assert raised.run(subject()).verdict is Verdict.SUCCESSFUL
    bent = subject(lambda rows: sigmoid(4 * rows.numbers("x") - 8 * np.maximum(rows.numbers("x") - 1, 0)))
    assert raised.run(bent).verdict is Verdict.FAILED
    lowered = check("directional", "shift", columns=("x",), amount=1.0, expect="not_higher")
    assert lowered.run(subject()).verdict is Verdict.FAILED


def test_few_cases_are_inconclusive_and_none_too() -> None:
    swap = check("invariance", "swap", columns=("sex",), values=("f", "m"), rows=20)
    assert swap.run(subject()).verdict is Verdict.INCONCLUSIVE
    nobody = check("invariance", "swap", columns=("sex",), values=("x", "y"))
    found = nobody.run(subject())
    assert (found.verdict, found.reasons) == (
        Verdict.INCONCLUSIVE,
        ("'swap' changed no feature of any row that was looked at",),
    )


def test_a_column_that_the_version_does_not_see_makes_no_case() -> None:
    blind = subject(features=("x", "text"))
    found = check("invariance", "swap", columns=("sex",), values=("f", "m")).run(blind)
    assert (found.verdict, found.numbers["cases"]) == (Verdict.INCONCLUSIVE, 0)


def test_units_are_changed_together_with_their_name() -> None:
    def in_metres(rows):
        return sigmoid(rows.numbers("length") / np.where(rows.column("unit") == "cm", 100, 1) - 2)

    rng = np.random.default_rng(0)
    columns = {"length": rng.uniform(0, 4, 300), "unit": np.array(["m"] * 300, dtype=object)}
    to_cm = {"columns": ("length",), "amount": 100.0, "tolerance": 1e-9}
    whole = made_subject(columns, (columns["length"] > 2).astype(int), in_metres)
    assert check("invariance", "scale", set={"unit": "cm"}, **to_cm).run(whole).verdict is Verdict.SUCCESSFUL
    assert check("invariance", "scale", **to_cm).run(whole).verdict is Verdict.FAILED


def test_text_is_changed_and_a_version_that_counts_letters_is_found() -> None:
    by_words = subject(lambda rows: np.array([0.9 if "good" in text.lower() else 0.1 for text in rows.column("text")]))
    by_capitals = subject(lambda rows: np.array([0.1 if text.isupper() else 0.9 for text in rows.column("text")]))
    shouted = check("invariance", "case", copies=3)
    assert shouted.run(by_words).verdict is Verdict.SUCCESSFUL
    assert shouted.run(by_capitals).verdict is Verdict.FAILED
    negated = check("directional", "negation", expect="not_higher")
    found = negated.run(by_words)
    assert found.verdict is Verdict.SUCCESSFUL


def test_a_refusal_is_a_failure_of_invariance_and_a_good_answer_to_nonsense() -> None:
    def careful(rows):
        if np.isnan(rows.numbers("x")).any():
            raise SalverError("BAD_INPUT", "x is missing")
        return sigmoid(rows.numbers("x"))

    def careless(rows):
        return sigmoid(rows.numbers("x"))  # NaN comes out as NaN, which is refused as a fault

    emptied = {"columns": ("x",), "amount": 0.5, "rows": 200}
    for model, minimum in ((careful, Verdict.SUCCESSFUL), (careless, Verdict.FAILED)):
        whole = subject(model)
        assert check("minimum", "missing", **emptied).run(whole).verdict is minimum
        found = check("invariance", "missing", **emptied).run(whole)
        assert found.verdict is Verdict.FAILED
        assert found.numbers["failed"] == found.numbers["cases"]
        assert found.tables[0].rows[0][3].startswith("refused: ")


def test_a_regression_needs_a_tolerance_and_keeps_it() -> None:
    x = np.linspace(0, 1, 200)
    whole = made_subject({"x": x}, x, lambda rows: rows.numbers("x"), regression=True)
    with pytest.raises(SalverError, match="needs a tolerance"):
        check("invariance", "noise").run(whole)
    assert check("invariance", "noise", tolerance=0.5).run(whole).verdict is Verdict.SUCCESSFUL
    assert check("invariance", "noise", tolerance=0.001).run(whole).verdict is Verdict.FAILED


def test_of_three_classes_the_test_says_whose_probability_it_means() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    model = lambda rows: np.exp(np.column_stack([rows.numbers("x") * k for k in (-1, 0, 1)]))  # noqa: E731
    normal = lambda rows: model(rows) / model(rows).sum(axis=1, keepdims=True)  # noqa: E731
    whole = made_subject({"x": x}, np.digitize(x, [-0.5, 0.5]), normal, classes=("a", "b", "c"))
    shift = {"columns": ("x",), "amount": 1.0, "expect": "not_lower"}
    with pytest.raises(SalverError, match="one of a, b, c"):
        check("directional", "shift", **shift).run(whole)
    with pytest.raises(SalverError, match="names class 'd'"):
        check("directional", "shift", of_class="d", **shift).run(whole)
    assert check("directional", "shift", of_class="c", **shift).run(whole).verdict is Verdict.SUCCESSFUL
    assert check("directional", "shift", of_class="a", **shift).run(whole).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("generator", "more", "message"),
    [
        ("noize", {}, "did you mean 'noise'?"),
        ("bogus", {}, "or define perturb_bogus"),
        ("swap", {"columns": ("sex",)}, "generator 'swap' needs values"),
        ("scale", {"columns": ("x",)}, "generator 'scale' needs amount"),
        ("synonyms", {}, "generator 'synonyms' needs words"),
    ],
)
def test_a_generator_that_cannot_be_is_refused_before_anything_is_loaded(generator, more, message) -> None:
    with pytest.raises(SalverError) as refused:
        check("invariance", generator, **more)
    assert message in str(refused.value)


@pytest.mark.parametrize(("generator", "column"), [("noise", "sex"), ("typos", "x")])
def test_a_column_of_the_wrong_kind_is_named(generator: str, column: str) -> None:
    with pytest.raises(SalverError, match=f"column '{column}' holds no"):
        check("invariance", generator, columns=(column,)).run(subject())


def test_one_seed_gives_one_result_and_rows_of_a_group_count_once() -> None:
    shaky = subject(lambda rows: sigmoid(rows.numbers("x")), groups=np.repeat(np.arange(60), 5))
    noise = check("invariance", "noise", amount=0.5, copies=2)
    one, other = noise.run(shaky), noise.run(shaky)
    assert one == other
    assert one.numbers["cases"] == 60
