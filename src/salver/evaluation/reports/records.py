"""What an evaluation leaves behind: everything needed to know what was judged, by what, and why it went so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import msgspec
import numpy as np

from salver.evaluation.reports.results import CheckResult, Plot, ResultTable, Role
from salver.protocol.verdict import Judgement, Verdict

__all__ = ["CheckRecord", "EvaluationRecord", "JudgedRecord", "VersionRecord", "combined"]


class VersionRecord(msgspec.Struct, frozen=True):
    """Which version: its model and number, and the digest of its files."""

    model: str
    version: str
    digest: str

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"


class CheckRecord(msgspec.Struct, frozen=True):
    """What one check found."""

    name: str
    role: Role
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    numbers: dict[str, str | int | float | None] = {}
    tables: tuple[ResultTable, ...] = ()
    plots: tuple[Plot, ...] = ()

    @classmethod
    def of(cls, name: str, role: Role, result: CheckResult) -> CheckRecord:
        """The record of a result, its numbers plain ones: numpy's do not go into JSON."""
        numbers = {name: _plain(value) for name, value in result.numbers.items()}
        tables = tuple(
            ResultTable(each.title, each.columns, tuple(tuple(map(_plain, row)) for row in each.rows))
            for each in result.tables
        )
        return cls(name, role, result.verdict, result.reasons, numbers, tables, result.plots)


class JudgedRecord(msgspec.Struct, frozen=True):
    """A version judged on rows. As JSON it is evidence for a gate, and what the report is made of."""

    suite: str
    suite_digest: str
    data: str
    """The file's name, without its directory."""
    data_digest: str
    data_rows: int
    evaluated_rows: int
    split: str
    """The digest of the split."""
    model: str
    version: str
    digest: str
    against: VersionRecord | None
    verdict: Verdict
    reasons: tuple[str, ...]
    checks: tuple[CheckRecord, ...]
    environment: dict[str, str]
    """Of Python, the machine and the libraries that the numbers depend on."""
    at_s: float
    took_s: float
    salver: str
    """Its version."""

    @property
    def reference(self) -> str:
        """NAME@VERSION."""
        return f"{self.model}@{self.version}"

    def evidence(self) -> Self:
        """The same without pictures: what is kept in a registry."""
        return msgspec.structs.replace(
            self, checks=tuple(msgspec.structs.replace(each, plots=()) for each in self.checks)
        )


class EvaluationRecord(JudgedRecord, frozen=True):
    """One evaluation by a suite."""

    def check(self, name: str) -> CheckRecord:
        """The record of one check; raises KeyError."""
        return {each.name: each for each in self.checks}[name]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def combined(checks: Iterable[CheckRecord]) -> Judgement:
    """The verdict of all together, each reason behind the name of its check."""
    return Judgement.together(
        Judgement(each.verdict, tuple(f"{each.name}: {reason}" for reason in each.reasons)) for each in checks
    )
