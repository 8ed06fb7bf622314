"""Many tests at once: p-values adjusted so that looking at more things does not find more by luck.

Bonferroni, Sidak and Holm hold the chance of any false finding (family-wise); Benjamini-Hochberg and
Benjamini-Yekutieli hold the share of false ones among the findings. An adjusted p-value is compared with the
level itself. NaN is refused: a test without a result is no test with p = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from salver.stats.checked import Floats, fraction, probabilities, refusal

__all__ = ["METHODS", "Adjusted", "adjust", "sidak_level"]


class Adjusted(msgspec.Struct, frozen=True):
    """Adjusted p-values in the order given, and which are at most `level`."""

    method: str
    level: float
    p_values: tuple[float, ...]
    rejected: tuple[bool, ...]

    @property
    def rejections(self) -> int:
        """How many null hypotheses are rejected."""
        return sum(self.rejected)


def adjust(p_values: ArrayLike, method: str = "holm", *, level: float = 0.05) -> Adjusted:
    """Adjust `p_values` by one of `METHODS`.

    >>> adjust([0.01, 0.02, 0.5], "holm").p_values
    (0.03, 0.04, 0.5)
    """
    found = probabilities(p_values, "p_values")
    rule = METHODS.get(method)
    if rule is None:
        raise refusal(f"no method {method!r} of adjusting p-values", f"give one of {', '.join(METHODS)}")
    adjusted = np.minimum(rule(found), 1.0)
    rejected = adjusted <= fraction(level, "level")
    return Adjusted(method, level, tuple(adjusted.tolist()), tuple(rejected.tolist()))


def sidak_level(tests: int, *, level: float = 0.05) -> float:
    """The level of each of `tests` independent tests that gives `level` to all (Sidak 1967, JASA 62, 626).

    >>> round(sidak_level(10), 7)
    0.0051162
    """
    if tests < 1:
        raise refusal(f"there are {tests} tests", "give at least 1")
    return float(-np.expm1(np.log1p(-fraction(level, "level")) / tests))


def _bonferroni(p: Floats) -> Floats:
    return p * p.size


def _sidak(p: Floats) -> Floats:
    with np.errstate(divide="ignore"):  # log1p(-1) is minus infinity, and the result 1
        chance: Floats = -np.expm1(p.size * np.log1p(-p))
    return chance


def _holm(p: Floats) -> Floats:
    """Holm (1979, Scandinavian Journal of Statistics 6, 65): step down from the smallest."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    return _put_back(stepped, order)


def _benjamini_hochberg(p: Floats) -> Floats:
    """Benjamini and Hochberg (1995, JRSS B 57, 289): step up from the largest; for independent or alike tests."""
    order = np.argsort(p, kind="stable")
    scaled = p[order] * p.size / np.arange(1, p.size + 1)
    stepped = np.minimum.accumulate(scaled[::-1])[::-1]
    return _put_back(stepped, order)


def _benjamini_yekutieli(p: Floats) -> Floats:
    """Benjamini and Yekutieli (2001, Annals of Statistics 29, 1165): under any dependence."""
    return _benjamini_hochberg(p) * float(np.sum(1 / np.arange(1, p.size + 1)))


def _put_back(sorted_values: Floats, order: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Floats:
    result = np.empty_like(sorted_values)
    result[order] = sorted_values
    return result


METHODS: Final[dict[str, Callable[[Floats], Floats]]] = {
    "holm": _holm,
    "bonferroni": _bonferroni,
    "sidak": _sidak,
    "benjamini-hochberg": _benjamini_hochberg,
    "benjamini-yekutieli": _benjamini_yekutieli,
}
