"""The search for the worst place in a box: within it, deterministic, and as good as the real gradient's corner."""

from __future__ import annotations

import numpy as np
import pytest

from salver.evaluation.behaviour.adversary import attack


def linear(weights: np.ndarray, offset: float):
    asked = []

    def margins(rows: np.ndarray, places: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return places @ weights + offset

    return margins, asked


@pytest.mark.parametrize("width", [3, 200])
def test_of_a_plane_the_corner_is_found(width: int) -> None:
    rng = np.random.default_rng(0)
    weights, origin = rng.normal(size=width), rng.normal(size=(5, width))
    margins, asked = linear(weights, 1e6)  # never below 0, so that every question is spent
    limits = np.full(width, -9.0), np.full(width, 9.0)
    reach = np.full(width, 0.5)
    best, worst = attack(margins, origin, reach, limits, 100, np.random.default_rng(1))
    gained = (origin @ weights + 1e6 - worst) / (0.5 * np.abs(weights).sum())
    assert (gained > (0.99 if width == 3 else 0.25)).all()
    assert (np.abs(best - origin) <= 0.5 + 1e-12).all()
    assert len(asked) <= 100
    again, _ = attack(margins, origin, reach, limits, 100, np.random.default_rng(1))
    np.testing.assert_array_equal(best, again)


def test_rows_that_fell_are_left_alone_and_limits_are_kept() -> None:
    margins, asked = linear(np.array([1.0, 0.0]), 0.0)
    origin = np.array([[0.1, 0.0], [5.0, 0.0]])
    limits = np.array([0.0, -1.0]), np.array([6.0, 1.0])
    best, worst = attack(margins, origin, np.array([0.5, 0.5]), limits, 40, np.random.default_rng(0))
    assert worst[0] == 0.0  # the limit stands on the border
    assert worst[1] == pytest.approx(4.5)
    assert (best >= limits[0]).all()
    margins, asked = linear(np.array([1.0, 0.0]), -0.2)
    attack(margins, origin, np.array([0.5, 0.5]), limits, 40, np.random.default_rng(0))
    assert asked[-1] == 1
