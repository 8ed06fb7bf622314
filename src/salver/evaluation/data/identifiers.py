"""Features that name a row rather than describe it, and features that were not known yet.

An identifier says nothing of a new row, but a model can learn by it which rows it has seen, or the order in which
they were collected. A value that was known only after the target has it built in.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from salver.evaluation.reports.results import CheckResult, ResultTable, Role
from salver.evaluation.subject.rows import Array
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.sections import LeakageSettings
from salver.protocol.verdict import Verdict

__all__ = ["IdentifierCheck", "LateCheck"]

_NAMED: Final = re.compile(r"(^|[_\W])(id|ids|uuid|guid|key|index|rownum|row_number|serial)$|(?<=[a-z])(Id|ID|Key)$")
_UNIQUE: Final = 0.95
_DENSE: Final = 3.0
"""Different whole numbers that fill a third of their range are counted through."""
_LONGEST: Final = 80


class IdentifierCheck:
    """Whether any feature has a value of its own for each row."""

    name = "identifiers"
    role = Role.SAFEGUARD

    def __init__(self, settings: LeakageSettings) -> None:
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Look at the values of each feature."""
        if len(subject.rows) < self._settings.min_rows:
            reason = f"{len(subject.rows)} rows, and {self._settings.min_rows} are needed to tell"
            return CheckResult(Verdict.INCONCLUSIVE, (reason,))
        looked = [name for name in subject.features if name not in self._settings.allow]
        found = {name: why for name in looked if (why := _why(name, subject.rows.column(name)))}
        numbers: dict[str, str | int | float | None] = {"features": len(looked), "identifiers": len(found)}
        table = ResultTable("Features like identifiers", ("feature", "why"), tuple(found.items()))
        if found:
            reasons = [f"{name[:80]!r} {why}" for name, why in list(found.items())[:5]]
            return CheckResult(Verdict.FAILED, tuple(reasons), numbers, (table,))
        return CheckResult(Verdict.SUCCESSFUL, (f"none of {len(looked)} features looks like an identifier",), numbers)


def _why(name: str, column: Array) -> str:
    """Why a column looks like an identifier; empty if it does not."""
    if column.dtype.kind == "O":
        return _why_text(column)
    if column.dtype.kind not in "iuf":
        return ""
    numbers = column[np.isfinite(column)].astype(np.float64)
    if len(numbers) < 2 or not (numbers == np.rint(numbers)).all():
        return ""
    values = np.unique(numbers)
    if len(values) < _UNIQUE * len(numbers):
        return ""
    if values[-1] - values[0] < _DENSE * len(values):
        return f"counts the rows through: {len(values)} different whole numbers from {values[0]:g} to {values[-1]:g}"
    if _NAMED.search(name):
        return f"is called an identifier and has {len(values)} different whole numbers in {len(numbers)} rows"
    return ""


def _why_text(column: Array) -> str:
    """Codes, not prose: short, without spaces, most with a digit, hardly two alike."""
    present = [value for value in column if value]
    if len(present) < 2 or len(set(present)) < _UNIQUE * len(present):
        return ""
    coded = [
        len(value) <= _LONGEST and not re.search(r"\s", value) and bool(re.search(r"\d", value)) for value in present
    ]
    if np.mean(coded) < _UNIQUE:
        return ""
    return f"has {len(set(present))} different codes in {len(present)} rows, such as {present[0][:40]!r}"


class LateCheck:
    """Whether any feature's value was known only after the moment for which one predicts."""

    name = "late_features"
    role = Role.SAFEGUARD

    def __init__(self, settings: LeakageSettings) -> None:
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Compare the two times of each row, for each declared feature."""
        rows, settings = subject.rows, self._settings
        decided = rows.times(settings.decided_at)
        late = {name: int((rows.times(column) > decided).sum()) for name, column in settings.known_at.items()}
        bad = {name: count for name, count in late.items() if count and name in subject.features}
        numbers: dict[str, str | int | float | None] = {f"late {name}": count for name, count in late.items()}
        if bad:
            reasons = [
                f"{name[:80]!r} was known after {settings.decided_at!r} in {n} of {len(rows)} rows"
                for name, n in bad.items()
            ]
            return CheckResult(Verdict.FAILED, tuple(reasons), numbers)
        seen = [name for name in late if name in subject.features]
        return CheckResult(
            Verdict.SUCCESSFUL, (f"of {len(seen)} declared features each was known when it had to be",), numbers
        )
