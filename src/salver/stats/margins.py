"""Whether a difference matters: practical significance beside the statistical one.

With enough rows any difference is significant, with few none is; a margin says which differences matter, and
an interval is compared with it. Four outcomes, because "not shown to differ" is not "shown not to differ".
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

import msgspec

from salver.protocol.verdict import Judgement, Verdict
from salver.stats.checked import refusal
from salver.stats.intervals import Interval
from salver.stats.power import in_words, more_for_bound

__all__ = [
    "Comparison",
    "Relation",
    "compare",
    "judge_bound",
]


class Relation(enum.StrEnum):
    """How the first stands to the second."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    INCONCLUSIVE = "inconclusive"


class Comparison(msgspec.Struct, frozen=True):
    """A difference held against a margin; `gain` is turned so that above 0 the first is better.

    `relation` is better or worse when the whole interval lies beyond the margin, equivalent when all of it
    lies within, inconclusive otherwise. `not_worse` is the verdict on non-inferiority: successful when the interval
    stays above -margin, failed when all of it is below.
    """

    gain: Interval
    margin: float
    relation: Relation
    not_worse: Verdict


def compare(difference: Interval, margin: float, *, higher_is_better: bool = True) -> Comparison:
    """Hold the interval of first - second against `margin`, the smallest difference that matters.

    The rule is that of Kruschke's region of practical equivalence (2018, AMPPS 1, 270) on any interval; an
    interval of level 0.90 makes "equivalent" the two one-sided tests at 0.05 (Schuirmann 1987).

    >>> compare(Interval(0.001, -0.002, 0.004), 0.005).relation
    <Relation.EQUIVALENT: 'equivalent'>
    """
    _check_margin(margin)
    gain = difference
    if not higher_is_better:
        gain = Interval(-difference.estimate, -difference.high, -difference.low, difference.level)
    return Comparison(gain, margin, _relation(gain, margin), _not_worse(gain, margin))


def _relation(gain: Interval, margin: float) -> Relation:
    if gain.low > margin:
        return Relation.BETTER
    if gain.high < -margin:
        return Relation.WORSE
    if gain.low >= -margin and gain.high <= margin:
        return Relation.EQUIVALENT
    return Relation.INCONCLUSIVE


def _not_worse(gain: Interval, margin: float) -> Verdict:
    if gain.low >= -margin:
        return Verdict.SUCCESSFUL
    return Verdict.FAILED if gain.high < -margin else Verdict.INCONCLUSIVE


def judge_bound(
    name: str,
    found: Interval,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    rows: int | None = None,
    unit: str = "rows",
    plan: Callable[[Interval, float, int], int | None] = more_for_bound,
) -> Judgement:
    """Hold one number against a bound: exactly one of `at_least` and `at_most`.

    Successful when the whole interval keeps the bound, failed when all of it breaks it, inconclusive when the
    bound lies within: few rows neither pass by luck nor fail by it. Given how many `rows` (or what `unit` says) the
    interval is of, the reason says how many more would decide, by the `plan` that fits the interval.

    >>> from salver.stats.intervals import wilson
    >>> from salver.stats.power import more_for_share
    >>> judge_bound("accuracy", wilson(20, 20), at_least=0.9, rows=20, plan=more_for_share).reasons
    ('accuracy 1 [0.8389, 1], wanted at least 0.9; about 15 more rows would decide',)
    """
    if (at_least is None) == (at_most is None):
        raise refusal(f"{name} has {'no bound' if at_least is None else 'two bounds'}", "give at_least or at_most")
    if at_least is not None:
        bound = at_least
        kept, broken, wanted = found.low >= at_least, found.high < at_least, f"at least {at_least:g}"
    else:
        assert at_most is not None
        bound = at_most
        kept, broken, wanted = found.high <= at_most, found.low > at_most, f"at most {at_most:g}"
    verdict = Verdict.SUCCESSFUL if kept else Verdict.FAILED if broken else Verdict.INCONCLUSIVE
    said = f"{name} {found.estimate:.4g} [{found.low:.4g}, {found.high:.4g}], wanted {wanted}"
    if verdict is Verdict.INCONCLUSIVE and rows is not None:
        said += in_words(plan(found, bound, rows), unit)
    return Judgement(verdict, (said,))


def _check_margin(margin: float) -> None:
    if not (math.isfinite(margin) and margin >= 0):
        raise refusal(f"the margin is {margin:g}", "give 0 or the smallest difference that matters")
