"""Whether a request may queue: refused at the door, at once, or not at all.

What is refused costs next to nothing, and the time that is left goes to answers that will be in
time. That keeps the goodput of an overloaded server near its peak.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec
from salver.runtime.batch import Entry
from salver.runtime.curve import Line, ServiceCurve
from salver.runtime.queue import WaitingQueue
from salver.runtime.steering import SteeredLimit

__all__ = ["Admission", "Ahead", "QueueBounds", "level_of", "queue_bounds", "wait_s"]

_LONGEST_RETRY_S: Final = 60.0


class QueueBounds(NamedTuple):
    """What one priority level may queue, the deployment's own settings filled in."""

    max_queue: int
    max_age_s: float
    deadline_s: float


def queue_bounds(spec: DeploymentSpec) -> tuple[QueueBounds, ...]:
    """The bounds of every priority level, the most urgent first; one where the deployment has no levels."""
    plain = QueueBounds(spec.max_queue, spec.max_age_s, spec.deadline_s)
    return tuple(
        QueueBounds(
            level.max_queue or plain.max_queue,
            level.max_age_s or plain.max_age_s,
            level.deadline_s or plain.deadline_s,
        )
        for level in spec.priorities
    ) or (plain,)


def level_of(priority: int, levels: int) -> int:
    """The level of a request, 0 the most urgent: its own, or the middle one (of two, the less urgent) if it says none.

    >>> [level_of(priority, 3) for priority in (0, 1, 2, 3, 9)]
    [1, 0, 1, 2, 2]
    """
    return min(priority or levels // 2 + 1, levels) - 1


class Ahead(NamedTuple):
    """What is between a newcomer and its batch."""

    cost: float
    """Of the requests that will run before it."""
    running_s: float
    """Until a replica is free; 0 when one is."""


def wait_s(ahead: Ahead, line: Line, batch_size: int, replicas: int) -> float:
    """How long a newcomer will wait for its batch to begin, with batches of `batch_size` on all replicas.

    >>> round(wait_s(Ahead(cost=64, running_s=0.005), Line(0.010, 0.001), batch_size=32, replicas=1), 6)
    0.089
    """
    batches = ahead.cost // max(1, batch_size)
    return ahead.running_s + (batches * line.a_s + batches * batch_size * line.b_s) / max(1, replicas)


class Admission:
    """The door of one version's queue."""

    __slots__ = ("_bounds", "_curve", "_guards_age", "_limit", "_queue", "_spec", "guards_wait")

    def __init__(
        self,
        spec: DeploymentSpec,
        bounds: tuple[QueueBounds, ...],
        queue: WaitingQueue,
        limit: SteeredLimit,
        curve: ServiceCurve,
    ) -> None:
        self._spec = spec
        self._bounds = bounds
        self._queue = queue
        self._limit = limit
        self._curve = curve
        self._guards_age = any(level.max_age_s for level in bounds)
        self.guards_wait = bool(spec.slo_s or self._guards_age)
        """Whether anything but the length of the queue keeps requests out."""

    def check_wait(self, entry: Entry, now_s: float, running_s: float, replicas: int) -> None:
        """Raise OVERLOADED for a request that would be answered too late, or while others wait for too long.

        `running_s` is until a replica is free.
        """
        if self._guards_age:
            self._check_age(entry.level, now_s)
        line = self._curve.estimate()
        if not self._spec.slo_s or line is None:
            return
        ahead = Ahead(self._queue.cost_ahead(entry.level, entry.request.tenant), running_s)
        size = self._limit.size()
        waits_s = now_s - entry.request.received_s + wait_s(ahead, line, size, replicas)
        own_s, budget_s = line.seconds(max(entry.cost, min(size, ahead.cost + entry.cost))), self._limit.budget_s
        # One that would be late without any wait is not refused for that: no load is to blame.
        left_s = budget_s - own_s if own_s < budget_s else budget_s
        if waits_s > left_s:
            raise SalverError(
                "OVERLOADED",
                f"an answer of {self._spec.endpoint} would take about {waits_s + own_s:.3f} s; "
                f"its objective is {self._spec.slo_s:g} s",
                "retry later, add replicas, or raise --slo",
                retry_after_s=_bounded(waits_s - left_s),
            )

    def _check_age(self, level: int, now_s: float) -> None:
        most_s, oldest_s = self._bounds[level].max_age_s, self._queue.oldest_s(level)
        if most_s and oldest_s is not None and now_s - oldest_s > most_s:
            raise SalverError(
                "OVERLOADED",
                f"requests{self._of(level)} for {self._spec.endpoint} have waited {now_s - oldest_s:.3f} s; "
                f"newcomers are refused beyond {most_s:g} s",
                f"retry later, add replicas, or raise {self._setting(level, 'max_age_s', '--max-age')}",
                retry_after_s=_bounded(now_s - oldest_s),
            )

    def refusal(self, level: int, replicas: int) -> SalverError:
        """What somebody is told for whom there is no room."""
        return SalverError(
            "QUEUE_FULL",
            f"{self._queue.waiting(level)} requests{self._of(level)} wait for {self._spec.endpoint}; "
            f"at most {self._bounds[level].max_queue} may",
            f"retry later, add replicas, or raise {self._setting(level, 'max_queue', '--max-queue')}",
            retry_after_s=_bounded(self._drained_s(level, replicas)),
        )

    def _of(self, level: int) -> str:
        return f" of priority {level + 1}" if self._spec.priorities else ""

    def _setting(self, level: int, name: str, option: str) -> str:
        """What bounds a level: its own setting, or else the deployment's."""
        levels = self._spec.priorities
        return f"{name} of its --priority" if levels and getattr(levels[level], name) else option

    def _drained_s(self, level: int, replicas: int) -> float | None:
        """In how many seconds what waits on a level, and before it, will have run."""
        line = self._curve.estimate()
        if line is None:
            return None
        waiting, size = self._queue.cost_until(level), self._limit.size()
        return wait_s(Ahead(waiting, 0.0), line, size, replicas) + line.seconds(min(size, waiting % size))


def _bounded(seconds: float | None) -> float | None:
    return None if seconds is None or not math.isfinite(seconds) else min(seconds, _LONGEST_RETRY_S)
