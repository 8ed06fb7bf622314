"""Bounds of settings, said in one way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

__all__ = ["bounds", "each_bounds", "given_bounds"]


def bounds(name: str, value: float, least: float, most: float) -> Iterable[str]:
    """What is wrong with a value that is not between two others; nothing, if it is.

    >>> list(bounds("split.test_ratio", 1.5, 0, 1)), list(bounds("split.test_ratio", 0.5, 0, 1))
    (['split.test_ratio is 1.5; it may be 0 to 1'], [])
    """
    if not least <= value <= most:
        wanted = f"{least:g} or more" if math.isinf(most) else f"{least:g} to {most:g}"
        yield f"{name} is {value:g}; it may be {wanted}"


def given_bounds(name: str, value: float | None, least: float, most: float) -> Iterable[str]:
    """`bounds` of a value that may be absent."""
    if value is not None:
        yield from bounds(name, value, least, most)


def each_bounds(name: str, values: Sequence[float], least: float, most: float) -> Iterable[str]:
    """`bounds` of every value of a list."""
    for value in values:
        yield from bounds(name, value, least, most)
