"""Pools whose replica is a real worker process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.signing import provenance, signed

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.protocol.tables import VersionManifest
from salver.runtime.pool import Pool
from salver.runtime.worker_replica import WorkerReplica
from salver.telemetry.metrics import VersionMetrics
from salver.testing import FREE_WIDTH, make_request, make_spec


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Serving:
    """A pool whose replica is a real worker process."""

    def __init__(self, store: Any, manifest: VersionManifest, clock: Any, silence_s: float, **spec: Any) -> None:
        self.metrics = VersionMetrics()
        self.pool = Pool(make_spec(**spec), signed(manifest), self.metrics, clock)
        self.replica = WorkerReplica(self.pool, store.blobs, store.scratch, clock, provenance(), silence_s=silence_s)

    def ask(self, *values: float, **changes: Any) -> asyncio.Future[Any]:
        return self.pool(make_request([[value, value] for value in values], **changes))

    async def answer(self, value: float) -> float:
        return (await self.ask(value)).array("y")[0, 0].item()

    @property
    def pid(self) -> int:
        assert self.replica.pid is not None
        return self.replica.pid


@contextlib.asynccontextmanager
async def serving(
    store: Any, manifest: VersionManifest, *, clock: Any = SYSTEM_CLOCK, silence_s: float = 10.0, **spec: Any
) -> AsyncIterator[Serving]:
    """A worker that serves; afterwards none of it is left."""
    one = Serving(store, manifest, clock, silence_s, **spec)
    await one.replica.launch()
    one.pool.add(one.replica)
    try:
        yield one
    finally:
        pid = one.replica.pid
        await one.pool.stop(SalverError("NOT_READY", "the test is over"))
        assert pid is None or not alive(pid)
        assert list(store.scratch.iterdir()) == []


def free(store: Any, body: str, **changes: Any) -> VersionManifest:
    return store.python(body, signature=FREE_WIDTH, **changes)


MARKED = "if (x == {value}).any(): {action}\n"
