"""How often what is outstanding is looked at, and when what has not come back counts as hung."""

from __future__ import annotations

from typing import Final

from salver.protocol.tables import DeploymentSpec

__all__ = ["LEAST_HANG_S", "STALL_S", "WATCH_S", "hang_limit_s"]

WATCH_S: Final = 0.02
"""How often deadlines and hangs are looked at while work is outstanding: a caller hears of a
passed deadline within 50 ms."""
STALL_S: Final = 1.0
"""Longer between two looks, and it was the event loop that stood still, not a model that hangs."""
LEAST_HANG_S: Final = 5.0
"""A model may take so long, whatever was measured."""


def hang_limit_s(spec: DeploymentSpec, longest_s: float, least_s: float = LEAST_HANG_S) -> float:
    """Seconds without a word after which a model hangs: as deployed, else by the longest it was silent so far.

    While nothing is known, `longest_s` is 0: a first run pays for what later ones find ready.
    """
    if spec.hang_s:
        return spec.hang_s
    return max(least_s, 3 * longest_s if longest_s else spec.deadline_s)
