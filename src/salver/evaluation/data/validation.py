"""Whether the rows are such as the version was trained on.

Against the profile that was registered with it: ranges, missing values, means. Against reference rows: types,
categories, distributions. And against a schema of pandera's, where the suite names one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from salver.evaluation.data.drift import ColumnDrift, column_drifts
from salver.evaluation.data.schema_process import Broken, SchemaOrder
from salver.evaluation.reports.results import CheckResult, Mark, Plot, ResultTable, Role, Series
from salver.evaluation.subject.rows import Array, Rows, read_rows
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.service_sections import DataSettings
from salver.protocol.errors import SalverError
from salver.protocol.profile import FeatureProfile
from salver.protocol.verdict import Judgement, Verdict
from salver.runtime.asking import ask_child
from salver.runtime.child import Ended
from salver.stats.intervals import Interval, newcombe_difference, quantile_z, wilson
from salver.stats.margins import judge_bound
from salver.stats.power import more_for_share

__all__ = ["DataCheck"]

_SCHEMA_S: Final = 300.0
_MOST_BROKEN_BYTES: Final = 16 * 2**20
_NAMED: Final = 5
_PLOTTED: Final = 12


@dataclass
class _Findings:
    """What was looked at, by what was found."""

    failed: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)
    looked_at: int = 0

    def take(self, name: str, judged: Judgement) -> None:
        """Note one judgement about a column."""
        self.looked_at += 1
        said = [f"{name}: {reason}" for reason in judged.reasons]
        if judged.verdict is Verdict.FAILED:
            self.failed += said
        elif judged.verdict is not Verdict.SUCCESSFUL:
            self.doubtful += said

    def judgement(self, what: str) -> Judgement:
        """One judgement of all; nothing looked at is none."""
        for verdict, found in ((Verdict.FAILED, self.failed), (Verdict.INCONCLUSIVE, self.doubtful)):
            if found:
                more = (f"and {len(found) - _NAMED} more about {what}",) if len(found) > _NAMED else ()
                return Judgement(verdict, (*found[:_NAMED], *more))
        return Judgement(Verdict.SUCCESSFUL, (f"{what}: nothing amiss in {self.looked_at} comparisons",))


class DataCheck:
    """The evaluated rows against profile, reference and schema."""

    name = "data"
    role = Role.SAFEGUARD

    def __init__(self, settings: DataSettings) -> None:
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Look at every feature."""
        settings = self._settings
        parts: list[Judgement] = []
        tables: list[ResultTable] = []
        numbers: dict[str, Any] = {"rows": len(subject.rows), "features": len(subject.features)}
        profiled = list(_profiled(subject))
        if profiled:
            found, table = self._against_profile(subject, profiled)
            parts.append(found)
            tables.append(table)
        drifts: list[ColumnDrift] = []
        reference = self._reference(subject)
        if reference is not None:
            drifts = column_drifts(subject.rows, reference, subject.features)
            parts += self._against_reference(subject, reference, drifts)
            tables.append(_drift_table(drifts, settings))
            numbers |= {"reference_rows": len(reference), "largest_psi": max((each.psi for each in drifts), default=0)}
        if settings.schema:
            broken = broken_rules(Path(settings.schema), subject.rows)
            parts.append(_schema_judgement(broken, Path(settings.schema).name))
            numbers["broken_rules"] = len(broken)
            if broken:
                rows = tuple((each.column, each.rule, each.rows, each.example) for each in broken)
                tables.append(
                    ResultTable("Rules of the schema that are broken", ("column", "rule", "rows", "one"), rows)
                )
        if not parts:
            reason = "there is nothing to compare with: no profile (register --profile), no reference, no schema"
            return CheckResult(Verdict.INCONCLUSIVE, (reason,), numbers)
        judged = Judgement.together(parts)
        plots = (_plot(drifts),) if any(each.psi > 0 for each in drifts) else ()
        return CheckResult(judged.verdict, judged.reasons, numbers, tuple(tables), plots)

    def _reference(self, subject: Subject) -> Rows | None:
        if self._settings.reference:
            return read_rows(Path(self._settings.reference))
        return subject.others if len(subject.others) else None

    def _against_profile(
        self, subject: Subject, profiled: list[tuple[str, FeatureProfile, int]]
    ) -> tuple[Judgement, ResultTable]:
        findings, rows = _Findings(), []
        for name, profile, count in profiled:
            column = subject.rows.numbers(name)
            present = column[np.isfinite(column)]
            outside = int(np.sum((present < profile.low) | (present > profile.high)))
            for judged in self._feature(column, present, profile, count, outside, subject.confidence):
                findings.take(name, judged)
            shift = _shift(present, profile)
            rows.append((name, profile.low, profile.high, outside, len(column) - len(present), shift))
        columns = ("feature", "lowest", "highest", "outside", "missing", "mean moved, in std")
        return findings.judgement("the profile"), ResultTable("Against the profile", columns, tuple(rows))

    def _feature(
        self, column: Array, present: Array, profile: FeatureProfile, count: int, outside: int, confidence: float
    ) -> Iterator[Judgement]:
        settings, level = self._settings, 2 * confidence - 1
        missing = len(column) - len(present)
        if missing or profile.missing:
            more = newcombe_difference((missing, len(column)), (profile.missing, count), level=level)
            yield judge_bound("share of missing values above that in training", more, at_most=settings.missing_at_most)
        if not len(present):
            return
        share = wilson(outside, len(present), level=level)
        yield judge_bound(
            "share outside the range of training",
            share,
            at_most=settings.outside_at_most,
            rows=len(present),
            plan=more_for_share,
        )
        moved = _shift_interval(present, profile, count, level)
        if moved is not None:
            yield judge_bound("mean moved, in standard deviations", moved, at_most=settings.shift_at_most)

    def _against_reference(self, subject: Subject, reference: Rows, drifts: list[ColumnDrift]) -> Iterator[Judgement]:
        settings, findings = self._settings, _Findings()
        gone = [name for name in subject.features if name not in reference.columns]
        if gone:
            yield Judgement(Verdict.FAILED, (f"the reference has no column {', '.join(gone[:_NAMED])}",))
        if min(len(subject.rows), len(reference)) < settings.min_rows:
            few = f"{len(subject.rows)} rows and {len(reference)} of reference are too few to compare distributions"
            yield Judgement(Verdict.INCONCLUSIVE, (few,))
            return
        for each in drifts:
            findings.take(each.column, self._drift(each, subject.confidence))
        yield findings.judgement("the reference rows")

    def _drift(self, found: ColumnDrift, confidence: float) -> Judgement:
        settings = self._settings
        if found.kind != found.reference_kind:
            said = f"holds {found.kind} ({found.values} different), and the reference {found.reference_kind}"
            return Judgement(Verdict.FAILED, (f"{said} ({found.reference_values})",))
        if found.is_drifted(settings.psi_at_most, settings.level):
            said = f"PSI {found.psi:.3g}, without drift below {found.threshold:.3g} (adjusted p {found.adjusted_p:.2g})"
            return Judgement(Verdict.FAILED, (said,))
        if found.unseen:
            share = wilson(found.unseen, found.rows, level=2 * confidence - 1)
            return judge_bound(
                "share of values that the reference lacks",
                share,
                at_most=settings.unseen_at_most,
                rows=found.rows,
                plan=more_for_share,
            )
        return Judgement(Verdict.SUCCESSFUL, ())


def _profiled(subject: Subject) -> Iterator[tuple[str, FeatureProfile, int]]:
    """Each feature that the profile of the version knows, with how many rows it rests on."""
    profile = subject.manifest.profile
    for known in profile.inputs if profile is not None else ():
        columns = subject.asked.mapping.columns.get(known.input, ())
        if len(columns) == len(known.features):
            for name, each in zip(columns, known.features, strict=True):
                yield name, each, known.rows


def _shift(present: Array, profile: FeatureProfile) -> float | None:
    if not len(present) or profile.std <= 0:
        return None
    return abs(float(present.mean()) - profile.mean) / profile.std


def _shift_interval(present: Array, profile: FeatureProfile, count: int, level: float) -> Interval | None:
    """By how many standard deviations a mean moved, normal, with the noise of both sides."""
    moved = _shift(present, profile)
    if moved is None or len(present) < 2:
        return None
    noise = math.sqrt(float(present.var(ddof=1)) / len(present) / profile.std**2 + 1 / max(count, 1))
    half = quantile_z(level) * noise
    return Interval(moved, max(0.0, moved - half), moved + half, level)


def broken_rules(schema: Path, rows: Rows) -> tuple[Broken, ...]:
    """The rules of a pandera schema that rows break; UNSUPPORTED without pandera, INVALID_SETTING for no schema."""
    if not schema.is_file():
        raise SalverError("INVALID_SETTING", f"there is no schema {schema.name!r}", "name a file beside the suite")
    times = {
        name: column.astype("datetime64[ns]").astype(np.int64)
        for name, column in rows.columns.items()
        if column.dtype.kind == "M"
    }
    columns = {name: times.get(name, column).astype(object).tolist() for name, column in rows.columns.items()}
    dtypes = {name: "datetime64[ns]" if name in times else str(column.dtype) for name, column in rows.columns.items()}
    found = ask_child(
        "salver.evaluation.data.schema_process",
        SchemaOrder(str(schema.absolute()), columns, dtypes),
        tuple[Broken, ...],
        limit_s=_SCHEMA_S,
        answer_bytes=_MOST_BROKEN_BYTES,
        shown=True,
    )
    if isinstance(found, Ended):
        raise SalverError("INVALID_SETTING", f"schema {schema.name!r} {found.why}", "correct it")
    return found


def _schema_judgement(broken: tuple[Broken, ...], name: str) -> Judgement:
    if not broken:
        return Judgement(Verdict.SUCCESSFUL, (f"the schema {name} is kept",))
    reasons = [
        f"{each.column}: {each.rule} is broken in {each.rows} rows, such as {each.example}" for each in broken[:_NAMED]
    ]
    return Judgement(Verdict.FAILED, tuple(reasons))


def _drift_table(drifts: list[ColumnDrift], settings: DataSettings) -> ResultTable:
    columns = (
        "feature",
        "kind",
        "PSI",
        "without drift",
        "adjusted p",
        "different values",
        "in the reference",
        "drifted",
    )
    rows = tuple(
        (
            each.column,
            each.kind,
            each.psi,
            each.threshold,
            each.adjusted_p,
            each.values,
            each.reference_values,
            "yes" if each.is_drifted(settings.psi_at_most, settings.level) else "no",
        )
        for each in sorted(drifts, key=lambda each: -each.psi)
    )
    return ResultTable("Against the reference rows", columns, rows)


def _plot(drifts: list[ColumnDrift]) -> Plot:
    shown = sorted(drifts, key=lambda each: each.psi)[-_PLOTTED:]
    series = Series(
        "PSI",
        Mark.BARS,
        tuple(each.psi for each in shown),
        tuple(float(index) for index in range(len(shown))),
        names=tuple(each.column for each in shown),
    )
    return Plot("Distance from the reference rows", "population stability index", "", (series,))
