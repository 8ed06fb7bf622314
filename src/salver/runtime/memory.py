"""How much memory loaded versions take, and which make room when that is more than they may.

What a version takes is measured when it is loaded: in a worker the private memory of the process,
in the server process by how much that grew while it was loaded and tried, and never less than its
artifact has bytes. These stand for it before its first load, and where it is the first of its format
in a process, which also pays for the format's library. The budget is for versions, not for the
processes that have them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec, Load, VersionManifest
from salver.telemetry.logs import log_event

__all__ = ["MemoryBudget", "Occupant", "choose_unloads", "private_bytes"]

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_LOOK_S: Final = 0.05
"""How often it is looked whether somebody has become idle."""
_REMEMBERED: Final = 4096


class Occupant(NamedTuple):
    """One endpoint whose version is loaded, or about to be."""

    endpoint: str
    size_bytes: int
    leaves: bool
    """Whether it may be unloaded now: it loads when it is asked again, and has no work."""
    used_s: float
    """When it was last asked."""


def choose_unloads(budget_bytes: int, occupants: Iterable[Occupant], needed_bytes: int) -> tuple[str, ...] | None:
    """Whom to unload for so many bytes to fit: the least recently used, and no more than it takes.

    None where even all that may leave would not make room: then none should.

    >>> idle = [Occupant("a", 40, True, 2.0), Occupant("b", 40, True, 1.0), Occupant("c", 20, False, 0.0)]
    >>> choose_unloads(100, idle, 30), choose_unloads(100, idle, 70), choose_unloads(100, idle, 90)
    (('b',), ('b', 'a'), None)
    """
    everybody = list(occupants)
    over = sum(each.size_bytes for each in everybody) + needed_bytes - budget_bytes
    chosen: list[str] = []
    for each in sorted((each for each in everybody if each.leaves), key=lambda each: each.used_s):
        if over <= 0:
            break
        chosen.append(each.endpoint)
        over -= each.size_bytes
    return tuple(chosen) if over <= 0 else None


class MemoryBudget:
    """What the versions of one server process may take: `budget_bytes`, or anything where that is 0.

    `occupants` tells who is loaded, `unload` frees the version of an endpoint and returns when that is done.
    Lives on the event loop.
    """

    def __init__(
        self,
        budget_bytes: int,
        clock: Clock,
        occupants: Callable[[], Sequence[Occupant]],
        unload: Callable[[str], Awaitable[None]],
    ) -> None:
        self._budget_bytes = budget_bytes
        self._clock = clock
        self._occupants = occupants
        self._unload = unload
        self._promised: dict[str, int] = {}
        """Bytes by endpoint for versions that load now."""
        self._measured: OrderedDict[tuple[str, str], int] = OrderedDict()

    def expect(self, spec: DeploymentSpec, manifest: VersionManifest) -> int:
        """The bytes that a version will take, as far as is known."""
        measured = self._measured.get((manifest.digest, spec.placement))
        return spec.replicas * (measured or manifest.size_bytes)

    def measured(self, spec: DeploymentSpec, manifest: VersionManifest, size_bytes: int) -> None:
        """Remember what a version takes with all its replicas."""
        key = (manifest.digest, spec.placement)
        self._measured[key] = size_bytes // spec.replicas
        self._measured.move_to_end(key)
        if len(self._measured) > _REMEMBERED:
            self._measured.popitem(last=False)

    async def make_room(self, spec: DeploymentSpec, manifest: VersionManifest) -> None:
        """Wait until a version has room, unloading others, and promise it that room until `settle`.

        Raises NOT_READY for one that loads when it is asked and will not fit beside those that never leave. A
        version that is to be loaded whatever happens gets what can be had.
        """
        if not self._budget_bytes:
            return
        needed = self._needed(spec, manifest)
        chosen: tuple[str, ...] | None
        if spec.load is Load.EAGER:
            chosen = self._choose_whatever_happens(self._others(None), needed, manifest)
        else:
            until_s = self._clock.monotonic_s() + spec.load_timeout_s
            while (chosen := choose_unloads(self._budget_bytes, self._others(spec), needed)) is None:
                self._require_hope(spec, manifest, needed)
                if self._clock.monotonic_s() >= until_s:
                    raise SalverError(
                        "NOT_READY",
                        f"for {spec.load_timeout_s:g} s no other version was without work",
                        "raise server.memory_bytes",
                    )
                await asyncio.sleep(_LOOK_S)
        self._promised[spec.endpoint] = needed  # before anything is awaited: nobody else may take it
        await self._unload_all(chosen)

    def _choose_whatever_happens(
        self, occupants: Sequence[Occupant], needed: int, manifest: VersionManifest
    ) -> tuple[str, ...]:
        """Whom to unload for a version that is loaded even where that does not make room for it."""
        chosen = choose_unloads(self._budget_bytes, occupants, needed)
        if chosen is None:
            chosen = tuple(each.endpoint for each in occupants if each.leaves)
            log_event(
                "memory_over_budget",
                level=logging.WARNING,
                version=manifest.reference,
                needed_bytes=needed,
                loaded_bytes=sum(each.size_bytes for each in occupants),
                budget_bytes=self._budget_bytes,
            )
        return chosen

    def _needed(self, spec: DeploymentSpec, manifest: VersionManifest) -> int:
        """What to make room for.

        What was measured may be too much, for whatever else happened at that time. So a version whose
        artifact would fit may have all that others leave, and is measured anew.
        """
        most = self._budget_bytes - self._fixed_bytes()
        return max(spec.replicas * manifest.size_bytes, min(self.expect(spec, manifest), most))

    def _fixed_bytes(self) -> int:
        """Of versions that never leave."""
        return sum(each.size_bytes for each in self._occupants() if each.used_s == float("inf"))

    def _require_hope(self, spec: DeploymentSpec, manifest: VersionManifest, needed: int) -> None:
        fixed = self._fixed_bytes()
        if needed + fixed > self._budget_bytes:
            raise SalverError(
                "NOT_READY",
                f"{manifest.reference} takes about {self.expect(spec, manifest)} bytes; of {self._budget_bytes} for "
                f"all versions, those that are always loaded take {fixed}",
                "raise server.memory_bytes, or deploy fewer versions with --load eager",
            )

    def release(self, spec: DeploymentSpec) -> None:
        """A version was not loaded: what it was promised is free again."""
        self._promised.pop(spec.endpoint, None)

    def _others(self, spec: DeploymentSpec | None) -> list[Occupant]:
        """Who is there, and whom room was promised; never the endpoint itself as one that could leave."""
        own = spec.endpoint if spec else None
        there = [each._replace(leaves=each.leaves and each.endpoint != own) for each in self._occupants()]
        # Whoever is there already and loads another version beside it needs both for a while.
        return [*there, *(Occupant(name, size, False, 0.0) for name, size in self._promised.items() if name != own)]

    async def _unload_all(self, endpoints: Iterable[str]) -> None:
        await asyncio.gather(*(self._unload(endpoint) for endpoint in endpoints))

    async def settle(self, spec: DeploymentSpec, manifest: VersionManifest) -> None:
        """A version is loaded: what it was promised is its own now. Where it takes more, others leave for it."""
        self.release(spec)
        if not self._budget_bytes:
            return
        await self._unload_all(self._choose_whatever_happens(self._others(spec), 0, manifest))


def private_bytes(pid: int | None = None) -> int:
    """Resident memory of a process that is not of files, of this one by default; 0 for one that is not there."""
    try:
        fields = Path(f"/proc/{pid or 'self'}/statm").read_bytes().split()
        return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0
