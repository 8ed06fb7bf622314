"""Generators: how the rows of a behavioural test are changed. Those of tables, those of text, and one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from salver.evaluation.behaviour.perturb_tables import TABLE_CHANGES, Change, spreads_of
from salver.evaluation.behaviour.perturb_text import TEXT_CHANGES
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.sections import BehaviourSettings
from salver.protocol.errors import SalverError
from salver.protocol.nearest import did_you_mean

__all__ = [
    "Perturbation",
    "changed_cells",
    "is_text",
    "measured_features",
    "perturbation_of",
    "shown_cell",
    "text_features",
]

Perturbation = Callable[[Rows, np.random.Generator], Rows]
"""From rows to as many changed ones; it may leave some as they are."""

_AMOUNTS: Final = {"missing": 0.1, "noise": 0.05, "quantised": 0.05, "out_of_range": 1.0, "typos": 0.1}
_NEEDS: Final = {
    "scale": ("amount", "columns"),
    "add": ("amount", "columns"),
    "shift": ("amount", "columns"),
    "permute": ("columns",),
    "swap": ("columns", "values"),
    "synonyms": ("words",),
    "names": ("words",),
}
_FEWEST_VALUES: Final = 10
"""A column of numbers with no more different ones is taken for one of codes, which have no noise."""


def perturbation_of(settings: BehaviourSettings, own: Mapping[str, Perturbation]) -> Callable[[Subject], Perturbation]:
    """The generator that a test names, to be bound to a subject.

    Raises INVALID_SETTING for one that is unknown or lacks a setting.
    """
    name = settings.generator
    if name in own:
        return lambda _: own[name]
    known = [*TABLE_CHANGES, *TEXT_CHANGES, *own]
    if name not in known:
        raise SalverError(
            "INVALID_SETTING",
            f"behaviour {settings.name!r} names generator {name!r}",
            did_you_mean(name, known) or f"there are {', '.join(known)}; or define perturb_{name}",
        )
    for needed in _NEEDS.get(name, ()):
        if getattr(settings, needed) in (None, (), {}):
            raise SalverError("INVALID_SETTING", f"behaviour {settings.name!r}: generator {name!r} needs {needed}")
    return lambda subject: _bound(settings, subject)


def _bound(settings: BehaviourSettings, subject: Subject) -> Perturbation:
    columns = settings.columns or _changeable(settings.generator, subject)
    spreads = spreads_of(subject.rows, columns)
    amount = _AMOUNTS.get(settings.generator, 0.0) if settings.amount is None else settings.amount

    def change(rows: Rows, rng: np.random.Generator) -> Rows:
        made: dict[str, Array] = {}
        for name in columns:
            asked = Change(amount, settings.values, settings.words, spreads[name])
            made[name] = _changed(settings.generator, rows.column(name), asked, rng, name)
        for name, value in settings.set.items():
            made[name] = np.full(len(rows), value, dtype=rows.column(name).dtype)
        return rows.replaced(**made)

    return change


def _changed(generator: str, column: Array, asked: Change, rng: np.random.Generator, name: str) -> Array:
    if generator in TABLE_CHANGES:
        if generator not in ("missing", "permute", "swap") and column.dtype.kind not in "iuf":
            raise SalverError(
                "INVALID_SETTING", f"column {name[:80]!r} holds no numbers for {generator!r}", "name others: columns"
            )
        return TABLE_CHANGES[generator](column, asked, rng)
    if not is_text(column):
        raise SalverError("INVALID_SETTING", f"column {name[:80]!r} holds no text for {generator!r}", "name others")
    texts = np.empty(len(column), dtype=object)
    texts[:] = [None if text is None else TEXT_CHANGES[generator](text, asked, rng) for text in column]
    return texts


def is_text(column: Array) -> bool:
    """Whether a column holds text."""
    return bool(column.dtype.kind == "O")


def text_features(subject: Subject) -> tuple[str, ...]:
    """The columns of text that the version sees."""
    return tuple(name for name in subject.features if is_text(subject.rows.column(name)))


def measured_features(subject: Subject) -> tuple[str, ...]:
    """The columns of numbers that the version sees, without those of a few codes."""
    rows = subject.rows
    return tuple(
        name
        for name in subject.features
        if rows.is_numeric(name)
        and (rows.column(name).dtype.kind == "f" or len(np.unique(rows.column(name))) > _FEWEST_VALUES)
    )


def _changeable(generator: str, subject: Subject) -> tuple[str, ...]:
    if generator in TEXT_CHANGES:
        found = text_features(subject)
    else:
        found = subject.features if generator == "missing" else measured_features(subject)
    if not found:
        raise SalverError(
            "INVALID_SETTING", f"no feature of {subject.manifest.reference} can be changed by {generator!r}", "columns"
        )
    return found


def changed_cells(before: Rows, after: Rows, features: tuple[str, ...]) -> dict[str, Array]:
    """For each feature which rows differ; missing cells are alike."""
    return {name: _differ(before.column(name), after.column(name)) for name in features}


def _differ(one: Array, other: Array) -> Array:
    differ: Array = np.asarray(one != other, dtype=bool)
    if one.dtype.kind == "f" and other.dtype.kind == "f":
        differ &= ~(np.isnan(one) & np.isnan(other))
    return differ


def shown_cell(value: Any) -> str:
    """A cell, short."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "missing"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
