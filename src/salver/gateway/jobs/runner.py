"""Runs jobs beside what is asked online, as much as there is room for.

Jobs wait in the store. A few of an endpoint are taken while nothing waits for its model, and
while something does one goes on at a time, so that jobs neither delay a crowd nor starve in it.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from salver.clock import Clock
from salver.gateway.infer import InferDoor
from salver.gateway.jobs.attempt import Answered, Attempt, abandoned, begin, outcome_of
from salver.protocol.errors import SalverError
from salver.protocol.jobs import FINAL, JobLimits, JobState
from salver.routing.router import Router
from salver.storage.job_ledger import JobLedger
from salver.storage.job_steps import Claimed, Outcome, Tended, Wanted
from salver.storage.job_view import Backlog
from salver.telemetry.job_metrics import JobMetrics
from salver.telemetry.logs import log_event

if TYPE_CHECKING:
    from salver.gateway.gateway import Gateway

__all__ = ["JobRunner"]

_LOOK_S: Final = 0.25
"""How often jobs that came through another process, or are due again, are looked for."""
_TEND_S: Final = 1.0
"""How often leases are renewed and those of others looked at, at least thrice in `lease_s`."""
_READ_S: Final = 1.0
"""How often the store is asked what waits in it."""
_STORE_PAUSE_S: Final = 1.0
"""Before an outcome that could not be recorded is recorded again: a disk is full until somebody acts."""


class JobRunner:
    """Takes jobs of the endpoints in `router` and runs them. Lives on the event loop.

    `waiting` says how many requests wait for an endpoint's model. `ended` is called with the id of
    each job that ends here.
    """

    def __init__(
        self,
        ledger: JobLedger,
        router: Router,
        door: InferDoor,
        limits: JobLimits,
        metrics: JobMetrics,
        clock: Clock,
        waiting: Callable[[str], int],
        ended: Callable[[bytes], None],
    ) -> None:
        self._ledger = ledger
        self._router = router
        self._door = door
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._waiting = waiting
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._gateway: Gateway | None = None
        self._held: dict[int, tuple[Claimed, Attempt | None]] = {}
        """What this process runs, or has run and not recorded yet, by place in the store."""
        self._running: Counter[str] = Counter()
        self._busy: set[str] = set()
        """Endpoints of which jobs may wait in the store."""
        self._stopping = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._claim: asyncio.Future[list[Claimed]] | None = None
        self._tending: asyncio.Future[Tended] | None = None
        self._tended_s = self._read_s = float("-inf")

    def start(self, gateway: Gateway) -> None:
        """Begin to look for jobs."""
        self._gateway = gateway
        self._look()

    def _look(self) -> None:
        self._timer = self._loop.call_later(_LOOK_S, self._look)
        if not self._ledger.exists:
            return
        self._tend()
        now_s = self._clock.monotonic_s()
        if now_s - self._read_s >= _READ_S:
            self._read_s = now_s
            self._ledger.backlogs().add_done_callback(_done("backlogs", self._note_backlogs))
            self._ledger.delivery_counts().add_done_callback(_done("delivery_counts", self._note_delivery_counts))
        self._pump()

    def _tend(self) -> None:
        """Go on holding what runs here and see what others have left, if that is due.

        Not behind a claim: a slow disk may hold both up for longer than a lease, and of the jobs that the claim
        brings nobody but the store knows yet. Not behind another one either, which would gather meanwhile.
        """
        now_s = self._clock.monotonic_s()
        if now_s - self._tended_s < min(_TEND_S, self._limits.lease_s / 3) or self._claiming:
            return
        if self._tending is None or self._tending.done():
            self._tended_s = now_s
            self._tending = self._ledger.tend(list(self._held))
            self._tending.add_done_callback(_done("tend", self._note_tended))

    def _note_tended(self, tended: Tended) -> None:
        for seq in tended.lost:
            # Others have these now, or they were cancelled: what still runs of them must not go on.
            self._drop(seq)
        metrics = self._metrics
        metrics.retried.update(tended.taken_over)
        metrics.expired.update(tended.expired)
        for endpoint, count in tended.failed.items():
            metrics.failed[endpoint, "WORKER_LOST"] += count
        if tended.taken_over or tended.failed:
            log_event("jobs_taken_over", again=tended.taken_over.total(), failed=tended.failed.total())

    def _note_backlogs(self, backlogs: list[Backlog]) -> None:
        wall_s = self._clock.wall_s()
        self._metrics.backlogs = {
            row.endpoint: (row.waiting, row.running, 0.0 if row.oldest_s is None else max(0.0, wall_s - row.oldest_s))
            for row in backlogs
        }
        self._busy.update(row.endpoint for row in backlogs if row.waiting)
        self._pump()

    def _note_delivery_counts(self, counts: dict[tuple[str, str], int]) -> None:
        self._metrics.deliveries = counts

    def cancelled(self, id: bytes) -> None:
        """A job has been cancelled in the store: end it where it runs."""
        for seq, (job, _) in self._held.items():
            if job.id == id:
                self._drop(seq)
                break
        self._ended(id)

    def _drop(self, seq: int) -> None:
        held = self._held.get(seq)
        if held is None:
            return
        if held[1] is not None:
            held[1].abandon()
        self._free(held[0])

    # Taking.

    def come(self, endpoint: str) -> None:
        """A job of an endpoint has been accepted here."""
        self._busy.add(endpoint)
        self._pump()

    @property
    def _claiming(self) -> bool:
        return self._claim is not None

    def _pump(self) -> None:
        """Take jobs if there are any and there is room."""
        if self._claiming or self._stopping or not self._busy:
            return
        slots = self._slots()
        left_bytes = self._limits.in_flight_bytes - sum(len(job.body) for job, _ in self._held.values())
        if slots and (left_bytes > 0 or not self._held):
            self._busy -= slots.keys()  # who comes from now on is taken next time
            self._claim = self._ledger.claim(Wanted(slots, left_bytes))
            self._claim.add_done_callback(functools.partial(self._claimed, slots))

    def _slots(self) -> dict[str, int]:
        slots = {}
        for name in self._busy:
            most = self._limits.in_flight if not self._waiting(name) else 1
            if self._running[name] < most and self._is_served(name):
                slots[name] = most - self._running[name]
        return slots

    def _is_served(self, endpoint: str) -> bool:
        try:
            return self._router.resolve(endpoint).service.available
        except SalverError:
            return False

    def _claimed(self, slots: dict[str, int], claim: asyncio.Future[list[Claimed]]) -> None:
        self._claim = None
        try:
            jobs = claim.result()
        except SalverError as error:
            log_event("jobs_unavailable", level=logging.ERROR, code=error.code, problem=error.message)
            return
        except Exception as error:  # noqa: BLE001 - the next look tries again
            log_event("fault", level=logging.ERROR, error=error)
            return
        self._busy.update(job.endpoint for job in jobs if job.endpoint in slots)  # there may be more
        for job in jobs:
            self._run(job)
        self._tend()
        self._pump()

    # Running.

    def _run(self, job: Claimed) -> None:
        self._drop(job.seq)  # it was given back and is here again before that was heard
        self._running[job.endpoint] += 1
        self._held[job.seq] = (job, None)
        if self._stopping:
            self._settle(abandoned(job))
            return
        assert self._gateway is not None
        attempt = begin(job, self._door, self._gateway, self._limits, functools.partial(self._answered, job))
        if not attempt.answered:
            self._held[job.seq] = (job, attempt)

    def _answered(self, job: Claimed, answer: Answered | SalverError) -> None:
        held = self._held.get(job.seq)
        if held is None or held[0] is not job:
            return
        self._held[job.seq] = (job, None)
        gone = isinstance(answer, SalverError) and job.endpoint not in self._router.names()
        self._settle(abandoned(job) if gone else outcome_of(job, answer, self._limits))

    def _settle(self, outcome: Outcome) -> None:
        if self._closed:
            return  # it could not be recorded before the end: who comes next runs the job again
        self._ledger.settle(outcome).add_done_callback(functools.partial(self._settled, outcome))

    def _settled(self, outcome: Outcome, settled: asyncio.Future[JobState | None]) -> None:
        job = outcome.job
        # It may have been dropped meanwhile. What the outcome is worth the store says, not this process.
        is_held = self._held.get(job.seq, (None, None))[0] is job
        try:
            state = settled.result()
        except Exception as error:  # noqa: BLE001 - the outcome is kept until it can be recorded
            if not is_held:
                return
            code = error.code if isinstance(error, SalverError) else "INTERNAL"
            log_event("job_not_recorded", level=logging.ERROR, job=job.id.hex(), code=code, problem=str(error))
            self._loop.call_later(_STORE_PAUSE_S, self._settle, outcome)
            return
        if is_held:
            self._free(job)
        if state is not None:
            self._count(outcome, state)
            if state in FINAL:
                self._ended(job.id)
        elif is_held:
            log_event("job_outcome_dropped", level=logging.WARNING, job=job.id.hex(), attempt=job.attempt)
        self._pump()

    def _free(self, job: Claimed) -> None:
        del self._held[job.seq]
        self._running[job.endpoint] -= 1

    def _count(self, outcome: Outcome, state: JobState) -> None:
        metrics, endpoint = self._metrics, outcome.job.endpoint
        if state is JobState.DONE:
            metrics.done[endpoint] += 1
        elif state is JobState.FAILED:
            metrics.failed[endpoint, outcome.error.code if outcome.error else "INTERNAL"] += 1
        elif outcome.error is not None:
            metrics.retried[endpoint] += 1

    # The end.

    def stop_taking(self) -> None:
        """Take no more jobs; what runs goes on."""
        self._stopping = True

    def stop(self) -> None:
        """Look for jobs no more."""
        if self._timer is not None:
            self._timer.cancel()

    async def close(self, timeout_s: float) -> None:
        """Wait for what runs, give back what has not ended after `timeout_s`, and close the store."""
        self.stop_taking()
        until_s = self._clock.monotonic_s() + timeout_s
        while (self._held or self._claiming) and self._clock.monotonic_s() < until_s:  # noqa: ASYNC110 - once, at the end
            await asyncio.sleep(0.01)
        if self._claim is not None:
            # What it brings is given back as well, and for that the store must still be open.
            await asyncio.wait([self._claim])
        for job, attempt in list(self._held.values()):
            if attempt is not None:
                attempt.abandon()
                self._settle(abandoned(job))
        self.stop()
        self._closed = True
        await self._ledger.close()


def _done(what: str, act: Callable[[Any], None]) -> Callable[[asyncio.Future[Any]], None]:
    """Act on a result; a store that cannot be used now is logged and asked again at the next look."""

    def noted(future: asyncio.Future[Any]) -> None:
        try:
            act(future.result())
        except SalverError as error:
            log_event("jobs_unavailable", level=logging.ERROR, step=what, code=error.code, problem=error.message)
        except Exception as error:  # noqa: BLE001 - a fault in one look must not end the others
            log_event("fault", level=logging.ERROR, error=error)

    return noted
