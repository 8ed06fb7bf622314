"""Which rows of a data set are evaluated, so that they are to the training rows what production will be.

*Temporal*: the latest rows, since a version answers for days that were not yet when it was trained.
*Grouped*: rows of groups (patients, customers) that are not in training, since production brings new ones.
*Stratified*: at random, with the classes in their proportions. *None*: all rows; the file was held out.

A trainer that splits with `split_rows` and describes the version with `training_data.digest` and
`extra.training_split` lets the evaluation prove that it looks at other rows.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
import numpy as np

from salver.evaluation.reports.results import CheckResult, Role
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.subject.subject import Subject, Training
from salver.evaluation.suites.suite import SplitSettings
from salver.protocol.description import Description
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Judgement, Verdict

__all__ = ["SPLIT_FACT", "SplitCheck", "group_of", "split_digest", "split_rows", "training_of"]

SPLIT_FACT: Final = "training_split"
"""Where a version's description, under `extra`, has the digest of the split on whose other side it was trained."""


def training_of(description: Description) -> Training:
    """What a version's description says of its training rows."""
    data = description.training_data
    return Training(data.digest.removeprefix("sha256:") if data else "", description.extra.get(SPLIT_FACT, ""))


def split_digest(settings: SplitSettings) -> str:
    """What names a split: two of one data set with one digest hold out the same rows."""
    return hashlib.sha256(msgspec.json.encode(settings, order="deterministic")).hexdigest()[:16]


def split_rows(rows: Rows, settings: SplitSettings, target: str) -> tuple[Array, Array]:
    """The indices of the rows to train on and of those to evaluate, each in the order of the file.

    Raises INVALID_SETTING where a side would be empty or a class cannot be on both.
    """
    if settings.kind == "none":
        return np.empty(0, dtype=np.int64), np.arange(len(rows))
    if settings.kind == "temporal":
        train, test = _temporal(rows.times(settings.column), settings)
    else:
        train, test = _shuffled(rows, settings, target)
    if not len(train) or not len(test):
        raise SalverError(
            "INVALID_SETTING",
            f"split {settings.kind!r} leaves {len(train)} rows to train on and {len(test)} to evaluate",
            "choose another test_ratio or column",
        )
    return np.sort(train), np.sort(test)


def _temporal(times: Array, settings: SplitSettings) -> tuple[Array, Array]:
    """Rows of one moment stay together: what happened at the border is not on both sides."""
    ordered = np.sort(times)
    cut = ordered[max(0, len(ordered) - 1 - round(len(ordered) * settings.test_ratio))]
    if cut == ordered[-1] and ordered[0] < cut:
        cut = ordered[ordered < cut][-1]  # the last moment has more rows than were to be held out
    return np.flatnonzero(times <= cut), np.flatnonzero(times > cut)


def _shuffled(rows: Rows, settings: SplitSettings, target: str) -> tuple[Array, Array]:
    try:
        from sklearn import model_selection  # noqa: PLC0415 - an extra
    except ImportError:
        raise SalverError(
            "UNSUPPORTED", "splits at random need scikit-learn", "pip install 'salver[evaluation]'"
        ) from None
    keys = _keys(rows.column(settings.column or target))
    options: dict[str, Any] = {"n_splits": 1, "test_size": settings.test_ratio, "random_state": settings.seed}
    try:
        if settings.kind == "grouped":
            found = next(model_selection.GroupShuffleSplit(**options).split(keys, groups=keys))
        else:
            found = next(model_selection.StratifiedShuffleSplit(**options).split(keys, keys))
    except ValueError as error:
        raise SalverError(
            "INVALID_SETTING", f"split {settings.kind!r}: {str(error)[:200]}", "choose another test_ratio or column"
        ) from None
    return found[0], found[1]


def group_of(rows: Rows, settings: SplitSettings) -> Array | None:
    """The group of each row, as a number; None for other splits."""
    return _keys(rows.column(settings.column)) if settings.kind == "grouped" else None


def _keys(column: Array) -> Array:
    """Each value as a number; missing ones are one value."""
    text = np.array([str(value) for value in column], dtype=str)
    return np.unique(text, return_inverse=True)[1]


class SplitCheck:
    """Whether the rows evaluated are others than those trained on, as far as that is known."""

    name = "split"
    role = Role.SAFEGUARD

    def __init__(self, settings: SplitSettings, *, must_be_known: bool) -> None:
        self._settings = settings
        self._must_be_known = must_be_known

    def run(self, subject: Subject) -> CheckResult:
        """Look at both sides of the split, and at what the version says of its training data."""
        found = Judgement.together([self._apart(subject), self._unseen(subject)])
        numbers: dict[str, str | int | float | None] = {
            "rows": len(subject.rows),
            "other_rows": len(subject.others),
            "kind": self._settings.kind,
            "split": split_digest(self._settings),
        }
        return CheckResult(found.verdict, found.reasons, numbers)

    def _apart(self, subject: Subject) -> Judgement:
        kind, column = self._settings.kind, self._settings.column
        here, there = subject.rows, subject.others
        if kind == "grouped":
            shared = set(map(str, here.column(column))) & set(map(str, there.column(column)))
            if shared:
                return Judgement(Verdict.FAILED, (f"{len(shared)} values of {column!r} are on both sides",))
            groups = len(set(map(str, here.column(column))))
            return Judgement(Verdict.SUCCESSFUL, (f"{groups} values of {column!r}, none of them on both sides",))
        if kind == "temporal":
            first, last = here.times(column).min(), there.times(column).max()
            if first <= last:
                return Judgement(Verdict.FAILED, (f"rows from {first} are evaluated, and training has some of {last}",))
            return Judgement(Verdict.SUCCESSFUL, (f"evaluated are {len(here)} rows from {first} on",))
        return Judgement(Verdict.SUCCESSFUL, (f"evaluated are {len(here)} of {len(here) + len(there)} rows",))

    def _unseen(self, subject: Subject) -> Judgement:
        trained = subject.training
        if not trained.data_digest:
            verdict = Verdict.INCONCLUSIVE if self._must_be_known else Verdict.SUCCESSFUL
            reason = f"{subject.manifest.reference} does not say what it was trained on (training_data.digest)"
            return Judgement(verdict, (reason,))
        if trained.data_digest != subject.data_digest:
            return Judgement(Verdict.SUCCESSFUL, ("it was trained on another file",))
        if self._settings.kind == "none":
            return Judgement(Verdict.FAILED, ("it was trained on this very file, and all its rows are evaluated",))
        if trained.split == split_digest(self._settings):
            return Judgement(Verdict.SUCCESSFUL, ("it was trained on the other side of this split",))
        if trained.split:
            return Judgement(Verdict.FAILED, (f"it was trained on this file by another split ({trained.split[:16]})",))
        reason = f"it was trained on this file, and does not say on which rows (extra.{SPLIT_FACT})"
        return Judgement(Verdict.INCONCLUSIVE, (reason,))
