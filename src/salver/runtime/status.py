"""What an endpoint does, as each server process reports it, and in all of them together."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import msgspec

__all__ = ["EndpointStatus", "LoadState", "ProcessState", "ProcessStatus", "merge_endpoints"]


class LoadState(enum.StrEnum):
    """Where an endpoint stands on the way to its desired state."""

    LOADING = "loading"
    READY = "ready"
    COLD = "cold"
    """It loads when it is asked."""
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
    """Mean rows of each measured batch size -> seconds; for a version that says what requests cost, that instead."""
    batch_limit: int = 0
    """What a batch may hold at present, in the same unit; steered where there is an objective."""
    costed: bool = False
    """Whether that unit is the version's own cost, not rows."""
    line: tuple[float, float] | None = None
    """Where the curve is a line a + b n: a and b in seconds."""
    size_bytes: int = 0
    """Of memory that the version takes, as it was measured when it was loaded."""
    cause: str | None = None
    """Behind `problem`, what the exception said that the version's own code or its library raised. This leaves by
    the control listener only."""


class ProcessState(enum.StrEnum):
    """Where a server process stands."""

    ABSENT = "absent"
    """It does not answer: it is being replaced, or stands still."""
    SERVING = "serving"
    LEAVING = "leaving"


class ProcessStatus(msgspec.Struct, frozen=True):
    """One server process and what each endpoint does in it."""

    slot: int
    pid: int
    """0 for one that is absent."""
    state: ProcessState
    connections: int = 0
    endpoints: tuple[EndpointStatus, ...] = ()


def merge_endpoints(processes: Sequence[ProcessStatus]) -> tuple[EndpointStatus, ...]:
    """What each endpoint does in all server processes together; nothing where none answers.

    It has reached what every process has reached, and failed where one has. A process that is
    absent, or knows nothing of an endpoint that another knows, has yet to come so far.
    """
    rows: dict[str, list[EndpointStatus]] = {}
    for process in processes:
        for row in process.endpoints:
            rows.setdefault(row.endpoint, []).append(row)
    return tuple(_merged(rows[name], len(processes)) for name in sorted(rows))


def _merged(rows: Sequence[EndpointStatus], processes: int) -> EndpointStatus:
    newest = max(rows, key=lambda row: row.generation)
    if processes == 1:
        return newest
    failed = next((row for row in rows if row.state is LoadState.FAILED), None)
    complete = len(rows) == processes and len({row.wanted for row in rows}) == 1
    states = {row.state for row in rows}
    ready = complete and LoadState.LOADING not in states
    # Cold in one process and loaded in another is at its goal in both.
    reached = LoadState.READY if LoadState.READY in states else newest.state
    return msgspec.structs.replace(
        newest,
        state=LoadState.FAILED if failed else reached if ready else LoadState.LOADING,
        available=all(row.available for row in rows),
        code=failed.code if failed else None,
        problem=failed.problem if failed else None,
        cause=failed.cause if failed else None,
        placement="+".join(sorted({each for row in rows for each in (row.placement or "").split("+") if each})) or None,
        replicas=sum(row.replicas for row in rows),
        waiting=sum(row.waiting for row in rows),
        running=sum(row.running for row in rows),
        workers=tuple(pid for row in rows for pid in row.workers),
        restarts=sum(row.restarts for row in rows),
        generation=min(row.generation for row in rows) if complete else 0,
        size_bytes=sum(row.size_bytes for row in rows),
    )
