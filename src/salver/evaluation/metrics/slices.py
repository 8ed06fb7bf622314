"""Parts of the rows where a version is worse than elsewhere: those one declares, and the worst there are.

The idea is that of SliceFinder (Chung, Kraska, Polyzotis, Tae and Whang 2019, ICDE): look at all slices of
one and of two columns, ask of each whether its rows cost more than the others, and report those whose
difference is large and no accident. Here the guard against accidents is Holm's correction over every slice
that was looked at, declared or discovered: where no slice is worse, the chance of reporting any is at most
the level. It holds because slices are cut by their columns alone, before any loss is known.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from salver.evaluation.reports.results import CheckResult, Mark, Plot, ResultTable, Role, Series
from salver.evaluation.subject.cutting import Cells, cut_column, select_rows
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.suite import SliceSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict
from salver.stats.libraries import scipy_stats
from salver.stats.multiplicity import holm

__all__ = ["Slice", "SliceCheck", "find_slices"]

_MOST_SLICES: Final = 200_000
_REPORTED: Final = 20
_NAMED: Final = 3
"""Slices that a reason names."""


@dataclass(frozen=True)
class Slice:
    """Rows with something in common, and what they cost beside the others."""

    name: str
    columns: tuple[str, ...]
    declared: bool
    rows: int
    loss: float
    """Mean of its rows."""
    rest: float
    """Mean of all others."""
    p_value: float = 1.0
    """One-sided, of this slice alone."""
    adjusted_p: float = 1.0
    """Adjusted for all that were looked at."""
    parents: tuple[str, ...] = ()
    """The slices of one column that it is the meeting of."""

    @property
    def gap(self) -> float:
        """By how much its mean loss exceeds that of the others."""
        return self.loss - self.rest


class SliceCheck:
    """Whether any slice costs more than the others by more than `max_gap`, beyond chance."""

    name = "slices"
    role = Role.SAFEGUARD

    def __init__(self, settings: SliceSettings) -> None:
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Look at the declared slices, and search for others where the suite says so."""
        settings, losses = self._settings, subject.losses()
        search = [name for name in subject.rows.columns if name != subject.target]
        found = find_slices(subject.rows, losses, settings, search)
        bad = sorted((each for each in found if _is_bad(each, settings)), key=lambda each: -each.gap)
        bad = [each for each in bad if each.declared or not _explained(each, bad)]
        small = [
            where.name
            for where, mask in zip(settings.where, select_rows(subject.rows, settings.where), strict=True)
            if not _is_supported(int(mask.sum()), len(losses), settings)
        ]
        worst = sorted(found, key=lambda each: (-(each in bad), each.adjusted_p, -each.gap))[:_REPORTED]
        numbers: dict[str, str | int | float | None] = {
            "looked_at": len(found),
            "bad": len(bad),
            "mean_loss": float(losses.mean()),
            "worst_gap": max((each.gap for each in found), default=None),
        }
        verdict, reasons = self._verdict(found, bad, small)
        return CheckResult(verdict, reasons, numbers, (_table(worst, bad),), (_plot(worst, losses),) if worst else ())

    def _verdict(
        self, found: Sequence[Slice], bad: Sequence[Slice], small: Sequence[str]
    ) -> tuple[Verdict, tuple[str, ...]]:
        settings = self._settings
        if bad:
            reasons = [
                f"{each.name}: mean loss {each.loss:.4g} on {each.rows} rows, {each.rest:.4g} elsewhere "
                f"(adjusted p {each.adjusted_p:.2g})"
                for each in bad[:_NAMED]
            ]
            more = [f"and {len(bad) - _NAMED} more slices"] if len(bad) > _NAMED else []
            return Verdict.FAILED, (*reasons, *more)
        if small:
            named = ", ".join(map(repr, small))
            return Verdict.INCONCLUSIVE, (f"slices with fewer than {settings.min_support} rows: {named}",)
        if not found:
            return Verdict.INCONCLUSIVE, (f"no slice has {settings.min_support} rows",)
        return Verdict.SUCCESSFUL, (
            f"of {len(found)} slices none is worse by more than {settings.max_gap:g} beyond chance "
            f"(Holm, level {settings.level:g})",
        )


def find_slices(rows: Rows, losses: Array, settings: SliceSettings, search: Sequence[str]) -> list[Slice]:
    """Every slice that was looked at, with its p-value adjusted for all of them.

    `search` names the columns that discovery may use where the settings name none. Losses of 0 and 1 are
    tested exactly (Fisher), others by ranks (Mann and Whitney), each against the other rows and one-sided.
    Raises INVALID_SETTING for more slices than can be looked at.
    """
    columns = dict.fromkeys(settings.columns)
    if settings.discover:
        columns |= dict.fromkeys(settings.discover_columns or search)
    cells = {name: cut_column(rows, name, settings.bins) for name in columns}
    sums = _Sums(losses)
    for where, mask in zip(settings.where, select_rows(rows, settings.where), strict=True):
        sums.add(Cells((where.column,), (where.name,), np.where(mask, 0, -1)), settings, declared=True)
    for name, each in cells.items():
        sums.add(each, settings, declared=name in settings.columns)
    if settings.discover:
        for one, other in itertools.combinations([cells[name] for name in settings.discover_columns or search], 2):
            sums.add(one.crossed(other), settings, declared=False)
    return sums.judged()


def _is_supported(count: int, total: int, settings: SliceSettings) -> bool:
    return min(count, total - count) >= settings.min_support


class _Sums:
    """Counts, losses and ranks of slices, from which all p-values are computed at once."""

    def __init__(self, losses: Array) -> None:
        self._losses = losses
        self._is_binary = bool(np.isin(losses, (0.0, 1.0)).all())
        self._ranks = losses if self._is_binary else scipy_stats().rankdata(losses)
        self._slices: list[Slice] = []
        self._rank_sums: list[float] = []

    def add(self, cells: Cells, settings: SliceSettings, *, declared: bool) -> None:
        """Take in the cells that have enough rows."""
        within = cells.codes >= 0
        codes, total = cells.codes[within], len(self._losses)
        counts = np.bincount(codes, minlength=len(cells.names))
        sums = np.bincount(codes, self._losses[within], len(cells.names))
        ranks = np.bincount(codes, self._ranks[within], len(cells.names))
        whole = float(self._losses.sum())
        for index, name in enumerate(cells.names):
            count = int(counts[index])
            if not _is_supported(count, total, settings):
                continue
            rest = (whole - float(sums[index])) / (total - count)
            parents = cells.parents[index] if cells.parents else ()
            self._slices.append(
                Slice(name, cells.columns, declared, count, float(sums[index]) / count, rest, parents=parents)
            )
            self._rank_sums.append(float(ranks[index]))
        if len(self._slices) > _MOST_SLICES:
            raise SalverError(
                "INVALID_SETTING", f"there are more than {_MOST_SLICES} slices to look at", "name discover_columns"
            )

    def judged(self) -> list[Slice]:
        """All slices with their p-values."""
        if not self._slices:
            return []
        counts = np.array([each.rows for each in self._slices])
        sums = np.array(self._rank_sums)
        p_values = self._fisher(counts, sums) if self._is_binary else self._mann_whitney(counts, sums)
        adjusted = holm(p_values)
        return [
            Slice(s.name, s.columns, s.declared, s.rows, s.loss, s.rest, float(p), q, s.parents)
            for s, p, q in zip(self._slices, p_values, adjusted, strict=True)
        ]

    def _fisher(self, counts: Array, wrong: Array) -> Array:
        """Fisher's exact test: so many wrong rows or more among those of the slice, given how many there are."""
        total, bad = len(self._losses), round(float(self._losses.sum()))
        found: Array = scipy_stats().hypergeom.sf(np.round(wrong) - 1, total, bad, counts)
        return np.clip(found, 0.0, 1.0)

    def _mann_whitney(self, counts: Array, rank_sums: Array) -> Array:
        """Mann and Whitney (1947, Annals of Mathematical Statistics 18, 50), normal, with ties and continuity."""
        total = len(self._losses)
        others = total - counts
        u = rank_sums - counts * (counts + 1) / 2
        _, ties = np.unique(self._losses, return_counts=True)
        spread = counts * others / 12 * (total + 1 - float((ties**3.0 - ties).sum()) / (total * (total - 1)))
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (u - counts * others / 2 - 0.5) / np.sqrt(spread)
        found: Array = scipy_stats().norm.sf(np.where(spread > 0, z, -np.inf))
        return found


def _is_bad(found: Slice, settings: SliceSettings) -> bool:
    return found.adjusted_p <= settings.level and found.gap > settings.max_gap


def _explained(found: Slice, bad: Iterable[Slice]) -> bool:
    """Whether a slice of two columns is no worse than one of one column that holds it, which then says it shorter."""
    worse = {each.name: each.loss for each in bad if not each.parents}
    return any(parent in worse and found.loss <= worse[parent] for parent in found.parents)


def _table(worst: Sequence[Slice], bad: Sequence[Slice]) -> ResultTable:
    columns = ("slice", "rows", "mean loss", "elsewhere", "gap", "p", "adjusted p", "from", "worse")
    rows = tuple(
        (
            each.name,
            each.rows,
            each.loss,
            each.rest,
            each.gap,
            each.p_value,
            each.adjusted_p,
            "declared" if each.declared else "discovered",
            "yes" if each in bad else "no",
        )
        for each in worst
    )
    return ResultTable("The worst slices", columns, rows)


def _plot(worst: Sequence[Slice], losses: Array) -> Plot:
    shown = sorted(worst[:10], key=lambda each: each.loss)
    series = Series(
        "mean loss",
        Mark.BARS,
        tuple(each.loss for each in shown),
        tuple(float(index) for index in range(len(shown))),
        names=tuple(each.name for each in shown),
    )
    return Plot("The worst slices", "mean loss of a row", "", (series,), at_x=float(losses.mean()))
