"""Small steps that hurt most, found by asking: no gradients, so any version can be attacked as it is served.

Each row is moved within a box around it. First the margin's slope is estimated along each column (finite
differences) or, where there are more columns than questions, along random directions (Spall 1992, IEEE Trans.
Automatic Control 37, 332), and the row goes to the corner of the box against it, which is what the fast gradient
sign method does with real gradients (Goodfellow, Shlens and Szegedy 2015, ICLR). The questions that are left go
into random search over corners (as Andriushchenko, Croce, Flammarion and Hein 2020, ECCV, do over squares). What
is found is a bound from one side: a better adversary may find more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from salver.evaluation.subject.rows import Array

__all__ = ["Margins", "attack"]

Margins = Callable[[Array, Array], Array]
"""From row numbers and their moved columns, rows by columns, to how well each row still stands; inf for no answer."""

_SLOPE_SHARE: Final = 0.6
"""Of the questions that go into the slope at most."""
_FIRST_FLIPS: Final = 0.5
_LAST_FLIPS: Final = 0.05
"""Share of the columns whose side random search changes, at its beginning and its end."""


def attack(
    margins: Margins, origin: Array, reach: Array, limits: tuple[Array, Array], queries: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """The worst place found for each row within `reach` of each column, and its margin there.

    At most `queries` questions for each row. Rows whose margin is below 0 are left alone from then on. Places
    are within `limits`, the lowest and highest value of each column.
    """
    count, width = origin.shape
    rows = np.arange(count)
    best, worst = origin.copy(), np.full(count, np.inf)

    def tried(some: Array, sides: Array) -> Array:
        moved = np.clip(origin[some] + sides * reach, *limits)
        found = margins(some, moved)
        better = found < worst[some]
        best[some[better]], worst[some[better]] = moved[better], found[better]
        return found

    slope, asked = _slope(tried, rows, width, int(queries * _SLOPE_SHARE), rng)
    sides = np.where(slope == 0, rng.choice((-1.0, 1.0), slope.shape), -np.sign(slope))
    standing = np.full(count, np.inf)
    for turn in range(asked, queries):
        alive = rows[worst >= 0]
        if not len(alive):
            break
        proposed = sides[alive]
        if turn > asked:
            share = _FIRST_FLIPS + (_LAST_FLIPS - _FIRST_FLIPS) * (turn - asked) / max(queries - asked, 1)
            proposed = np.where(rng.random(proposed.shape) < share, rng.choice((-1.0, 1.0), proposed.shape), proposed)
        found = tried(alive, proposed)
        kept = found < standing[alive]
        sides[alive[kept]], standing[alive[kept]] = proposed[kept], found[kept]
    return best, worst


def _slope(
    tried: Callable[[Array, Array], Array], rows: Array, width: int, queries: int, rng: np.random.Generator
) -> tuple[Array, int]:
    """How the margin rises along each column, and how many questions of each row went into that."""
    pairs = queries // 2
    directions = np.eye(width) if pairs >= width else rng.choice((-1.0, 1.0), (pairs, width))
    slope = np.zeros((len(rows), width))
    for direction in directions:
        ahead = tried(rows, np.tile(direction, (len(rows), 1)))
        behind = tried(rows, np.tile(-direction, (len(rows), 1)))
        with np.errstate(invalid="ignore"):
            rise = ahead - behind
        slope += np.where(np.isfinite(rise), rise, 0.0)[:, np.newaxis] * direction
    return slope, 2 * len(directions)
