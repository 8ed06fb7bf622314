"""Behavioural tests with declared cases: what a version must know, whatever else it knows.

Minimum functionality tests of CheckList (Ribeiro et al. 2020): each case is an input with the label or the range
that its answer must have, written out or made of a template. Nothing is sampled, so nothing is estimated: the
share of failing cases is what it is.
"""

from __future__ import annotations

import itertools
import re
from typing import Any, Final

import numpy as np

from salver.evaluation.behaviour.perturbations import is_text, shown_cell, text_features
from salver.evaluation.reports.results import CheckResult, ResultTable, Role
from salver.evaluation.subject.answers import Answers, ask_each, described, score_of
from salver.evaluation.subject.predictions import class_name
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.sections import BehaviourSettings, CaseSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict

__all__ = ["DeclaredCheck"]

_MOST_CASES: Final = 10_000
_EXAMPLES: Final = 10
_SHOWN_CELLS: Final = 4
_PLACE: Final = re.compile(r"\{(\w+)\}")


class DeclaredCheck:
    """One test of declared cases."""

    role = Role.SAFEGUARD

    def __init__(self, settings: BehaviourSettings) -> None:
        self.name = settings.name
        self._settings = settings
        self._cases = settings.cases or tuple(_of_template(settings))

    def run(self, subject: Subject) -> CheckResult:
        """Ask for every case, and compare."""
        settings, cases = self._settings, [self._placed(case, subject) for case in self._cases]
        rows = _rows(cases, settings, subject)
        answers = ask_each(subject, rows)
        wrong = [
            (index, said)
            for index, case in enumerate(cases)
            if (said := _complaint(case, answers, subject, index)) is not None
        ]
        at_most = settings.at_most or 0.0
        rate = len(wrong) / len(cases)
        verdict = Verdict.SUCCESSFUL if rate <= at_most else Verdict.FAILED
        allowed = f", and {at_most:g} of them may" if at_most else ""
        reasons = [f"{len(wrong)} of {len(cases)} declared cases fail{allowed}"]
        if verdict is Verdict.FAILED:
            reasons += [f"{_shown(cases[index].row)}: {said}" for index, said in wrong[:3]]
        table = ResultTable(
            "Cases that fail, the first ones",
            ("input", "why"),
            tuple((_shown(cases[index].row), said) for index, said in wrong[:_EXAMPLES]),
        )
        numbers: dict[str, Any] = {"cases": len(cases), "failed": len(wrong), "rate": rate, "at_most": at_most}
        return CheckResult(verdict, tuple(reasons), numbers, (table,) if wrong else ())

    def _placed(self, case: CaseSettings, subject: Subject) -> CaseSettings:
        """The case with the text of a template in the column that takes it."""
        if not self._settings.template:
            return case
        columns = self._settings.columns or text_features(subject)
        if len(columns) != 1:
            raise SalverError(
                "INVALID_SETTING",
                f"behaviour {self.name!r}: a template fills one column of text, and there are {len(columns)}",
                'name it: columns = ["..."]',
            )
        return CaseSettings({columns[0]: case.row[""]}, case.label)


def _of_template(settings: BehaviourSettings) -> list[CaseSettings]:
    places = list(dict.fromkeys(_PLACE.findall(settings.template)))
    lists = []
    for place in places:
        if not settings.words.get(place):
            raise SalverError(
                "INVALID_SETTING", f"behaviour {settings.name!r}: no words for {{{place}}}", f"words.{place} = [...]"
            )
        lists.append(settings.words[place])
    if (count := int(np.prod([len(each) for each in lists], dtype=np.float64))) > _MOST_CASES:
        raise SalverError(
            "INVALID_SETTING", f"behaviour {settings.name!r}: the template makes {count} cases", "use fewer words"
        )
    combinations = (dict(zip(places, chosen, strict=True)) for chosen in itertools.product(*lists))
    return [
        CaseSettings({"": _PLACE.sub(lambda found, said=said: said[found[1]], settings.template)}, settings.label)  # type: ignore[misc]
        for said in combinations
    ]


def _rows(cases: list[CaseSettings], settings: BehaviourSettings, subject: Subject) -> Rows:
    features = subject.features
    for case in cases:
        if unknown := next((name for name in case.row if name not in features), None):
            raise SalverError(
                "INVALID_SETTING",
                f"behaviour {settings.name!r}: a case gives {unknown[:80]!r}, which the version does not see",
                f"it sees {', '.join(features[:20])}",
            )
    columns = {name: _column(name, cases, settings, subject) for name in features}
    return Rows(columns)


def _column(name: str, cases: list[CaseSettings], settings: BehaviourSettings, subject: Subject) -> Array:
    known = subject.rows.column(name)
    if settings.fill != "typical" and (left_out := next((case for case in cases if name not in case.row), None)):
        raise SalverError(
            "INVALID_SETTING",
            f"behaviour {settings.name!r}: a case does not give {name[:80]!r}: {_shown(left_out.row)}",
            'give every column of the input, or say fill = "typical"',
        )
    fill = None if settings.fill != "typical" else _typical(known)
    given = [case.row.get(name, fill) for case in cases]
    if is_text(known):
        column = np.empty(len(cases), dtype=object)
        column[:] = [None if value is None else str(value) for value in given]
        return column
    try:
        return np.array([np.nan if value is None else value for value in given], dtype=np.float64)
    except ValueError:
        raise SalverError(
            "INVALID_SETTING", f"behaviour {settings.name!r}: column {name[:80]!r} holds numbers", "give one"
        ) from None


def _typical(column: Array) -> Any:
    """The median of numbers (of whole ones a value that occurs), the commonest value of everything else."""
    if column.dtype.kind == "f":
        return float(np.nanmedian(column))
    if column.dtype.kind in "iu":
        return int(np.sort(column)[len(column) // 2])
    values, counts = np.unique(np.array([str(value) for value in column], dtype=str), return_counts=True)
    return str(values[counts.argmax()])


def _complaint(case: CaseSettings, answers: Answers, subject: Subject, index: int) -> str | None:
    """What is wrong with the answer; None if nothing is."""
    truth, found = subject.truth, answers.predictions
    said = described(found, truth, index, str(answers.codes[index]))
    if answers.refused[index]:
        return said
    if case.label is not None:
        wanted = class_name(case.label)
        if wanted not in truth.classes:
            raise SalverError(
                "INVALID_SETTING",
                f"a case expects class {wanted[:80]!r}",
                f"there are {', '.join(truth.classes[:20]) or 'none: it is a regression'}",
            )
        assert found.labels is not None
        if truth.classes[int(found.labels[index])] != wanted:
            return f"{said}, wanted {wanted}"
    score = float(score_of(found, _position(case, subject))[index])
    if case.at_least is not None and score < case.at_least:
        return f"{said}, score {score:.4g}, wanted at least {case.at_least:g}"
    if case.at_most is not None and score > case.at_most:
        return f"{said}, score {score:.4g}, wanted at most {case.at_most:g}"
    return None


def _position(case: CaseSettings, subject: Subject) -> int:
    """The class whose probability a range is about: that of the label, else the positive one of two."""
    if case.label is not None:
        return subject.truth.classes.index(class_name(case.label))
    if len(subject.truth.classes) > 2 and (case.at_least is not None or case.at_most is not None):
        raise SalverError(
            "INVALID_SETTING", "a case has a range and no label, and there are more than two classes", "give its label"
        )
    return -1


def _shown(row: dict[str, Any]) -> str:
    shown = [f"{name} = {shown_cell(value)}" for name, value in list(row.items())[:_SHOWN_CELLS]]
    return ", ".join([*shown, f"and {len(row) - _SHOWN_CELLS} more"] if len(row) > _SHOWN_CELLS else shown)
