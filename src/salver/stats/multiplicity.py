"""Many tests at once: p-values adjusted so that looking at more things does not find more by luck."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from salver.stats.checked import probabilities

__all__ = ["holm"]


def holm(p_values: ArrayLike) -> tuple[float, ...]:
    """The p-values, in their order, to be compared with the level itself: step down from the smallest.

    Holm (1979, Scandinavian Journal of Statistics 6, 65) holds the chance of any false finding, however the tests
    depend on each other. NaN is refused: a test without a result is no test with p = 1.

    >>> holm([0.01, 0.02, 0.5])
    (0.03, 0.04, 0.5)
    """
    p = probabilities(p_values, "p_values")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)), 1.0)
    return tuple(adjusted.tolist())
