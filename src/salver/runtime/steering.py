"""How many rows may run together under a latency objective.

In the worst ordinary case a request comes just after a batch of the largest size has begun: it
waits for that one and then runs in one of its own. So twice the time of the largest batch must
fit into the objective. The service curve says what that size is; where no line fits it, the
limit is found by feeling for it: additive increase while answers are in time, multiplicative
decrease when they are not (AIMD as in Clipper: Crankshaw et al., NSDI 2017, section 4.3.2).
"""

from __future__ import annotations

from typing import Final

from salver.runtime.curve import Line, ServiceCurve

__all__ = ["SteeredLimit", "largest_within"]

_MARGIN: Final = 0.1
"""Of the objective: for what a request meets outside the batch, and for batches slower than the average."""
_FAIR_SHARE: Final = 0.5
_LESS: Final = 0.9
_LEAST_TRUST: Final = 0.3
_TRUST_GAIN: Final = 0.002
_TRUST_LOSS: Final = 0.9
"""So that in the long run about one batch in fifty has a late answer."""


def largest_within(line: Line, slo_s: float, most: int) -> int:
    """The largest batch of which two fit into `slo_s`; at least 1, at most `most`.

    Where such batches would be so small that their fixed part takes more than half of what the model could
    do, half of what a single batch may hold: requests that come at a bad moment are then refused, and more of the
    others are answered.

    >>> largest_within(Line(a_s=0.010, b_s=0.002), slo_s=0.100, most=256)
    17
    >>> largest_within(Line(a_s=0.050, b_s=0.001), slo_s=0.110, most=256)
    24
    >>> largest_within(Line(a_s=0.120, b_s=0.002), slo_s=0.100, most=256)
    1
    """
    usable_s = slo_s * (1 - _MARGIN)
    pair, single = _fitting(line, usable_s / 2, most), _fitting(line, usable_s, most) // 2
    if single <= pair or pair / line.seconds(pair) >= _FAIR_SHARE * single / line.seconds(single):
        return pair
    return single


def _fitting(line: Line, seconds: float, most: int) -> int:
    left_s = seconds - line.a_s
    if left_s <= 0:
        return 1
    return most if line.b_s * most <= left_s else max(1, int(left_s / line.b_s))


class SteeredLimit:
    """The size a batch may have at present, for one version. `most` is what its deployment allows at all."""

    __slots__ = ("_curve", "_felt", "_most", "_slo_s", "_trust")

    def __init__(self, curve: ServiceCurve, slo_s: float, most: int) -> None:
        self._curve = curve
        self._slo_s = slo_s
        self._most = most
        self._felt = 1.0
        self._trust = 1.0

    @property
    def budget_s(self) -> float:
        """How long an answer may be expected to take: the objective, less what expectations were lately wrong by.

        Found by AIMD as well: a curve knows nothing of a busy machine, or of batches that came out small.
        """
        return self._slo_s * self._trust

    def size(self) -> int:
        """What a batch may hold now; all the deployment allows where there is no objective."""
        if not self._slo_s:
            return self._most
        line = self._curve.line()
        return int(self._felt) if line is None else largest_within(line, self._slo_s, self._most)

    def answered(self, size: int, slowest_s: float, step: float = 1.0) -> None:
        """Learn from a batch of this size whose slowest request took `slowest_s` in all; `step` is one more request."""
        if not self._slo_s:
            return
        if slowest_s > self._slo_s:
            self._trust = max(_LEAST_TRUST, self._trust * _TRUST_LOSS)
            self._felt = max(1.0, min(self._felt, size) * _LESS)
            return
        self._trust = min(1.0, self._trust + _TRUST_GAIN)
        if size >= int(self._felt):
            # Only a batch that was as large as it might says that a larger one may be tried.
            self._felt = min(float(self._most), max(self._felt, size) + step)
