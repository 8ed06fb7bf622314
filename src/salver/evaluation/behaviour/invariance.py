"""Behavioural tests with generators: rows held out, changed, and what may happen to the answer.

Three kinds after CheckList (Ribeiro, Wu, Guestrin and Singh 2020, ACL): a *minimum* (any valid answer, or a refusal
that is one), *invariance* (the answer stays) and *directional* (it moves one way only). A row whose change leaves
the features as they were is no case. The share of failing cases is held against its bound by Wilson's interval:
few cases are inconclusive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from salver.evaluation.behaviour.perturbations import Perturbation, changed_cells, perturbation_of, shown_cell
from salver.evaluation.reports.results import CheckResult, ResultTable, Role
from salver.evaluation.subject.answers import Answers, ask_each, described, score_of
from salver.evaluation.subject.predictions import Predictions, Truth, class_name
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.sections import BehaviourSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict
from salver.stats.intervals import wilson
from salver.stats.margins import judge_bound
from salver.stats.power import more_for_share

__all__ = ["BehaviourCheck", "sample_rows"]

Example = tuple[int, str, str, str]

_AT_MOST: Final = 0.05
_EXAMPLES: Final = 10
_CELLS: Final = 3
"""Changed cells that an example shows."""
_STILL: Final = 1e-6
"""By how much a score may move that must not: the sum of a batch may be added up in another order."""
_REFUSALS: Final = ("MODEL_ERROR", "BAD_MODEL_OUTPUT", "NONFINITE_OUTPUT")


class BehaviourCheck:
    """One test by a generator."""

    role = Role.SAFEGUARD

    def __init__(self, settings: BehaviourSettings, own: Mapping[str, Perturbation] | None = None) -> None:
        self.name = settings.name
        self._settings = settings
        self._bind = perturbation_of(settings, own or {})

    def run(self, subject: Subject) -> CheckResult:
        """Change rows, ask again, and count the rows that any change fails."""
        settings, rng = self._settings, subject.rng(f"behaviour {self.name}")
        change = self._bind(subject)
        chosen = sample_rows(subject, settings.rows, rng)
        rows, before = subject.rows.take(chosen), subject.predictions.take(chosen)
        tested, failed = np.zeros(len(chosen), dtype=bool), np.zeros(len(chosen), dtype=bool)
        examples: list[Example] = []
        for _ in range(settings.copies):
            changed = change(rows, rng)
            cells = changed_cells(rows, changed, subject.features)
            some = np.flatnonzero(np.any(list(cells.values()), axis=0)) if cells else np.empty(0, dtype=np.int64)
            if not len(some):
                continue
            answers = ask_each(subject, changed.take(some))
            broken = self._broken(before.take(some), answers, subject.truth)
            tested[some] = True
            for place in np.flatnonzero(broken & ~failed[some])[: _EXAMPLES - len(examples)]:
                said = described(before, subject.truth, int(some[place]))
                says = described(answers.predictions, subject.truth, int(place), str(answers.codes[place]))
                at = int(some[place])
                examples.append((int(chosen[at]), _shown_change(at, rows, changed, cells), said, says))
            failed[some[broken]] = True
        return self._judged(subject, int(tested.sum()), int(failed.sum()), examples)

    def _judged(self, subject: Subject, tested: int, failed: int, examples: list[Example]) -> CheckResult:
        settings = self._settings
        at_most = _AT_MOST if settings.at_most is None else settings.at_most
        if not tested:
            reason = f"{settings.generator!r} changed no feature of any row that was looked at"
            return CheckResult(Verdict.INCONCLUSIVE, (reason,), {"cases": 0, "at_most": at_most})
        rate = wilson(failed, tested, level=2 * subject.confidence - 1)
        found = judge_bound(
            f"share of {tested} cases that fail", rate, at_most=at_most, rows=tested, unit="cases", plan=more_for_share
        )
        numbers: dict[str, str | int | float | None] = {
            "cases": tested,
            "failed": failed,
            "rate": rate.estimate,
            "low": rate.low,
            "high": rate.high,
            "at_most": at_most,
        }
        table = ResultTable("Cases that fail, the first ones", ("row", "changed", "said", "says"), tuple(examples))
        return CheckResult(found.verdict, found.reasons, numbers, (table,) if examples else ())

    def _broken(self, before: Predictions, answers: Answers, truth: Truth) -> Array:
        """Which cases fail."""
        settings, after, refused = self._settings, answers.predictions, answers.refused
        if settings.kind == "minimum":
            # To refuse what is no sensible input is a good answer; to break on it is none.
            return np.isin(answers.codes, _REFUSALS)
        if settings.kind == "directional":
            position = _position(settings, truth)
            moved = score_of(after, position) - score_of(before, position)
            worse = -moved if settings.expect == "not_lower" else moved
            tolerance = _STILL if settings.tolerance is None else settings.tolerance
            broken: Array = refused | (np.nan_to_num(worse, nan=0.0) > tolerance)
            return broken
        return _differing(settings, before, after)


def _differing(settings: BehaviourSettings, before: Predictions, after: Predictions) -> Array:
    """Which answers are not the same: none, another label, or a number that moved by more than the tolerance."""
    if before.values is not None:
        if settings.tolerance is None:
            raise SalverError(
                "INVALID_SETTING", f"behaviour {settings.name!r} needs a tolerance", "a regression has no labels"
            )
        assert after.values is not None
        moved: Array = np.abs(after.values - before.values)
        return np.nan_to_num(moved, nan=np.inf) > settings.tolerance
    assert before.labels is not None
    assert after.labels is not None
    differing: Array = np.not_equal(after.labels, before.labels)
    if settings.tolerance is None:
        return differing
    if before.probabilities is None or after.probabilities is None:
        raise SalverError(
            "INVALID_SETTING",
            f"behaviour {settings.name!r} has a tolerance",
            "leave it out: there are no probabilities",
        )
    moved = np.abs(after.probabilities - before.probabilities).max(axis=1)
    return differing | (np.nan_to_num(moved, nan=np.inf) > settings.tolerance)


def _position(settings: BehaviourSettings, truth: Truth) -> int:
    """Of the class whose probability must not move one way."""
    if settings.of_class is None:
        if len(truth.classes) > 2:
            raise SalverError(
                "INVALID_SETTING",
                f"behaviour {settings.name!r} does not say which class's probability it means",
                f"say of_class: one of {', '.join(truth.classes[:20])}",
            )
        return -1
    name = class_name(settings.of_class)
    if name not in truth.classes:
        raise SalverError(
            "INVALID_SETTING",
            f"behaviour {settings.name!r} names class {name[:80]!r}",
            f"there are {', '.join(truth.classes[:20]) or 'none: it is a regression'}",
        )
    return truth.classes.index(name)


def sample_rows(subject: Subject, most: int, rng: np.random.Generator) -> Array:
    """Some of the evaluated rows, in their order; of a grouped split one of each group, since those are alike."""
    rows = np.arange(len(subject.rows))
    if subject.groups is not None:
        mixed = rng.permutation(rows)
        rows = mixed[np.unique(subject.groups[mixed], return_index=True)[1]]
    return np.sort(rows if len(rows) <= most else rng.choice(rows, most, replace=False))


def _shown_change(place: int, before: Rows, after: Rows, cells: Mapping[str, Array]) -> str:
    """Which cells of a row were changed, and how."""
    names = [name for name, changed in cells.items() if changed[place]]
    shown = [
        f"{name}: {shown_cell(before.column(name)[place])} -> {shown_cell(after.column(name)[place])}"
        for name in names[:_CELLS]
    ]
    more = [f"and {len(names) - _CELLS} more"] if len(names) > _CELLS else []
    return "; ".join(shown + more)
