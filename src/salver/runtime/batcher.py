"""What runs together next, and when. Knows no loop and no clock."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from salver.protocol.request import Request, Response
from salver.protocol.tables import BatchPolicy, DeploymentSpec, VersionManifest
from salver.runtime.admission import Admission, level_of, queue_bounds
from salver.runtime.batch import Entry
from salver.runtime.classes import Classes
from salver.runtime.curve import Line, ServiceCurve
from salver.runtime.policies import Rules, Traffic, hold_until_s
from salver.runtime.queue import Bounds, Gathering, WaitingQueue
from salver.runtime.steering import SteeredLimit

__all__ = ["Batcher"]

_LATE_S: Final = 0.01
"""What timers and the loop may be late by, so that a wait ends so much before it must."""
_UNBOUNDED: Final = 2**53
_WEIGHT: Final = 0.05
"""Of a new gap between arrivals against the old average: about forty arrivals to follow a change."""


class Batcher:
    """The queue of one version, and its cutting into batches by the deployment's policy.

    A batch holds requests of one class, at most `max_batch` rows and, if the deployment bounds
    it, `max_cost`; with an objective, fewer: see `SteeredLimit`. Requests whose caller has been
    answered or has gone are never part of one.
    """

    __slots__ = (
        "_again",
        "_batched",
        "_curve",
        "_gap_s",
        "_last_s",
        "_rules",
        "_spec",
        "admission",
        "bounds_of",
        "classes",
        "holds",
        "limit",
        "plain",
        "queue",
    )

    def __init__(self, spec: DeploymentSpec, manifest: VersionManifest, curve: ServiceCurve) -> None:
        self.bounds_of = queue_bounds(spec)
        """What each priority level may queue."""
        self.queue = WaitingQueue(len(self.bounds_of))
        self.classes = Classes(manifest)
        self.limit = SteeredLimit(
            curve, spec.slo_s, (spec.max_cost or _UNBOUNDED) if self.classes.costed else spec.max_batch
        )
        self.admission = Admission(spec, self.bounds_of, self.queue, self.limit, curve)
        self._again: deque[list[Entry]] = deque()
        self._spec = spec
        self._curve = curve
        self._batched = manifest.signature.batched
        self._rules = Rules(spec.policy, spec.max_wait_s, spec.min_batch)
        self.holds = spec.policy is not BatchPolicy.EAGER and self._batched
        """Whether a batch may ever wait although a replica is free."""
        self.plain = (
            self.classes.uniform
            and not self.classes.costed
            and not spec.priorities
            and not spec.slo_s
            and not self.holds
        )
        """Whether requests differ in nothing but their rows and tenants."""
        self._gap_s = self._last_s = float("inf")

    def __len__(self) -> int:
        return len(self.queue) + sum(map(len, self._again))

    # In.

    def level_of(self, request: Request) -> int:
        """The priority level of a request."""
        return level_of(request.priority, len(self.bounds_of))

    def entry(self, request: Request, answer: asyncio.Future[Response], now_s: float) -> Entry:
        """The entry of a request that comes now; not queued yet. Where all are `plain` one can be made without this."""
        level = self.level_of(request) if self._spec.priorities else 0
        class_key, cost = self.classes.of(request)
        if self._spec.priorities:
            request.deadline_s = min(request.deadline_s, request.received_s + self.bounds_of[level].deadline_s)
        due_s = request.deadline_s
        if self._spec.slo_s:
            due_s = min(due_s, request.received_s + self._spec.slo_s)
        if self._rules.policy is BatchPolicy.PREDICTIVE:
            self._note_arrival(now_s, request.rows)
        return Entry(request, answer, now_s, cost, class_key, level, due_s)

    def _note_arrival(self, now_s: float, rows: int) -> None:
        gap_s = (now_s - self._last_s) / rows if self._last_s < float("inf") else float("inf")
        self._gap_s = gap_s if self._gap_s == float("inf") else self._gap_s + _WEIGHT * (gap_s - self._gap_s)
        self._last_s = now_s

    # Once more.

    def halve(self, entries: list[Entry]) -> None:
        """Run `entries` again before anything else, in two batches."""
        middle = len(entries) // 2
        self._again.extendleft((entries[middle:], entries[:middle]))

    def again_alone(self, entry: Entry) -> None:
        """Run `entry` again before the queue, in a batch of its own."""
        self._again.append([entry])

    def cut_again(self) -> list[Entry]:
        """Take the next group that must run again; empty when there is none."""
        while self._again:
            entries = [entry for entry in self._again.popleft() if not entry.answer.done()]
            if entries:
                return entries
        return []

    # In turn.

    def bounds(self) -> Bounds:
        """What a batch may hold at present."""
        size = self.limit.size()
        if self.classes.costed:
            return Bounds(self._spec.max_batch, 0 if size >= _UNBOUNDED else size)
        return Bounds(size, self._spec.max_cost)

    def cut(self, now_s: float) -> list[Entry]:
        """Take the next batch from the queue; empty when nothing waits or a fuller batch is waited for."""
        if not self._batched:
            return self.queue.take_one()
        bounds = self.bounds()
        if self.holds and self.hold_s(now_s, bounds) > 0:
            return []
        return self.queue.take(bounds)

    def hold_s(self, now_s: float, bounds: Bounds | None = None) -> float:
        """Seconds for which a fuller batch is still worth waiting for; 0 to go ahead."""
        if not self.holds:
            return 0.0
        bounds = bounds or self.bounds()
        until_s = self._until_s(bounds)
        if until_s <= now_s:
            # Before it goes: those that have left may have made it look fuller than it is.
            self.queue.drop_done()
            until_s = self._until_s(bounds)
        return max(0.0, until_s - now_s)

    def _until_s(self, bounds: Bounds) -> float:
        gathered = self.queue.gathering()
        if gathered is None:
            return float("-inf")
        line, traffic = self._curve.line(), Traffic(self._gap_s, self._last_s)
        if line is not None and self.classes.costed:
            # Policies count rows, here at what the gathered ones cost on average.
            line = Line(line.a_s, line.b_s * gathered.cost / gathered.rows)
        return hold_until_s(self._rules, gathered, bounds, self._latest_start_s(gathered), line, traffic)

    def _latest_start_s(self, gathered: Gathering) -> float:
        """When a batch must begin for each of its requests to be answered in time.

        Where nothing was measured, half of the time that is allowed is left to the batch.
        """
        if gathered.due_s == float("inf"):
            return gathered.due_s
        expected_s = self._curve.expect(gathered.cost if self.classes.costed else gathered.rows)
        if expected_s is None:
            expected_s = (gathered.due_s - gathered.oldest_s) / 2
        return gathered.due_s - expected_s - _LATE_S

    # Leaving.

    def waiting(self) -> list[Entry]:
        """Everything that waits, dropped or not."""
        return [*(entry for entries in self._again for entry in entries), *self.queue]

    def clear(self) -> list[Entry]:
        """Forget everything, and return it."""
        entries = self.waiting()
        self._again.clear()
        self.queue.clear()
        return entries
