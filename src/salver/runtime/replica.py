"""What a pool asks of each of its replicas."""

from __future__ import annotations

from typing import Protocol

from salver.protocol.request import Chunks, Request
from salver.protocol.tables import Placement
from salver.runtime.batch import Batch

__all__ = ["OpenStreams", "Replica"]


class Replica(Protocol):
    """One loaded version, able to run one batch at a time."""

    @property
    def placement(self) -> Placement:
        """Where it computes now: inline, thread or process, never auto."""

    @property
    def pid(self) -> int | None:
        """Its worker process, while it has one that serves."""

    @property
    def restarts(self) -> int:
        """How often its worker was started again."""

    def start(self, batch: Batch) -> None:
        """Begin `batch`; later call exactly one of the pool's `finished`, `bad_output`, `raised`, `lost`."""

    def give_up(self) -> None:
        """Abandon the running batch, which hangs: whatever it still does must have no effect.

        The replica calls the pool's `ready` when it can run again, or never.
        """

    async def stop(self) -> None:
        """Free everything, in bounded time; a batch that still runs must have no effect any more."""


class OpenStreams(Protocol):
    """The streams open on one replica: as many as its `len`."""

    @property
    def accepts(self) -> bool:
        """Whether one can be opened now."""

    def open(self, request: Request) -> Chunks:
        """Open one. REQUIRES `accepts`."""

    def __len__(self) -> int: ...
