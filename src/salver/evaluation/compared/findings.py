"""What comparing two versions finds: tests of pairs, and what explains them."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

from salver.evaluation.reports.records import CheckRecord
from salver.evaluation.reports.results import Role
from salver.protocol.verdict import Verdict
from salver.stats.intervals import Interval
from salver.stats.margins import Relation, compare
from salver.stats.multiplicity import holm
from salver.stats.power import in_words, more_for_relation

__all__ = ["ComparisonSettings", "Findings", "PairResult", "Part", "corrected"]


class Part(enum.StrEnum):
    """What a test is about."""

    METRIC = "metric"
    SLICE = "slice"
    CALIBRATION = "calibration"
    LATENCY = "latency"


class ComparisonSettings(msgspec.Struct, frozen=True):
    """What a comparison takes for a difference that matters, and how long it measures."""

    margin: float = 0.01
    """Of metrics that name none: so much of a score from 0 to 1, and such a share of the second version's error."""
    latency_margin_ratio: float = 0.1
    """Of the second version's latency."""
    requests: int = 200
    """Of which the latency of each version is measured."""
    budget_s: float = 10.0
    """After which no further request is sent."""
    permutations: int = 2000
    """Of each test by swapping. Its p is above 1 / 2000, which Holm lets 100 tests at the level 0.05 have."""


class PairResult(msgspec.Struct, frozen=True):
    """One test of the first version against the second on the same rows."""

    part: Part
    name: str
    role: Role
    first: float
    second: float
    gain: Interval
    """Turned so that above 0 the first is better; its two ends are one-sided bounds."""
    margin: float
    """The smallest gain or loss that matters, in the unit of the gain."""
    method: str
    p_value: float
    """Two-sided, of no difference at all."""
    rows: int
    relation: Relation = Relation.INCONCLUSIVE
    not_worse: Verdict = Verdict.INCONCLUSIVE
    """Whether the first is shown not to be worse by the margin, also where nothing else is shown."""
    adjusted_p: float = 1.0
    """By Holm, over everything that was tested."""
    more_rows: int | None = None
    """Of what is inconclusive: how many further rows (of latency, requests) would decide, see `salver.stats.power`."""

    def sentence(self) -> str:
        """The test in words, for reasons and reports."""
        gain = self.gain
        about = f"{self.part} {self.name}" if self.part is not Part.METRIC else self.name
        said = f"{about}: {self.standing}, {self.first:.4g} against {self.second:.4g}, gain {gain.estimate:+.4g} "
        said += f"[{gain.low:.4g}, {gain.high:.4g}], margin {self.margin:.4g} ({self.method}, "
        return said + f"adjusted p {self.adjusted_p:.2g})" + in_words(self.more_rows)

    @property
    def standing(self) -> str:
        """How the first stands to the second, in words."""
        undecided = self.relation is Relation.INCONCLUSIVE and self.not_worse is Verdict.SUCCESSFUL
        return "inconclusive, not worse" if undecided else self.relation


class Findings(msgspec.Struct, frozen=True):
    """What one part of a comparison found."""

    tests: tuple[PairResult, ...] = ()
    checks: tuple[CheckRecord, ...] = ()


def corrected(tests: Sequence[PairResult], level: float) -> tuple[PairResult, ...]:
    """The tests with p-values adjusted for all of them (Holm), and what each then says.

    Better and worse need both: an interval beyond the margin, and an adjusted p of `level` at most. More rows are
    planned for the least level that Holm may ask, `level` over the number of tests.
    """
    if not tests:
        return ()
    adjusted = holm([each.p_value for each in tests])
    return tuple(_judged(each, p, level, len(tests)) for each, p in zip(tests, adjusted, strict=True))


def _judged(test: PairResult, adjusted_p: float, level: float, tests: int) -> PairResult:
    found, more = compare(test.gain, test.margin), None
    differs = found.relation in (Relation.BETTER, Relation.WORSE)
    relation = Relation.INCONCLUSIVE if differs and adjusted_p > level else found.relation
    if relation is Relation.INCONCLUSIVE:
        more = more_for_relation(test.gain, test.margin, test.rows, p_value=test.p_value, level=level / tests)
    return msgspec.structs.replace(
        test, relation=relation, not_worse=found.not_worse, adjusted_p=adjusted_p, more_rows=more
    )
