"""Replicas inside the server process, for data formats: on the event loop or in a thread.

Cheap batches run on the loop itself, where the hand-over to a thread and back would cost more
than it saves; longer ones run in the replica's one thread, which leaves the loop free because
the runtimes release the GIL while they compute.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.tables import Placement
from salver.runtime.batch import Batch, problem_of
from salver.runtime.curve import ServiceCurve, choose_placement
from salver.runtime.environment import give_back_freed_memory
from salver.runtime.formats import Loaded
from salver.runtime.pool import Pool
from salver.runtime.recorder import FlightRecorder
from salver.telemetry.logs import log_event

__all__ = ["InProcessReplica"]


class InProcessReplica:
    """One loaded version of a data format.

    With placement `auto` each batch goes where its predicted time says. What is predicted is
    processor time where a processor computes: in a thread a batch also waits for the interpreter
    lock, and counted with that a cheap model could never come back to the loop. When a batch
    hangs in the thread, nothing can stop that thread: the replica is spent, and `on_hang` is
    called with its pool, so that the version can move to a worker process; it must not block.
    """

    pid = None
    restarts = 0

    def __init__(
        self, pool: Pool, loaded: Loaded, clock: Clock, recorder: FlightRecorder, on_hang: Callable[[Pool], None]
    ) -> None:
        self._pool = pool
        self._loaded = loaded
        self._clock = clock
        self._recorder = recorder
        self._slot = recorder.slot(pool.manifest.digest)
        self._on_hang = on_hang
        self._fixed = pool.spec.placement
        self._costs = ServiceCurve.of(pool.curve.freeze())
        on_processor = set(pool.spec.runtime.providers) == {"CPUExecutionProvider"}
        self._cost_clock = clock.thread_s if on_processor else clock.monotonic_s
        if self._fixed is Placement.AUTO:
            self._placement = choose_placement(self._costs.predict(1), Placement.INLINE)
        else:
            self._placement = Placement.INLINE if self._fixed is Placement.INLINE else Placement.THREAD
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._heeded = True
        """Whether the pool still wants to hear of batches."""

    @property
    def placement(self) -> Placement:
        """Inline or thread: where the last batch went."""
        return self._placement

    def start(self, batch: Batch) -> None:
        """Run `batch` where it belongs."""
        if self._fixed is Placement.AUTO:
            self._placement = choose_placement(self._costs.predict(batch.rows), self._placement)
        if self._placement is Placement.INLINE:
            self._report(*self._run(batch))
        else:
            self._hand_over(batch)

    def _hand_over(self, batch: Batch | None) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._compute, name=f"salver {self._pool.manifest.reference}", daemon=True
            )
            self._thread.start()
        self._work.put(batch)

    def _run(self, batch: Batch) -> tuple[object, str | None, float]:
        began_s, cost_began_s = self._clock.monotonic_s(), self._cost_clock()
        self._recorder.began(self._slot)
        outputs: object = None
        problem = None
        try:
            outputs = self._loaded.run(batch.inputs)
        except Exception as error:  # noqa: BLE001 - whatever a model raises fails its requests
            problem = problem_of(error)
        finally:
            self._recorder.ended(self._slot)
        if problem is None:
            self._costs.observe(batch.rows, self._cost_clock() - cost_began_s)
        return outputs, problem, self._clock.monotonic_s() - began_s

    def _compute(self) -> None:
        """The replica's thread: runs batches until there is none, then frees the version."""
        if self._pool.spec.runtime.pin:
            try:
                os.sched_setaffinity(0, self._pool.spec.runtime.pin)
            except OSError as error:
                log_event("pinning_failed", version=self._pool.manifest.reference, error=error)
        while (batch := self._work.get()) is not None:
            result = self._run(batch)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._report, *result)
        self._recorder.release(self._slot)
        try:
            self._loaded.unload()
        except Exception as error:  # noqa: BLE001 - nobody is left to tell
            log_event("unload_failed", version=self._pool.manifest.reference, error=error)
        give_back_freed_memory()

    def _report(self, outputs: object, problem: str | None, seconds: float) -> None:
        if not self._heeded:
            return
        if problem is not None:
            self._pool.raised(self, problem)
        else:
            self._pool.finished(self, outputs, seconds)

    def give_up(self) -> None:
        """Spend the replica: its thread may never return. If it does, it ends and frees the version."""
        self._heeded = False
        self._work.put(None)
        self._pool.replicas.remove(self)
        reference = self._pool.manifest.reference
        self._pool.unavailable(
            SalverError("NOT_READY", f"{reference} hung in the server process", "deploy it with --placement process")
        )
        self._on_hang(self._pool)

    async def stop(self) -> None:
        """Let the thread free the version, off the event loop, and end."""
        self._heeded = False
        self._hand_over(None)

    def __repr__(self) -> str:
        return f"<InProcessReplica {self._pool.manifest.reference} {self._placement}>"
