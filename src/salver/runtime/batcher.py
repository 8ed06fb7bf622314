"""What waits for a version, and which of it runs together next. Knows no loop and no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from salver.protocol.request import Request
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.runtime.batch import Entry
from salver.runtime.curve import ServiceCurve

__all__ = ["Batcher"]

_LATE_S: Final = 0.01
"""What timers and the loop may be late by, so that a wait ends so much before it must."""


class Batcher:
    """The queue of one version: first come, first served, in batches as large as may be.

    A batch holds requests of one shape, at most `max_batch` rows and, if the deployment bounds
    it, `max_cost`; a request that costs more runs alone. Requests whose caller has been
    answered or has gone are never part of one.
    """

    __slots__ = ("_again", "_batched", "_cost_input", "_curve", "_spec", "costed", "queue", "uniform")

    def __init__(self, spec: DeploymentSpec, manifest: VersionManifest, curve: ServiceCurve) -> None:
        self.queue: deque[Entry] = deque()
        self._again: deque[list[Entry]] = deque()
        self._spec = spec
        self._curve = curve
        self._batched = manifest.signature.batched
        self._cost_input = manifest.cost
        self.costed = bool(manifest.cost)
        """Whether a request's cost is anything but its rows."""
        self.uniform = all(-1 not in s.shape[1:] and not s.optional for s in manifest.signature.inputs)
        """Whether the signature lets any two requests share a batch."""

    def cost(self, request: Request) -> int:
        """What `request` counts against `max_cost`: the elements of the version's `cost` input, else its rows."""
        tensor = request.inputs.get(self._cost_input)
        return request.rows if tensor is None else tensor.size

    def shape_key(self, request: Request) -> object:
        """What must be equal for two requests to share a batch."""
        return tuple(sorted((name, tensor.shape[1:]) for name, tensor in request.inputs.items()))

    def __len__(self) -> int:
        return len(self.queue) + sum(map(len, self._again))

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

    def cut(self, now_s: float) -> list[Entry]:
        """Take the next batch from the queue; empty when nothing waits or a fuller batch is waited for."""
        queue = self.queue
        while queue and queue[0].answer.done():
            queue.popleft()
        if not queue or self.hold_s(now_s) > 0:
            return []
        if not self._batched:
            return [queue.popleft()]
        spec, first = self._spec, queue[0]
        max_rows, max_cost, shape_key = spec.max_batch, spec.max_cost, first.shape_key
        entries: list[Entry] = []
        passed: list[Entry] = []
        rows = cost = 0
        while queue:
            entry = queue.popleft()
            if entry.answer.done():
                continue
            if entry.shape_key != shape_key:
                passed.append(entry)
                continue
            rows += entry.request.rows
            cost += entry.cost
            if entries and (rows > max_rows or (max_cost and cost > max_cost)):
                passed.append(entry)
                break
            entries.append(entry)
        queue.extendleft(reversed(passed))
        return entries

    def hold_s(self, now_s: float) -> float:
        """Seconds for which a fuller batch is still worth waiting for; 0 to go ahead."""
        spec = self._spec
        if spec.max_wait_s <= 0 or not self._batched or not self.queue:
            return 0.0
        until_s = self.queue[0].enqueued_s + spec.max_wait_s
        if until_s <= now_s:
            return 0.0
        waiting = [entry for entry in self.queue if not entry.answer.done()]
        rows = sum(entry.request.rows for entry in waiting)
        if rows >= spec.max_batch or (spec.max_cost and sum(entry.cost for entry in waiting) >= spec.max_cost):
            return 0.0
        return max(0.0, min(until_s, self._latest_start_s(waiting, rows)) - now_s)

    def _latest_start_s(self, waiting: Iterable[Entry], rows: int) -> float:
        """When a batch of `waiting` must begin for each of them to be answered within its deadline.

        Where nothing was measured, half of the time that a request allows is left to the batch.
        """
        expected_s = self._curve.predict(rows)
        latest_s = float("inf")
        for entry in waiting:
            deadline_s = entry.request.deadline_s
            needed_s = (deadline_s - entry.enqueued_s) / 2 if expected_s is None else expected_s
            if deadline_s < float("inf"):
                latest_s = min(latest_s, deadline_s - needed_s)
        return latest_s - _LATE_S

    # Leaving.

    def drop_done(self) -> None:
        """Forget requests whose caller has been answered or has gone."""
        live = [entry for entry in self.queue if not entry.answer.done()]
        self.queue.clear()
        self.queue.extend(live)

    def waiting(self) -> list[Entry]:
        """Everything that waits, dropped or not."""
        return [entry for entries in (*self._again, self.queue) for entry in entries]

    def clear(self) -> list[Entry]:
        """Forget everything, and return it."""
        entries = self.waiting()
        self._again.clear()
        self.queue.clear()
        return entries
