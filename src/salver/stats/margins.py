"""Whether a difference matters: practical significance beside the statistical one.

With enough rows any difference is significant, with few none is; a margin says which differences matter, and
an interval is compared with it. Four outcomes, because "not shown to differ" is not "shown not to differ".
"""

from __future__ import annotations

import enum
import math
from statistics import NormalDist

import msgspec

from salver.protocol.verdict import Judgement, Verdict
from salver.stats.checked import refusal
from salver.stats.intervals import Interval
from salver.stats.libraries import scipy_special

__all__ = [
    "Comparison",
    "Equivalence",
    "Relation",
    "compare",
    "equivalence_test",
    "judge_bound",
    "non_inferiority_p",
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
    lies within, inconclusive otherwise. `significant` says that it excludes 0, however small the
    difference. `not_worse` is the verdict on non-inferiority: successful when the interval stays above -margin,
    failed when all of it is below.
    """

    gain: Interval
    margin: float
    relation: Relation
    significant: bool
    not_worse: Verdict

    def sentence(self) -> str:
        """The comparison in words, for reasons and reports.

        >>> compare(Interval(-0.02, -0.04, -0.001), 0.005).sentence()
        'inconclusive: -0.02 [-0.04, -0.001] against a margin of 0.005; it differs, maybe by too little to matter'
        """
        said = f"{self.relation}: {self.gain.estimate:.4g} [{self.gain.low:.4g}, {self.gain.high:.4g}]"
        said += f" against a margin of {self.margin:g}"
        if self.significant and self.relation is Relation.EQUIVALENT:
            said += "; it differs, by too little to matter"
        elif self.significant and self.relation is Relation.INCONCLUSIVE:
            said += "; it differs, maybe by too little to matter"
        return said


class Equivalence(msgspec.Struct, frozen=True):
    """Two one-sided tests: `p_value` is the larger of both, small where the difference is within the margin."""

    p_lower: float
    p_upper: float
    p_value: float


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
    return Comparison(gain, margin, _relation(gain, margin), 0 not in gain, _not_worse(gain, margin))


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
    name: str, found: Interval, *, at_least: float | None = None, at_most: float | None = None
) -> Judgement:
    """Hold one number against a bound: exactly one of `at_least` and `at_most`.

    Successful when the whole interval keeps the bound, failed when all of it breaks it, inconclusive when the
    bound lies within: few rows neither pass by luck nor fail by it.

    >>> judge_bound("accuracy", Interval(1.0, 0.84, 1.0), at_least=0.9)
    Judgement(verdict=<Verdict.INCONCLUSIVE: 'inconclusive'>, reasons=('accuracy 1 [0.84, 1], wanted at least 0.9',))
    """
    if (at_least is None) == (at_most is None):
        raise refusal(f"{name} has {'no bound' if at_least is None else 'two bounds'}", "give at_least or at_most")
    if at_least is not None:
        kept, broken, wanted = found.low >= at_least, found.high < at_least, f"at least {at_least:g}"
    else:
        assert at_most is not None
        kept, broken, wanted = found.high <= at_most, found.low > at_most, f"at most {at_most:g}"
    verdict = Verdict.SUCCESSFUL if kept else Verdict.FAILED if broken else Verdict.INCONCLUSIVE
    said = f"{name} {found.estimate:.4g} [{found.low:.4g}, {found.high:.4g}], wanted {wanted}"
    return Judgement(verdict, (said,))


def equivalence_test(
    difference: float, standard_error: float, margin: float, *, degrees_of_freedom: float | None = None
) -> Equivalence:
    """Schuirmann's two one-sided tests (1987, J. Pharmacokinetics and Biopharmaceutics 15, 657).

    By the normal distribution, or Student's with `degrees_of_freedom`.
    """
    _check_margin(margin)
    lower = _upper_tail(difference + margin, standard_error, degrees_of_freedom)
    upper = _upper_tail(margin - difference, standard_error, degrees_of_freedom)
    return Equivalence(lower, upper, max(lower, upper))


def non_inferiority_p(
    gain: float, standard_error: float, margin: float, *, degrees_of_freedom: float | None = None
) -> float:
    """The one-sided p-value of "worse by `margin` or more": small where the first is not worse by as much."""
    _check_margin(margin)
    return _upper_tail(gain + margin, standard_error, degrees_of_freedom)


def _check_margin(margin: float) -> None:
    if not (math.isfinite(margin) and margin >= 0):
        raise refusal(f"the margin is {margin:g}", "give 0 or the smallest difference that matters")


def _upper_tail(distance: float, standard_error: float, degrees_of_freedom: float | None) -> float:
    if not (math.isfinite(distance) and math.isfinite(standard_error) and standard_error > 0):
        raise refusal(f"the standard error is {standard_error:g}", "give rows that differ, so that there is one")
    ratio = distance / standard_error
    if degrees_of_freedom is None:
        return NormalDist().cdf(-ratio)
    return float(scipy_special().stdtr(degrees_of_freedom, -ratio))
