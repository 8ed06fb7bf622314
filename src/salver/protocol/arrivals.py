"""When the requests of a load come, where nobody waits for the answers before."""

from __future__ import annotations

import enum

__all__ = ["Arrivals"]


class Arrivals(enum.StrEnum):
    """How the times of an open loop lie."""

    POISSON = "poisson"
    CONSTANT = "constant"
