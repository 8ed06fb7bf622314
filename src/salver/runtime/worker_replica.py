"""A replica in worker processes: one at a time, each replaced when it dies.

Isolation is what it is for. A worker that crashes, exits, is killed for memory or stops
answering costs the batch it had; it is replaced at once, and after repeated deaths with growing
pauses, while the version is reported unavailable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Final

import msgspec

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.frames import FrameKind
from salver.protocol.tables import Placement
from salver.runtime.aside import run_aside
from salver.runtime.batch import Batch
from salver.runtime.model import Arrays
from salver.runtime.pool import Pool
from salver.runtime.provenance import Provenance
from salver.runtime.streams import ReplicaStreams
from salver.runtime.worker import LoadOrder
from salver.runtime.worker_process import WorkerProcess
from salver.storage.blob_store import Blobs
from salver.telemetry.logs import log_event

__all__ = ["WorkerReplica", "restart_delay_s"]

_SILENCE_S: Final = 10.0
"""A worker not heard of for so long is stopped or starved beyond use, and is replaced."""
_CRASH_WINDOW_S: Final = 60.0
_CRASHES_TO_OPEN: Final = 5
_LONGEST_PAUSE_S: Final = 60.0


def restart_delay_s(deaths_lately: int) -> float:
    """Seconds before the next start after so many deaths within a minute.

    >>> [restart_delay_s(n) for n in (1, 2, 3, 4, 9)]
    [0.0, 1.0, 2.0, 4.0, 60.0]
    """
    return 0.0 if deaths_lately <= 1 else min(2.0 ** (deaths_lately - 2), _LONGEST_PAUSE_S)


class WorkerReplica:
    """One worker process at a time, and what it runs. Lives on the event loop."""

    def __init__(
        self,
        pool: Pool,
        blobs: Blobs,
        scratch: Path,
        clock: Clock,
        provenance: Provenance,
        *,
        silence_s: float = _SILENCE_S,
    ) -> None:
        spec = pool.spec
        self._pool = pool
        self._provenance = provenance
        self._blobs = blobs
        self._order = LoadOrder(
            pool.manifest, spec.runtime, str(blobs.root), str(scratch), spec.max_batch, spec.worker_memory_bytes, ()
        )
        self._clock = clock
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._worker: WorkerProcess | None = None
        self._owes = False
        """Whether the pool still expects word of the batch that was sent."""
        self._deaths: list[float] = []
        self._restart: asyncio.Task[None] | None = None
        self._stopped = False
        self._restarts = 0
        self._streams = ReplicaStreams(pool, clock, lambda: self._owes, self.give_up)
        pool.streams.append(self._streams)

    @property
    def placement(self) -> Placement:
        """Always in a process of its own."""
        return Placement.PROCESS

    @property
    def restarts(self) -> int:
        """How often a worker was started again."""
        return self._restarts

    @property
    def pid(self) -> int | None:
        """The worker's process id while there is one that serves."""
        return self._worker.pid if self._worker else None

    async def launch(self) -> None:
        """Start a worker and wait until it has loaded and tried the version; raises what that raises."""
        name = f"salver prepare {self._pool.manifest.reference}"
        order, held = await run_aside(self._prepare, lambda prepared: prepared[1].close(), name)
        with held:
            worker = WorkerProcess(order, self._clock, self, self._silence_s)
            report = await worker.launch()
        self._worker = worker
        self._pool.learn(report.measured)
        self._pool.predicts = report.predicts
        self._streams.serve(worker)

    def _prepare(self) -> tuple[LoadOrder, contextlib.ExitStack]:
        """What the worker is told, and what has to be closed when it has loaded its files; blocks."""
        manifest = self._pool.manifest
        trusted = self._provenance.require(manifest)
        digests = [file.sha256 for file in manifest.files]
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._blobs.hold(digests))
            keys = self._blobs.data_keys(digests)
            return msgspec.structs.replace(self._order, trusted=trusted, keys=keys), stack.pop_all()

    # The pool's side.

    def start(self, batch: Batch) -> None:
        """Send `batch` to the worker."""
        assert self._worker is not None
        self._worker.run(batch.inputs)
        self._owes = True

    def give_up(self) -> None:
        """Kill the worker, in which a batch or a stream hangs; a new one is started."""
        self._owes = False
        if self._worker is not None:
            self._worker.kill()

    async def stop(self) -> None:
        """Let the worker unload and end, and start no other."""
        self._stopped = True
        self._owes = False
        self._streams.lost(SalverError("NOT_READY", "the version was taken away before the stream ended", "retry"))
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.wait((self._restart,))
        if self._worker is not None:
            await self._worker.stop()

    # The worker's side. What a worker says after it was given up no longer matters.

    def answered(self, outputs: Arrays, seconds: float) -> None:
        """The batch was computed."""
        if self._settles():
            self._pool.finished(self, outputs, seconds)

    def raised(self, problem: str, refusal: str) -> None:
        """The batch raised an exception."""
        if self._settles():
            self._pool.raised(self, problem, refusal)

    def bad_output(self, problem: str) -> None:
        """The batch returned something that is no arrays by name."""
        if self._settles():
            self._pool.bad_output(self, problem)

    def chunk(self, stream: int, outputs: Arrays, seconds: float) -> None:
        """A stream goes on."""
        self._streams.chunk(stream, outputs, seconds)

    def ended(self, stream: int, kind: FrameKind, problem: str, refusal: str) -> None:
        """A stream has had its last word."""
        self._streams.ended(stream, kind, problem, refusal)

    def arriving(self) -> None:
        """A large answer is on its way, whichever it is: the worker does not hang."""
        self._streams.arriving()
        self._pool.arriving(self)

    def _settles(self) -> bool:
        owed, self._owes = self._owes, False
        return owed

    def leaving(self) -> None:
        """The worker takes no more batches."""
        self._streams.suspend()
        self._pool.suspend(self)

    def died(self, cause: str) -> None:
        """The worker has ended: its batch is lost, and another worker is started."""
        pid, self._worker = self.pid, None
        self._owes = False
        self._streams.lost(SalverError("WORKER_LOST", f"the worker of {self._pool.manifest.reference} died: {cause}"))
        if self._stopped:
            return
        log_event("worker_died", level=logging.WARNING, version=self._pool.manifest.reference, pid=pid, cause=cause)
        self._pool.lost(self, cause)
        self._restart = self._loop.create_task(self._replace())

    async def _replace(self) -> None:
        while self._worker is None:
            await asyncio.sleep(self._count_death())
            self._restarts += 1
            try:
                async with asyncio.timeout(self._pool.spec.load_timeout_s):
                    await self.launch()
            except Exception as error:  # noqa: BLE001 - whatever it was, the next attempt may succeed
                log_event(
                    "worker_restart_failed", level=logging.WARNING, version=self._pool.manifest.reference, error=error
                )
        self._pool.ready(self)

    def _count_death(self) -> float:
        """Take note of a death or a failed start; returns the seconds to wait before the next start."""
        now_s = self._clock.monotonic_s()
        self._deaths = [at_s for at_s in self._deaths if now_s - at_s < _CRASH_WINDOW_S] + [now_s]
        delay_s = restart_delay_s(len(self._deaths))
        if len(self._deaths) >= _CRASHES_TO_OPEN:
            reference = self._pool.manifest.reference
            self._pool.unavailable(
                SalverError(
                    "NOT_READY",
                    f"the workers of {reference} died {len(self._deaths)} times within a minute",
                    f"a new one starts after a pause of {delay_s:g} s; see the server's log",
                    retry_after_s=delay_s,
                )
            )
        return delay_s

    def __repr__(self) -> str:
        return f"<WorkerReplica {self._pool.manifest.reference} pid {self.pid}>"
