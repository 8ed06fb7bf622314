"""What an endpoint does, as the server process reports it."""

from __future__ import annotations

import enum

import msgspec

__all__ = ["EndpointStatus", "LoadState"]


class LoadState(enum.StrEnum):
    """Where an endpoint stands on the way to its desired state."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


class EndpointStatus(msgspec.Struct, frozen=True):
    """What one endpoint does now; for people and for the controller."""

    endpoint: str
    state: LoadState
    required: bool
    wanted: str
    """NAME@VERSION that should serve."""
    serving: str | None
    """NAME@VERSION that does serve, if any."""
    available: bool
    """Whether a healthy replica is there to answer, which is what ready means in every protocol."""
    code: str | None
    problem: str | None
    placement: str | None
    replicas: int
    waiting: int
    running: int
    workers: tuple[int, ...]
    restarts: int
    generation: int
    """Of the desired state this endpoint has reached, or failed to reach."""
    curve: dict[str, float]
    """Largest rows of each measured batch size -> seconds."""
