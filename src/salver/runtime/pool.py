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
import logging

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.request import BatchOutputs, Request, Response
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.runtime.batch import Batch, Entry, check_outputs, join_inputs
from salver.runtime.batcher import Batcher
from salver.runtime.classes import is_alike
from salver.runtime.curve import Measured, ServiceCurve
from salver.runtime.recent import RecentInputs
from salver.runtime.replica import OpenStreams, Replica
from salver.runtime.settlement import Settlement, model_error
from salver.runtime.watching import LEAST_HANG_S, STALL_S, WATCH_S, hang_limit_s
from salver.telemetry.logs import log_event
from salver.telemetry.metrics import VersionMetrics

__all__ = ["Pool"]

_TIDY_S = 0.1
"""How often the queue is searched for callers that have gone."""


class Pool:
    """One queue and the replicas that take from it. Lives on the event loop."""

    def __init__(self, spec: DeploymentSpec, manifest: VersionManifest, metrics: VersionMetrics, clock: Clock) -> None:
        self.spec = spec
        self.manifest = manifest
        self.curve = ServiceCurve()
        self.replicas: list[Replica] = []
        self.streams: list[OpenStreams] = []
        """Of the replicas that can have any open."""
        self.predicts = True
        """Whether the version answers batches; one that streams need not."""
        self.metrics = metrics
        keeps = spec.warm_from_traffic and manifest.is_repeatable
        self.recent = RecentInputs() if keeps else None
        """What it answered lately, for its successor: never what it hung or died on."""
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._batched = manifest.signature.batched
        # Where rows differ in length, what others took says little.
        self._least_hang_s = LEAST_HANG_S if is_alike(manifest.signature) else max(LEAST_HANG_S, spec.deadline_s)
        self._settlement = Settlement(manifest, spec.validate, metrics, clock)
        self._batcher = Batcher(spec, manifest, self.curve)
        self._queue = self._batcher.queue
        self._admission = self._batcher.admission
        self._idle: dict[Replica, float] = {}
        """The replicas that run nothing, each with the time since when."""
        self._running: dict[Replica, Batch] = {}
        self._scheduled = False
        self._earliest_s = float("inf")
        self._tidied_s = self._looked_s = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._hold: asyncio.TimerHandle | None = None
        self._drained: asyncio.Event = asyncio.Event()
        self._unavailable: SalverError | None = None
        self._retry_at_s = 0.0
        """When that may be over."""

    # The request's side.

    def __call__(self, request: Request) -> asyncio.Future[Response]:
        """Answer `request`; see `Service`. A future rather than a coroutine: it costs no task."""
        return self.enqueue(request).answer

    def enqueue(self, request: Request) -> Entry:
        """Take `request` into the queue; raises QUEUE_FULL, OVERLOADED, NOT_READY or TOO_MANY_ROWS instead."""
        spec, batcher = self.spec, self._batcher
        if self._unavailable is not None:
            self.require_available()
        if request.rows > spec.max_batch:
            raise SalverError(
                "TOO_MANY_ROWS",
                f"the request has {request.rows} rows; {spec.endpoint} runs at most {spec.max_batch} together",
                "split the request, or deploy with a larger --max-batch",
            )
        now_s = self._clock.monotonic_s()
        answer: asyncio.Future[Response] = self._loop.create_future()
        entry = Entry(request, answer, now_s, request.rows) if batcher.plain else batcher.entry(request, answer, now_s)
        admission = self._admission
        if admission.guards_wait:
            admission.check_wait(entry, now_s, self._until_free_s(now_s), len(self.replicas))
        if not self._queue.offer(entry, batcher.bounds_of[entry.level].max_queue):
            self._make_room(entry, now_s)
            self._queue.append(entry)
        self._earliest_s = min(self._earliest_s, request.deadline_s)
        if self._watch is None:
            self._looked_s = now_s
            self._watch = self._loop.call_later(WATCH_S, self._look)
        if self._idle and not self._scheduled:
            self._wake()
        return entry

    def require_available(self) -> None:
        """Raise why nothing can be answered here, if so."""
        error = self._unavailable
        if error is not None:
            left_s = self._retry_at_s - self._clock.monotonic_s()
            error.retry_after_s = left_s if left_s > 0 else None
            # Without the traceback of the last time, or each raise would add to it for ever.
            raise error.with_traceback(None)

    def _make_room(self, entry: Entry, now_s: float) -> None:
        """Find a place in a full queue: of one who has left, or of the tenant that has queued most."""
        self._tidy(now_s)
        if self._queue.waiting(entry.level) < self._batcher.bounds_of[entry.level].max_queue:
            return
        refusal = self._admission.refusal(entry.level, len(self.replicas))
        pushed_out = self._queue.push_out(entry.level, entry.request.tenant, entry.cost)
        if pushed_out is None:
            raise refusal
        self._settlement.fail(pushed_out, refusal)

    def _until_free_s(self, now_s: float) -> float:
        if self._idle or not self._running:
            return 0.0
        ends_s = [batch.started_s + (self.curve.expect(batch.size) or 0.0) for batch in self._running.values()]
        return max(0.0, min(ends_s) - now_s)

    def _tidy(self, now_s: float) -> None:
        """Drop callers that have gone, now and then."""
        if now_s - self._tidied_s >= _TIDY_S:
            self._tidied_s = now_s
            self._queue.drop_done()

    # Starting batches.

    def _wake(self) -> None:
        # One callback for all requests that arrive in this turn of the loop: they form one batch.
        if self._idle and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._scheduled = False
        now_s = self._clock.monotonic_s()
        if now_s >= self._earliest_s:
            self._expire(now_s)
        while self._idle:
            again = self._batcher.cut_again()
            entries = again or self._batcher.cut(now_s)
            if not entries:
                self._hold_on(now_s)
                break
            # Held was the batch since any replica has been free, whichever takes it.
            free_s = min(self._idle.values()) if self._batcher.holds else now_s
            replica, since_s = self._idle.popitem()
            if not self._start(replica, entries, free_s, now_s, fresh=not again):
                self._idle.setdefault(replica, since_s)
                continue
            if replica not in self._running:
                # It ran inline and is idle again; let the loop turn before the next batch.
                break
            now_s = self._running[replica].started_s
        self.note_drained()

    def _hold_on(self, now_s: float) -> None:
        hold_s = self._batcher.hold_s(now_s)
        if self._hold is not None:
            self._hold.cancel()
        # Anew each time: what came since may be in more of a hurry.
        self._hold = self._loop.call_later(hold_s, self._release) if hold_s > 0 else None

    def _release(self) -> None:
        self._hold = None
        self._wake()

    def _start(self, replica: Replica, entries: list[Entry], free_s: float, now_s: float, *, fresh: bool) -> bool:
        """Begin a batch; False when nothing of it runs."""
        classes = self._batcher.classes
        try:
            rows = sum([entry.request.rows for entry in entries])
            inputs = join_inputs(entries, rows if self._batched else None, classes.pads)
            if fresh and self._settlement.screens:
                kept = self._settlement.screened(entries, inputs)
                if not kept:
                    return False
                if len(kept) < len(entries):
                    return self._start(replica, kept, free_s, now_s, fresh=False)
            size = sum([entry.cost for entry in entries]) if classes.costed else rows
            started_s = self._clock.monotonic_s()
            self._running[replica] = batch = Batch(entries, inputs, rows, size, free_s, now_s, started_s)
            replica.start(batch)
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer everybody
            log_event("batch_failed", level=logging.ERROR, version=self.manifest.reference, error=error)
            self._running.pop(replica, None)
            self._settlement.fail_all(entries, SalverError("INTERNAL", "the batch could not be run"))
            return False
        return True

    def count_in(self, metrics: VersionMetrics) -> None:
        """Count there from now on."""
        self.metrics = metrics
        self._settlement.count_in(metrics)

    # The replica's side.

    def add(self, replica: Replica) -> None:
        """Take in a replica that is ready."""
        self.replicas.append(replica)
        self.ready(replica)

    def ready(self, replica: Replica) -> None:
        """A replica can take a batch (again)."""
        self._unavailable = None
        self._idle[replica] = self._clock.monotonic_s()
        self._wake()

    def learn(self, measured: Measured) -> None:
        """Take in what was measured when a replica was tried."""
        if self._batcher.classes.costed:
            # What invented rows would cost says little about what real ones do.
            measured = Measured({}, measured.longest_s, measured.problem)
        self.curve.adopt(measured)
        if measured.problem:
            log_event("warm_up_ended", version=self.manifest.reference, problem=measured.problem)

    def suspend(self, replica: Replica) -> None:
        """A replica takes no more batches for now; what it runs is not decided yet."""
        self._idle.pop(replica, None)

    def unavailable(self, error: SalverError) -> None:
        """A replica will not be ready soon. If no other is left: answer what waits, and what comes, with `error`."""
        if not self._idle and not self._running:
            self._refuse(error)

    def _refuse(self, error: SalverError) -> None:
        self._unavailable = error
        self._retry_at_s = self._clock.monotonic_s() + (error.retry_after_s or 0.0)
        self._settlement.fail_all(self._batcher.clear(), error)

    def finished(self, replica: Replica, outputs: object, compute_s: float) -> None:
        """The running batch of `replica` returned `outputs` after `compute_s` seconds."""
        returned_s = self._clock.monotonic_s()
        batch = self._freed(replica)
        if batch is None:
            return
        # From the queue to here, which is what a batch costs those who wait for the next.
        self.curve.observe(batch.size, returned_s - batch.cut_s)
        try:
            checked = check_outputs(outputs, self.manifest.signature, batch.rows)
        except SalverError as error:
            self._settlement.reject(batch, error)
            return
        answered = BatchOutputs(checked, batch.rows, compute_s, replica.placement)
        if self.recent is not None and returned_s >= self.recent.due_s:
            self.recent.take(batch.entries[0].request, returned_s)
        slowest_s = self._settlement.answer(batch, answered, returned_s)
        if self.spec.slo_s:
            self._batcher.limit.answered(batch.size, slowest_s, batch.size / len(batch.entries))

    def arriving(self, replica: Replica) -> None:
        """The worker of `replica` is sending something large."""
        if replica in self._running:
            self._running[replica].heard_s = self._clock.monotonic_s()

    def bad_output(self, replica: Replica, problem: str) -> None:
        """The running batch of `replica` returned what cannot be attributed to requests: all fail."""
        batch = self._freed(replica)
        if batch is not None:
            self._settlement.reject(batch, SalverError("BAD_MODEL_OUTPUT", problem))

    def _freed(self, replica: Replica) -> Batch | None:
        """The batch that `replica` is done with; None for one that `stop` has answered in the meantime."""
        batch = self._running.pop(replica, None)
        if batch is not None:
            self._idle[replica] = self._clock.monotonic_s()
            self._wake()
        return batch

    def raised(self, replica: Replica, problem: str, refusal: str = "") -> None:
        """The running batch of `replica` raised; halve it until the request that raises is alone.

        That one's caller is told the `refusal`, if the model has one for them.
        """
        batch = self._freed(replica)
        if batch is None:
            return
        entries = batch.entries
        if len(entries) > 1:
            self._batcher.halve(entries)
            return
        self._settlement.fail(entries[0], model_error(self.manifest.reference, entries[0].request, problem, refusal))

    def lost(self, replica: Replica, cause: str) -> None:
        """The worker of `replica` died; what it ran may run again alone, once. `ready` may follow."""
        self.suspend(replica)
        batch = self._running.pop(replica, None)
        now_s = self._clock.monotonic_s()
        for entry in batch.entries if batch else ():
            entry.kills += 1
            if entry.answer.done():
                continue
            if entry.kills > 1:
                error = SalverError(
                    "POISON_INPUT", f"two workers of {self.manifest.reference} died while they ran this request"
                )
            elif self.manifest.idempotent and entry.request.deadline_s > now_s:
                self._batcher.again_alone(entry)
                continue
            else:
                error = SalverError("WORKER_LOST", f"the worker of {self.manifest.reference} died: {cause}")
            self._settlement.fail(entry, error)
        self._wake()

    # Time.

    def _look(self) -> None:
        """Answer what has expired, give up what hangs; runs while anything is outstanding."""
        now_s = self._clock.monotonic_s()
        stalled, self._looked_s = now_s - self._looked_s > STALL_S, now_s
        try:
            for replica, batch in list(self._running.items()):
                if now_s - batch.heard_s > self.hang_limit_s(batch.size) and not stalled:
                    self._hung(replica, batch)
            if now_s >= self._earliest_s:
                self._expire(now_s)
            self._tidy(now_s)
        finally:
            outstanding = self._running or len(self._batcher)
            self._watch = self._loop.call_later(WATCH_S, self._look) if outstanding else None
            self.note_drained()

    def _expire(self, now_s: float) -> None:
        self._earliest_s = float("inf")
        for batch in (None, *self._running.values()):
            for entry in batch.entries if batch else self._batcher.waiting():
                if entry.answer.done():
                    continue
                if entry.request.deadline_s <= now_s:
                    self._settlement.expire(entry, batch, now_s)
                else:
                    self._earliest_s = min(self._earliest_s, entry.request.deadline_s)

    def hang_limit_s(self, size: int) -> float:
        """Seconds after which a running batch of `size` counts as hung."""
        longest_s = self.curve.longest_s
        if longest_s:
            # A batch larger than any seen may take longer than any seen.
            longest_s = max(longest_s, self.curve.predict(size) or 0.0)
        return hang_limit_s(self.spec, longest_s, self._least_hang_s)

    def _hung(self, replica: Replica, batch: Batch) -> None:
        limit_s = self.hang_limit_s(batch.size)
        log_event(
            "model_hung",
            level=logging.WARNING,
            version=self.manifest.reference,
            requests=[entry.request.trace.decode() for entry in batch.entries],
            seconds=limit_s,
        )
        del self._running[replica]
        reference = self.manifest.reference
        self._settlement.fail_all(
            batch.entries, SalverError("MODEL_HUNG", f"{reference} did not return within {limit_s:g} s")
        )
        replica.give_up()

    # What is, and the end.

    @property
    def available(self) -> bool:
        """Whether a replica is there to answer, see `Service`; without one, requests still wait for the next."""
        return self._unavailable is None and bool(self._idle or self._running)

    @property
    def batch_limit(self) -> int:
        """The size a batch may have at present: rows, or the version's cost."""
        return self._batcher.limit.size()

    @property
    def counts_cost(self) -> bool:
        """Whether sizes are the version's own cost, not rows."""
        return self._batcher.classes.costed

    @property
    def settlement(self) -> Settlement:
        """How the requests of this version end."""
        return self._settlement

    def now_s(self) -> float:
        """The time by which deadlines go."""
        return self._clock.monotonic_s()

    @property
    def waiting(self) -> int:
        """Requests queued."""
        return len(self._batcher)

    @property
    def running(self) -> int:
        """Batches running."""
        return len(self._running)

    def note_drained(self) -> None:
        """Say so to whoever waits for it, if nothing is queued, running or open."""
        if not self._running and not self._batcher and not any(map(len, self.streams)):
            self._drained.set()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until nothing is queued, running or open; False if that took longer than `timeout_s`.

        REQUIRES: no new request is sent here.
        """
        self._drained.clear()
        self.note_drained()
        try:
            await asyncio.wait_for(self._drained.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def stop(self, error: SalverError) -> None:
        """Free the replicas; what is still unanswered, and what comes, is answered with `error`."""
        self._refuse(error)
        for batch in self._running.values():
            self._settlement.fail_all(batch.entries, error)
        self._running.clear()
        self._idle.clear()
        for timer in (self._watch, self._hold):
            if timer is not None:
                timer.cancel()
        replicas, self.replicas = self.replicas, []
        await asyncio.gather(*(replica.stop() for replica in replicas))

    def __repr__(self) -> str:
        return f"<Pool {self.manifest.reference} {len(self.replicas)} replicas, {self.waiting} waiting>"
