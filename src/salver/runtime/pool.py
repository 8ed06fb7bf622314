"""The replicas of one version behind one queue: a Service.

Work-conserving: a free replica takes what is queued at once, and while all are busy the queue
grows, so batches are as large as the load makes them and an idle server adds no wait.

What may go wrong goes wrong for one request. A caller that leaves or expires is dropped before
it runs. A batch that raises is halved until the request that raises is alone. Requests whose
worker died run again alone, once, if that is safe. A batch that hangs is answered and its
replica given up, while the queue moves on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.request import BatchOutputs, Request, Response
from salver.protocol.tables import DeploymentSpec, Validate, VersionManifest
from salver.runtime.batch import Batch, Entry, check_outputs, join_inputs
from salver.runtime.curve import ServiceCurve
from salver.runtime.model import Arrays
from salver.runtime.screen import ProfileScreen
from salver.telemetry.logs import log_event
from salver.telemetry.metrics import VersionMetrics

__all__ = ["Pool", "Replica"]

_WATCH_S = 0.02
"""How often deadlines and hangs are looked at while work is outstanding: a caller hears of a
passed deadline within 50 ms."""
_LEAST_HANG_S = 5.0


class Replica(Protocol):
    """One loaded version, able to run one batch at a time."""

    def start(self, batch: Batch) -> None:
        """Begin `batch`; later call exactly one of the pool's `finished`, `bad_output`, `raised`, `lost`."""

    def give_up(self) -> None:
        """Abandon the running batch, which hangs: whatever it still does must have no effect.

        The replica calls the pool's `ready` when it can run again, or never.
        """

    def stop(self) -> None:
        """Free everything; no batch is running."""


class Pool:
    """One queue and the replicas that take from it. Lives on the event loop."""

    def __init__(self, spec: DeploymentSpec, manifest: VersionManifest, metrics: VersionMetrics, clock: Clock) -> None:
        self.spec = spec
        self.manifest = manifest
        self.curve = ServiceCurve()
        self.replicas: list[Replica] = []
        self._metrics = metrics
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._batched = manifest.signature.batched
        self._uniform = all(-1 not in s.shape[1:] and not s.optional for s in manifest.signature.inputs)
        self._costed = bool(manifest.cost)
        self._screen = ProfileScreen(manifest)
        self._queue: deque[Entry] = deque()
        self._redo: deque[list[Entry]] = deque()
        """Entries that must run again in exactly these groups, before anything queued."""
        self._idle: list[Replica] = []
        self._running: dict[Replica, Batch] = {}
        self._scheduled = False
        self._earliest_s = float("inf")
        self._watch: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event = asyncio.Event()
        self._unavailable: SalverError | None = None

    # The request's side.

    def __call__(self, request: Request) -> asyncio.Future[Response]:
        """Answer `request`; see `Service`. A future rather than a coroutine: it costs no task."""
        return self.enqueue(request).answer

    def enqueue(self, request: Request) -> Entry:
        """Take `request` into the queue; raises QUEUE_FULL, NOT_READY or TOO_MANY_ROWS instead."""
        spec = self.spec
        if self._unavailable is not None:
            raise self._unavailable
        if len(self._queue) >= spec.max_queue:
            raise SalverError(
                "QUEUE_FULL",
                f"{len(self._queue)} requests wait for {spec.endpoint}; at most {spec.max_queue} may",
                "retry later, add replicas, or raise --max-queue",
            )
        if request.rows > spec.max_batch:
            raise SalverError(
                "TOO_MANY_ROWS",
                f"the request has {request.rows} rows; {spec.endpoint} runs at most {spec.max_batch} together",
                "split the request, or deploy with a larger --max-batch",
            )
        entry = Entry(
            request,
            self._loop.create_future(),
            self._clock.monotonic_s(),
            self._cost(request) if self._costed else request.rows,
            None if self._uniform else self._shape_key(request),
        )
        self._queue.append(entry)
        self._earliest_s = min(self._earliest_s, request.deadline_s)
        if self._watch is None:
            self._watch = self._loop.call_later(_WATCH_S, self._look)
        if self._idle and not self._scheduled:
            self._wake()
        return entry

    def _cost(self, request: Request) -> int:
        tensor = request.inputs.get(self.manifest.cost)
        return request.rows if tensor is None else tensor.size

    def _shape_key(self, request: Request) -> object:
        return tuple(sorted((name, tensor.shape[1:]) for name, tensor in request.inputs.items()))

    # Cutting batches.

    def _wake(self) -> None:
        # One callback for all requests that arrive in this turn of the loop: they form one batch.
        if self._idle and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._scheduled = False
        while self._idle:
            entries = self._cut()
            if not entries:
                break
            replica = self._idle.pop()
            if not self._start(replica, entries):
                self._idle.append(replica)
                continue
            if replica not in self._running:
                # It ran inline and is idle again; let the loop turn before the next batch.
                break

    def _cut(self) -> list[Entry]:
        while self._redo:
            again = [entry for entry in self._redo.popleft() if not entry.answer.done()]
            if again:
                return again
        queue = self._queue
        while queue and queue[0].answer.done():
            queue.popleft()
        if not queue or self._is_waiting_for_more():
            return []
        if not self._batched:
            return [queue.popleft()]
        spec, first = self.spec, queue[0]
        entries: list[Entry] = []
        passed: list[Entry] = []
        rows = cost = 0
        while queue:
            entry = queue.popleft()
            if entry.answer.done():
                continue
            fits = rows + entry.request.rows <= spec.max_batch and (
                not spec.max_cost or not entries or cost + entry.cost <= spec.max_cost
            )
            if entry.shape_key != first.shape_key:
                passed.append(entry)
            elif fits:
                entries.append(entry)
                rows += entry.request.rows
                cost += entry.cost
            else:
                passed.append(entry)
                break
        queue.extendleft(reversed(passed))
        return entries

    def _is_waiting_for_more(self) -> bool:
        """Whether the optional wait for a fuller batch is still on."""
        wait_s = self.spec.max_wait_s
        if wait_s <= 0 or sum(entry.request.rows for entry in self._queue) >= self.spec.max_batch:
            return False
        left_s = self._queue[0].enqueued_s + wait_s - self._clock.monotonic_s()
        if left_s <= 0:
            return False
        self._loop.call_later(left_s, self._wake)
        return True

    def _start(self, replica: Replica, entries: list[Entry]) -> bool:
        inputs = join_inputs(entries, self._batched)
        if self._screen and self.spec.validate is not Validate.OFF:
            kept = self._screened(entries, inputs)
            if not kept:
                return False
            if len(kept) < len(entries):
                entries, inputs = kept, join_inputs(kept, self._batched)
        rows = sum([entry.request.rows for entry in entries])
        batch = Batch(entries, inputs, rows, self._clock.monotonic_s())
        self._running[replica] = batch
        replica.start(batch)
        return True

    def _screened(self, entries: list[Entry], inputs: Arrays) -> list[Entry]:
        """Warn about values outside the profile or, if the deployment is strict, refuse them."""
        for entry, message in self._screen.outside(entries, inputs):
            self._metrics.outside_profile += 1
            if self.spec.validate is Validate.STRICT:
                self._fail(entry, SalverError("OUTSIDE_PROFILE", message, "check the units and the preprocessing"))
            else:
                entry.warnings = (*entry.warnings, message)
        return [entry for entry in entries if not entry.answer.done()]

    # The replica's side.

    def add(self, replica: Replica) -> None:
        """Take in a replica that is ready."""
        self.replicas.append(replica)
        self.ready(replica)

    def ready(self, replica: Replica) -> None:
        """A replica can take a batch (again)."""
        self._unavailable = None
        self._idle.append(replica)
        self._wake()

    def unavailable(self, error: SalverError) -> None:
        """No replica will be ready soon: answer everything that waits, and what comes, with `error`."""
        self._unavailable = error
        for entries in (*self._redo, self._queue):
            for entry in entries:
                self._fail(entry, error)
        self._redo.clear()
        self._queue.clear()

    @property
    def available(self) -> bool:
        """Whether requests are taken."""
        return self._unavailable is None

    def finished(self, replica: Replica, outputs: object, compute_s: float) -> None:
        """The running batch of `replica` returned `outputs` after `compute_s` seconds."""
        batch = self._running.pop(replica)
        self._idle.append(replica)
        self._wake()
        self.curve.observe(batch.rows, compute_s)
        try:
            arrays = BatchOutputs(check_outputs(outputs, self.manifest.signature, batch.rows))
        except SalverError as error:
            self._fail_all(batch, error)
        else:
            self._answer(batch, arrays, compute_s)
        self._note_drained()

    def bad_output(self, replica: Replica, problem: str) -> None:
        """The running batch of `replica` returned what cannot be attributed to requests: all fail."""
        batch = self._running.pop(replica)
        self._idle.append(replica)
        self._wake()
        self._fail_all(batch, SalverError("BAD_MODEL_OUTPUT", problem))
        self._note_drained()

    def _fail_all(self, batch: Batch, error: SalverError) -> None:
        log_event("bad_model_output", version=self.manifest.reference, problem=error.message)
        for entry in batch.entries:
            self._fail(entry, error)

    def _answer(self, batch: Batch, arrays: BatchOutputs, compute_s: float) -> None:
        model, version = self.manifest.model, self.manifest.version
        started_s = batch.started_s
        start = 0
        for entry in batch.entries:
            stop = start + entry.request.rows
            if not entry.answer.done():
                entry.answer.set_result(
                    Response(
                        model,
                        version,
                        arrays,
                        start,
                        stop if self._batched else None,
                        warnings=entry.warnings,
                        queue_s=started_s - entry.enqueued_s,
                        compute_s=compute_s,
                    )
                )
            start = stop
        now_s = self._clock.monotonic_s()
        self._metrics.batch_done(
            batch.rows,
            compute_s,
            [started_s - entry.enqueued_s for entry in batch.entries],
            [now_s - entry.request.received_s for entry in batch.entries],
            self._clock.wall_s(),
        )

    def raised(self, replica: Replica, problem: str) -> None:
        """The running batch of `replica` raised; halve it until the request that raises is alone."""
        entries = self._running.pop(replica).entries
        if len(entries) == 1:
            log_event("model_error", version=self.manifest.reference, request=entries[0].request.id, problem=problem)
            self._fail(
                entries[0], SalverError("MODEL_ERROR", f"{self.manifest.reference} raised an exception on this request")
            )
        else:
            middle = len(entries) // 2
            self._redo.extendleft((entries[middle:], entries[:middle]))
        self._idle.append(replica)
        self._wake()
        self._note_drained()

    def lost(self, replica: Replica, cause: str) -> None:
        """The worker of `replica` died; what it ran may run again alone, once. `ready` may follow."""
        if replica in self._idle:
            self._idle.remove(replica)
        batch = self._running.pop(replica, None)
        for entry in batch.entries if batch else ():
            entry.kills += 1
            if entry.kills > 1:
                error = SalverError(
                    "POISON_INPUT", f"two workers of {self.manifest.reference} died while they ran this request"
                )
            elif self.manifest.idempotent and entry.request.deadline_s > self._clock.monotonic_s():
                self._redo.append([entry])
                continue
            else:
                error = SalverError("WORKER_LOST", f"the worker of {self.manifest.reference} died: {cause}")
            self._fail(entry, error)
        self._wake()
        self._note_drained()

    # Time.

    def _look(self) -> None:
        """Answer what has expired, give up what hangs; runs while anything is outstanding."""
        now_s = self._clock.monotonic_s()
        for replica, batch in list(self._running.items()):
            if now_s - batch.started_s > self.hang_s:
                self._hung(replica, batch)
        if now_s >= self._earliest_s:
            self._expire(now_s)
        outstanding = self._queue or self._running or self._redo
        self._watch = self._loop.call_later(_WATCH_S, self._look) if outstanding else None

    def _expire(self, now_s: float) -> None:
        self._earliest_s = float("inf")
        running = [batch.entries for batch in self._running.values()]
        for entries in (self._queue, *self._redo, *running):
            for entry in entries:
                if entry.answer.done():
                    continue
                deadline_s = entry.request.deadline_s
                if deadline_s <= now_s:
                    waited_s = now_s - entry.request.received_s
                    self._fail(entry, SalverError("DEADLINE_EXCEEDED", f"no answer after {waited_s:.3f} s"))
                elif deadline_s < self._earliest_s:
                    self._earliest_s = deadline_s

    @property
    def hang_s(self) -> float:
        """Seconds after which a running batch counts as hung."""
        return self.spec.hang_s or max(_LEAST_HANG_S, 3 * self.curve.longest_s)

    def _hung(self, replica: Replica, batch: Batch) -> None:
        log_event("model_hung", version=self.manifest.reference, rows=batch.rows, seconds=self.hang_s)
        del self._running[replica]
        for entry in batch.entries:
            self._fail(
                entry, SalverError("MODEL_HUNG", f"{self.manifest.reference} did not return within {self.hang_s:g} s")
            )
        replica.give_up()
        self._note_drained()

    def _fail(self, entry: Entry, error: SalverError) -> bool:
        failed = entry.fail(error)
        if failed:
            self._metrics.failed(error.code, self._clock.monotonic_s() - entry.request.received_s)
        return failed

    # The end.

    @property
    def waiting(self) -> int:
        """Requests queued."""
        return len(self._queue) + sum(map(len, self._redo))

    @property
    def running(self) -> int:
        """Batches running."""
        return len(self._running)

    def _note_drained(self) -> None:
        if not self._queue and not self._redo and not self._running:
            self._drained.set()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is queued or running; False if that took longer than `timeout_s`.

        REQUIRES: no new request is sent here.
        """
        self._drained.clear()
        self._note_drained()
        try:
            await asyncio.wait_for(self._drained.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """Free the replicas; REQUIRES that nothing runs."""
        if self._watch is not None:
            self._watch.cancel()
        for replica in self.replicas:
            replica.stop()
        self.replicas.clear()
        self._idle.clear()

    def __repr__(self) -> str:
        return f"<Pool {self.manifest.reference} {len(self.replicas)} replicas, {self.waiting} waiting>"
