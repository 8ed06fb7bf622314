"""The sections of a suite that ask how a version behaves: perturbed, attacked, by group, and against its data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from salver.evaluation.suites.limits import bounds, each_bounds, given_bounds

__all__ = [
    "BehaviourSettings",
    "CaseSettings",
    "Disparity",
    "FairnessSettings",
    "FitSettings",
    "LeakageSettings",
    "RobustnessSettings",
    "behaviour_problems",
]

_ANY: Final = float("inf")
Cell = str | int | float | bool | None
Disparity = Literal[
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equalized_odds_difference",
    "equal_opportunity_difference",
    "accuracy_difference",
    "false_positive_rate_difference",
    "false_negative_rate_difference",
]


class CaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[behaviour.cases]]`: what a version must know, input by input."""

    row: dict[str, Cell]
    """The value of each column of the input."""
    label: str | int | None = None
    at_least: float | None = None
    """Of the score: the probability of the positive class, or the value of a regression."""
    at_most: float | None = None


class BehaviourSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[behaviour]]`: a test by declared cases, or by rows held out and changed by a generator."""

    name: str
    kind: Literal["minimum", "invariance", "directional"]
    """Declared answers (or any answer at all), the same answer, or one that moves one way only."""
    cases: tuple[CaseSettings, ...] = ()
    """Of `minimum`."""
    fill: Literal["", "typical"] = ""
    """What columns that a case leaves out hold: nothing (they must be given), or the median or commonest value."""
    template: str = ""
    """Of `minimum`: text with {words} in braces; every combination is a case."""
    words: dict[str, tuple[str, ...]] = {}
    """The words of a template, or of `synonyms` and `names`: lists of which one stands for another."""
    label: str | int | None = None
    """What each text of the template must be answered with."""
    generator: str = ""
    """How a row is changed; see the list of generators."""
    columns: tuple[str, ...] = ()
    """Those that are changed; none: every feature that the generator can change."""
    amount: float | None = None
    """How much: see the generator."""
    values: tuple[Cell, ...] = ()
    """Of `swap`: each is replaced by the next, the last by the first."""
    set: dict[str, Cell] = {}
    """What other columns hold after the change, such as the name of the new unit."""
    expect: Literal["", "not_lower", "not_higher"] = ""
    """Of `directional`: how the score may not move."""
    of_class: str | int | None = None
    """Of `directional`: whose probability is the score; empty: the positive class."""
    tolerance: float | None = None
    """By how much a score may move all the same; of `invariance`, empty: only the label counts."""
    at_most: float | None = None
    """The share of cases that may fail; empty: 0 of `minimum`, else 0.05."""
    rows: int = 300
    """Rows held out that are changed, at most."""
    copies: int = 1
    """Changes of each row; one that fails fails the row."""


class RobustnessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[robustness]]`: accuracy while rows are disturbed more and more."""

    kind: Literal["noise", "missing", "quantised", "typos", "adversarial"]
    levels: tuple[float, ...] = ()
    """How much, in standard deviations of a column; of `missing` the share of cells, of `typos` that of words."""
    drop_at_most: float | None = None
    """What may be lost at each level: of the accuracy, or of a regression relative to its mean error."""
    columns: tuple[str, ...] = ()
    rows: int = 300
    queries: int = 100
    """Of `adversarial`: questions for each row and level."""


class FairnessSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[fairness]`: whether groups of people fare alike."""

    columns: tuple[str, ...]
    """Each value is a group; of numbers each quantile bin."""
    favourable: str | int | None = None
    """The class one wants to be given; empty: the positive one."""
    at_most: dict[Disparity, float] = {}
    at_least: dict[Disparity, float] = {}
    min_support: int = 30
    """Rows that a rate of a group rests on at least; groups with fewer are not judged."""
    bins: int = 4
    intersections: bool = False
    """Whether groups by two columns are looked at too."""


class LeakageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[leakage]`: whether the data gives the answer away."""

    training: str = ""
    """The rows it was trained on: a table, or a text file of row digests; empty: the other side of the split."""
    duplicates_at_most: float = 0.01
    """The share of evaluated rows that may be, or nearly be, among the training rows."""
    near: float = 0.01
    """In standard deviations: rows that differ by no more in any column are nearly the same."""
    alike: float = 0.95
    """The cosine of their character n-grams from which on two texts are nearly the same."""
    single_feature_at_most: float = 0.99
    """The area under the curve (of a regression R2) that one column alone may reach."""
    ablation_at_most: float = 0.9
    """The share of its skill that a version may owe to one column."""
    decided_at: str = ""
    """The column with the moment for which one predicts."""
    known_at: dict[str, str] = {}
    """For a feature the column with the moment at which its value was known."""
    allow: tuple[str, ...] = ()
    """Columns that are looked at and found right."""
    min_rows: int = 50


class FitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Section `[fit]`: whether a version learned too little, or by heart."""

    training: str = ""
    """The rows it was trained on, a table; empty: the other side of the split."""
    gap_at_most: float = 0.15
    """By how much it may do better on its training rows than on those held out."""
    worse_at_most: float = 0.05
    """By how much a simple model may do better."""
    too_good: float = 0.1
    """Fewer errors than this share of the simple model's are too good to be taken on trust."""
    learning_curve: bool = True
    label_noise_at_most: float | None = None
    """The share of labels that may look wrong; empty: only reported."""
    rows: int = 5000
    """Rows that simple models learn from, at most."""


def behaviour_problems(suite: Any) -> Iterable[str]:
    """What is wrong with these sections of a suite."""
    for each in suite.behaviour:
        yield from (f"behaviour {each.name!r}: {problem}" for problem in _of_behaviour(each))
    for robust in suite.robustness:
        yield from _of_robustness(robust)
    kinds = [each.kind for each in suite.robustness]
    yield from (f"robustness {kind!r} stands twice" for kind in dict.fromkeys(kinds) if kinds.count(kind) > 1)
    if suite.fairness is not None:
        yield from _of_fairness(suite.fairness)
    if suite.leakage is not None:
        yield from _of_leakage(suite.leakage)
    if suite.fit is not None:
        yield from _of_fit(suite.fit)


def _of_behaviour(each: BehaviourSettings) -> Iterable[str]:
    sources = [name for name in ("cases", "template", "generator") if getattr(each, name)]
    if len(sources) != 1:
        yield f"it needs one of cases, template and generator, and has {' and '.join(sources) or 'none'}"
    if each.kind != "minimum" and sources and not each.generator:
        yield f"kind {each.kind!r} needs a generator"
    if (each.kind == "directional") != bool(each.expect):
        yield f"kind {each.kind!r} {'needs' if each.kind == 'directional' else 'has no'} expect"
    if each.template and each.label is None:
        yield "its template has no label"
    for case in each.cases:
        if case.label is None and case.at_least is None and case.at_most is None:
            yield f"a case expects nothing: {_shown(case.row)}"
    if each.generator and each.at_most == 0:
        yield "at_most is 0, which no number of rows can show; give for instance 0.01"
    yield from given_bounds("at_most", each.at_most, 0.0, 1.0)
    yield from given_bounds("tolerance", each.tolerance, 0.0, _ANY)
    yield from bounds("rows", each.rows, 1, 100_000)
    yield from bounds("copies", each.copies, 1, 100)


def _of_robustness(each: RobustnessSettings) -> Iterable[str]:
    name = f"robustness {each.kind}"
    yield from each_bounds(f"{name}: levels", each.levels, 0.0, 1.0 if each.kind in ("missing", "typos") else 1000.0)
    if len(each.levels) > 20:
        yield f"{name}: {len(each.levels)} levels; there may be 20"
    yield from given_bounds(f"{name}: drop_at_most", each.drop_at_most, 0.0, _ANY)
    yield from bounds(f"{name}: rows", each.rows, 1, 100_000)
    yield from bounds(f"{name}: queries", each.queries, 1, 10_000)


def _of_fairness(each: FairnessSettings) -> Iterable[str]:
    if not each.columns:
        yield "fairness names no columns"
    for name in ("at_most", "at_least"):
        given: Mapping[str, float] = getattr(each, name)
        for metric, bound in given.items():
            yield from bounds(f"fairness.{name} {metric}", bound, 0.0, 1.0)
            right = "at_least" if metric.endswith("_ratio") else "at_most"
            if name != right:
                yield f"fairness.{name} has {metric}, whose bound is {right}"
    yield from bounds("fairness.min_support", each.min_support, 2, 10**9)
    yield from bounds("fairness.bins", each.bins, 2, 20)


def _of_leakage(each: LeakageSettings) -> Iterable[str]:
    for name in ("duplicates_at_most", "alike", "single_feature_at_most", "ablation_at_most"):
        yield from bounds(f"leakage.{name}", getattr(each, name), 0.0, 1.0)
    yield from bounds("leakage.near", each.near, 0.0, _ANY)
    yield from bounds("leakage.min_rows", each.min_rows, 10, 10**9)
    if each.known_at and not each.decided_at:
        yield "leakage.known_at needs leakage.decided_at"


def _of_fit(each: FitSettings) -> Iterable[str]:
    yield from bounds("fit.gap_at_most", each.gap_at_most, 0.0, _ANY)
    yield from bounds("fit.worse_at_most", each.worse_at_most, 0.0, _ANY)
    yield from bounds("fit.too_good", each.too_good, 0.0, 1.0)
    yield from given_bounds("fit.label_noise_at_most", each.label_noise_at_most, 0.0, 1.0)
    yield from bounds("fit.rows", each.rows, 50, 10**6)


def _shown(row: Mapping[str, Cell]) -> str:
    return ", ".join(f"{name}={value}" for name, value in list(row.items())[:3])
