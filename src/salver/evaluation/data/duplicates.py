"""Whether rows that are evaluated, or nearly the same ones, were trained on: then the metrics measure memory.

The share is counted, not estimated: it is a fact about these files. Training rows may be given as digests alone, where
the rows themselves must not be handed on; then only equal rows are found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np

from salver.evaluation.behaviour.perturb_tables import spreads_of
from salver.evaluation.behaviour.perturbations import shown_cell
from salver.evaluation.data.simple_models import is_prose, sklearn_part
from salver.evaluation.reports.results import CheckResult, ResultTable, Role
from salver.evaluation.subject.predictions import class_name
from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.subject.subject import Subject
from salver.evaluation.subject.training_rows import known_rows, training_rows
from salver.evaluation.suites.sections import LeakageSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict

__all__ = ["DuplicateCheck", "row_digests"]

_DIGEST_SUFFIX: Final = ".txt"
_MOST_DIGEST_BYTES: Final = 2**30
_MOST_NEAR: Final = 20_000
"""Rows of either side between which near ones are looked for; of more a sample is taken."""
_EXAMPLES: Final = 10


class DuplicateCheck:
    """The share of evaluated rows that are among the training rows."""

    name = "duplicates"
    role = Role.SAFEGUARD

    def __init__(self, settings: LeakageSettings) -> None:
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Look for each evaluated row among the training rows, first as it is, then nearly so."""
        settings, features = self._settings, subject.features
        training, given = Rows({}), settings.training
        if given.endswith(_DIGEST_SUFFIX):
            known = _read_digests(Path(given))
        else:
            training = training_rows(subject, given)
            known = set(row_digests(training, features)) if len(training) else set()
        if not known:
            reason = "no training rows are known: split the data, or name them with [leakage] training"
            return CheckResult(Verdict.INCONCLUSIVE, (reason,))
        equal = np.array([digest in known for digest in row_digests(subject.rows, features)])
        near = equal.copy()
        if len(training):
            near |= self._near(subject, training, features)
        return self._judged(subject, equal, near, known_rows(subject, training) if len(training) else "")

    def _judged(self, subject: Subject, equal: Array, near: Array, doubt: str) -> CheckResult:
        settings = self._settings
        share = float(near.mean())
        numbers: dict[str, str | int | float | None] = {
            "rows": len(near),
            "equal": int(equal.sum()),
            "near": int((near & ~equal).sum()),
            "share": share,
            "at_most": settings.duplicates_at_most,
        }
        reason = (
            f"{int(equal.sum())} of {len(near)} rows are among the training rows, {int((near & ~equal).sum())} nearly"
        )
        verdict = Verdict.SUCCESSFUL if share <= settings.duplicates_at_most else Verdict.FAILED
        if verdict is Verdict.FAILED:
            reason += f"; {settings.duplicates_at_most:g} of them may be. Leave out one of each two before splitting"
        elif len(near) < settings.min_rows:
            verdict, reason = Verdict.INCONCLUSIVE, f"{reason}, and {settings.min_rows} rows are needed to tell"
        found = np.flatnonzero(near)[:_EXAMPLES]
        table = ResultTable(
            "Rows that are among the training rows, the first ones",
            ("row", "how", "begins with"),
            tuple((int(row), "equal" if equal[row] else "near", _beginning(subject, int(row))) for row in found),
        )
        reasons = (reason, doubt) if doubt and verdict is not Verdict.SUCCESSFUL else (reason,)
        return CheckResult(verdict, reasons, numbers, (table,) if len(found) else ())

    def _near(self, subject: Subject, training: Rows, features: tuple[str, ...]) -> Array:
        """Rows whose numbers are within `near`, whose categories are equal and whose prose is alike."""
        rng = subject.rng(self.name)
        here, there = _some(len(subject.rows), rng), _some(len(training), rng)
        rows, others = subject.rows.take(here), training.take(there)
        numeric = tuple(name for name in features if rows.is_numeric(name))
        prose = [name for name in features if is_prose(rows.column(name))]
        near = np.zeros(len(subject.rows), dtype=bool)
        if prose:
            near[here] = _alike(rows, others, prose, self._settings.alike)
        elif numeric:
            near[here] = _close(rows, others, features, numeric, self._settings.near)
        return near


def row_digests(rows: Rows, columns: Iterable[str]) -> list[str]:
    """SHA-256 of each row's cells in the order of the columns, numbers to twelve digits: what may be kept of a row.

    Written to a text file, one a line, they can be given as `[leakage] training` in place of the rows.
    """
    cells = [[_canonical(value) for value in rows.column(name)] for name in columns]
    return [hashlib.sha256("\x1f".join(row).encode()).hexdigest() for row in zip(*cells, strict=True)]


def _canonical(value: Any) -> str:
    if value is None or value != value:  # noqa: PLR0124 - NaN
        return ""
    return f"{value:.12g}" if isinstance(value, float | np.floating) else class_name(value)


def _read_digests(path: Path) -> set[str]:
    try:
        if path.stat().st_size > _MOST_DIGEST_BYTES:
            raise SalverError("INVALID_SETTING", f"{path.name!r} is larger than {_MOST_DIGEST_BYTES} bytes")
        found = {line.strip().lower() for line in path.read_text("ascii").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise SalverError("INVALID_SETTING", f"cannot read the digests {path.name!r}: {str(error)[:100]}") from None
    if wrong := next((line for line in found if len(line) != 64), None):
        raise SalverError("INVALID_SETTING", f"{path.name!r} holds {wrong[:80]!r}, no SHA-256", "one digest a line")
    return found


def _some(count: int, rng: np.random.Generator) -> Array:
    return np.arange(count) if count <= _MOST_NEAR else np.sort(rng.choice(count, _MOST_NEAR, replace=False))


def _close(rows: Rows, others: Rows, features: tuple[str, ...], numeric: tuple[str, ...], near: float) -> Array:
    """Which rows have another whose numbers are all within `near` deviations, categories being equal."""
    spreads = spreads_of(others, numeric)
    rest = tuple(name for name in features if name not in numeric)
    mine, theirs = (_scaled(each, numeric, [spreads[name].deviation for name in numeric]) for each in (rows, others))
    groups, other_groups = (np.array(row_digests(each, rest) or [""] * len(each)) for each in (rows, others))
    found = np.zeros(len(rows), dtype=bool)
    for group in np.unique(groups):
        here, there = groups == group, other_groups == group
        if there.any():
            search = sklearn_part("neighbors").NearestNeighbors(n_neighbors=1, metric="chebyshev").fit(theirs[there])
            found[here] = search.kneighbors(mine[here])[0][:, 0] <= near
    return found


def _scaled(rows: Rows, numeric: tuple[str, ...], deviations: list[float]) -> Array:
    """Numbers in deviations of their column, a missing one far from all others but missing ones."""
    columns = [rows.numbers(name) / (spread or 1.0) for name, spread in zip(numeric, deviations, strict=True)]
    return np.nan_to_num(np.column_stack(columns), nan=1e6, posinf=1e7, neginf=-1e7)


def _alike(rows: Rows, others: Rows, prose: list[str], least: float) -> Array:
    """Which rows have another that shares nearly all its character n-grams, whatever the case."""
    text = sklearn_part("feature_extraction.text")
    vectors = text.HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=2**18, alternate_sign=False)
    mine, theirs = (
        vectors.transform([" ".join(str(each.column(name)[row] or "") for name in prose) for row in range(len(each))])
        for each in (rows, others)
    )
    search = sklearn_part("neighbors").NearestNeighbors(n_neighbors=1, metric="cosine").fit(theirs)
    found: Array = search.kneighbors(mine)[0][:, 0] <= 1 - least
    return found


def _beginning(subject: Subject, row: int) -> str:
    shown = [f"{name} = {shown_cell(subject.rows.column(name)[row])}" for name in subject.features[:4]]
    return ", ".join(shown)
