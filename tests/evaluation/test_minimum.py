"""Declared cases: written out or made of a template, each counted."""

from __future__ import annotations

import numpy as np
import pytest
from scored import made_subject

from salver.evaluation.behaviour.minimum import DeclaredCheck
from salver.evaluation.suites.sections import BehaviourSettings, CaseSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict


def subject(**more):
    rng = np.random.default_rng(0)
    columns = {
        "age": rng.integers(20, 80, 100),
        "dose": rng.uniform(0, 2, 100),
        "ward": rng.choice(["a", "b", "b"], 100).astype(object),
    }

    def model(rows):
        if (rows.numbers("age") < 0).any():
            raise SalverError("BAD_INPUT", "nobody is younger than 0")
        return np.clip(rows.numbers("age") / 100 + 0.1 * (rows.column("ward") == "a"), 0, 1)

    return made_subject(columns, (columns["age"] > 50).astype(int), model, **more)


def check(*cases: CaseSettings, **more) -> DeclaredCheck:
    return DeclaredCheck(BehaviourSettings("it", "minimum", cases=cases, **more))


def test_cases_pass_or_fail_by_label_and_by_range_and_are_counted() -> None:
    old = {"age": 70, "dose": 1.0, "ward": "b"}
    good = check(
        CaseSettings(old, label=1), CaseSettings(old, at_least=0.65), CaseSettings(old | {"age": 30}, at_most=0.3)
    )
    assert good.run(subject()).verdict is Verdict.SUCCESSFUL
    bad = check(CaseSettings(old, label="0"), CaseSettings(old, at_least=0.75), CaseSettings(old, label=1))
    found = bad.run(subject())
    assert (found.verdict, found.numbers["failed"], found.numbers["cases"]) == (Verdict.FAILED, 2, 3)
    assert found.reasons == (
        "2 of 3 declared cases fail",
        "age = 70, dose = 1, ward = b: 1 (0.7), wanted 0",
        "age = 70, dose = 1, ward = b: 1 (0.7), score 0.7, wanted at least 0.75",
    )
    allowed = check(CaseSettings(old, label=0), CaseSettings(old, label=1), at_most=0.5)
    assert allowed.run(subject()).verdict is Verdict.SUCCESSFUL


def test_a_refused_case_fails_and_says_how() -> None:
    found = check(CaseSettings({"age": -1, "dose": 1.0, "ward": "b"}, label=0)).run(subject())
    assert found.tables[0].rows == (("age = -1, dose = 1, ward = b", "refused: BAD_INPUT"),)


def test_what_a_case_leaves_out_is_typical_only_where_that_is_said() -> None:
    with pytest.raises(SalverError, match='say fill = "typical"'):
        check(CaseSettings({"age": 70}, label=1)).run(subject())
    assert check(CaseSettings({"age": 45}, label=0), fill="typical").run(subject()).verdict is Verdict.SUCCESSFUL


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (CaseSettings({"height": 1}, label=1), "gives 'height', which the version does not see"),
        (CaseSettings({"age": "old"}, label=1), "column 'age' holds numbers"),
        (CaseSettings({"age": 70}, label=7), "a case expects class '7'"),
    ],
)
def test_a_case_that_cannot_be_is_refused(case: CaseSettings, message: str) -> None:
    with pytest.raises(SalverError) as refused:
        check(case, fill="typical").run(subject())
    assert message in str(refused.value)


def of_template(template: str, label: str, **words: tuple[str, ...]) -> DeclaredCheck:
    return DeclaredCheck(BehaviourSettings("it", "minimum", template=template, words=words, label=label))


def reviews():
    texts = np.array(["good", "bad"] * 20, dtype=object)
    model = lambda rows: np.array([0.9 if "good" in text else 0.2 for text in rows.column("text")])  # noqa: E731
    return made_subject({"text": texts}, np.array([1, 0] * 20), model, classes=("negative", "positive"))


def test_a_template_makes_every_combination() -> None:
    words = {"who": ("I", "We"), "what": ("good", "so good", "grand")}
    found = of_template("{who} found it {what}. {who} did!", "positive", **words).run(reviews())
    assert (found.verdict, found.numbers["cases"], found.numbers["failed"]) == (Verdict.FAILED, 6, 2)
    assert found.tables[0].rows[0][0] == "text = I found it grand. I did!"


def test_a_template_needs_its_words_and_not_too_many() -> None:
    with pytest.raises(SalverError, match=r"no words for \{what\}"):
        of_template("{what}!", "positive")
    many = tuple(map(str, range(101)))
    with pytest.raises(SalverError, match="makes 10201 cases"):
        of_template("{a} {b}", "positive", a=many, b=many)


def test_a_range_among_three_classes_needs_a_label() -> None:
    model = lambda rows: np.tile([0.2, 0.3, 0.5], (len(rows), 1))  # noqa: E731
    whole = made_subject({"x": np.arange(9.0)}, np.arange(9) % 3, model, classes=("a", "b", "c"))
    with pytest.raises(SalverError, match="give its label"):
        check(CaseSettings({"x": 1.0}, at_least=0.1)).run(whole)
    assert check(CaseSettings({"x": 1.0}, label="c", at_least=0.4)).run(whole).verdict is Verdict.SUCCESSFUL
