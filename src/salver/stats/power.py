"""How many more rows would decide what those at hand leave open.

The estimate is taken for the truth, its error for normal and falling with the root of the number of rows, which are to
be more of the same. Each number is for a chance of 80 % to decide. None where no number of rows would: the
estimate lies on the very bound, or so near that more than 10^9 rows are needed.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

from salver.stats.intervals import Interval, quantile_z

__all__ = ["POWER", "in_words", "more_for_bound", "more_for_relation", "more_for_share"]

POWER: Final = 0.8
_MOST_ROWS: Final = 10**9
_NORMAL: Final = NormalDist()


def more_for_bound(found: Interval, bound: float, rows: int) -> int | None:
    """Rows beyond `rows` with which the whole interval lies on its estimate's side of `bound`.

    n (1 + z_beta / z_alpha)^2 (h / d)^2 - n, where d is the estimate's distance to the bound and h what the interval of
    n rows reaches towards it: (z_alpha + z_beta)^2 s^2 / d^2 of Chow, Shao and Wang (2008, Sample Size Calculations
    in Clinical Research, section 3.1.2) with s = h sqrt(n) / z_alpha.

    >>> more_for_bound(Interval(0.95, 0.91, 0.99), 0.9, 100)
    31
    """
    return _more(_to_clear(found, bound, POWER), rows)


def more_for_share(found: Interval, bound: float, rows: int) -> int | None:
    """The same of a proportion with Wilson's interval, whose error is that of the bound itself.

    ((z_alpha sqrt(b (1 - b)) + z_beta sqrt(p (1 - p))) / d)^2 - n (Fleiss, Levin and Paik 2003, Statistical Methods for
    Rates and Proportions, chapter 2, without a correction for continuity). Near 0 and 1 it takes far fewer rows than
    `more_for_bound`.

    >>> more_for_share(Interval(1.0, 0.839, 1.0), 0.9, 20)
    15
    """
    share, distance = found.estimate, abs(found.estimate - bound)
    if distance == 0:
        return None
    errors = math.sqrt(bound * (1 - bound)), math.sqrt(share * (1 - share))
    planned = (quantile_z(found.level) * errors[0] + _NORMAL.inv_cdf(POWER) * errors[1]) / distance
    return _more(planned * planned / rows, rows)


def more_for_relation(gain: Interval, margin: float, rows: int, *, p_value: float, level: float) -> int | None:
    """Rows beyond `rows` that make of an inconclusive gain what its estimate is: better, worse or equivalent.

    Better and worse take an interval beyond the margin, as `more_for_bound` has it, and a two-sided p of `level` at
    most: n ((z_level + z_beta) / z_p)^2. Equivalent takes both ends within, which each may miss with half the chance:
    (z_alpha + z_beta/2)^2 s^2 / d^2 (Chow, Shao and Wang, section 3.1.3), enough wherever within the margin the
    gain is, and exact in its middle.
    """
    if abs(gain.estimate) <= margin:
        power = (1 + POWER) / 2
        return _more(max(_to_clear(gain, margin, power), _to_clear(gain, -margin, power)), rows)
    border = math.copysign(margin, gain.estimate)
    times = 0.0 if border not in gain else _to_clear(gain, border, POWER)
    if p_value > level:
        times = max(times, _to_be_no_accident(p_value, level))
    return _more(times, rows)


def in_words(more: int | None, unit: str = "rows") -> str:
    """What to add to a reason: two digits, rounded up; nothing where there is no number.

    >>> in_words(1234), in_words(None)
    ('; about 1,300 more rows would decide', '')
    """
    if more is None:
        return ""
    scale = 10 ** max(0, len(str(more)) - 2)
    return f"; about {math.ceil(more / scale) * scale:,} more {unit} would decide"


def _to_clear(found: Interval, bound: float, power: float) -> float:
    """By how much the rows have to be multiplied for one end of the interval to clear a bound."""
    distance = abs(found.estimate - bound)
    if distance == 0:
        return math.inf
    reach = found.estimate - found.low if found.estimate > bound else found.high - found.estimate
    errors = (1 + _NORMAL.inv_cdf(power) / quantile_z(found.level)) * reach / distance
    return errors * errors


def _to_be_no_accident(p_value: float, level: float) -> float:
    found = _NORMAL.inv_cdf(1 - p_value / 2)
    errors = (quantile_z(1 - level) + _NORMAL.inv_cdf(POWER)) / found if found > 0 else math.inf
    return errors * errors


def _more(times: float, rows: int) -> int | None:
    more = rows * times - rows
    return math.ceil(more) if 0 < more <= _MOST_ROWS else None
