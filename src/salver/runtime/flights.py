"""Identical requests under way: one runs, and all who ask the same meanwhile wait for its answer.

The first one leads. It is in the queue for all of them; those who join take no place there. Each keeps
its own deadline and may leave. The run goes on for as long as anyone waits for it, and when it ends
for a reason that is the leader's own - its deadline, its place in the queue - another one leads anew.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.request import CacheNote, Request, Response, Service
from salver.runtime.admission import QueueBounds, level_of
from salver.runtime.settlement import too_late
from salver.telemetry.metrics import VersionMetrics

__all__ = ["Flight", "Flights"]

_OF_THE_LEADER: Final = frozenset({"DEADLINE_EXCEEDED", "QUEUE_FULL", "OVERLOADED"})
"""Why a run ends that says nothing about the same inputs asked by somebody else."""
_LEAST_WAIT_S: Final = 0.001
"""The resolution of the loop's timers."""
_NEVER_S: Final = float("inf")


class _Waiter(asyncio.Future[Response]):
    """The answer that one caller waits for. A caller that cancels it has left, at once."""

    __slots__ = ("flight", "request")

    def __init__(self, flight: Flight, request: Request, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.flight: Flight | None = flight
        self.request = request

    def cancel(self, msg: Any | None = None) -> bool:
        if not super().cancel(msg):
            return False
        flight, self.flight = self.flight, None
        if flight is not None:
            flight.leave(self)
        return True

    def set_result(self, response: Response) -> None:
        # Whoever has been answered waits no more: without this the two would keep each other alive.
        self.flight = None
        super().set_result(response)

    def set_exception(self, error: type | BaseException) -> None:
        self.flight = None
        super().set_exception(error)


class Flight:
    """One run and all who wait for it, the leader among them until it is answered or leaves."""

    __slots__ = ("_flights", "key", "leader", "run", "waiting")

    def __init__(self, flights: Flights, key: bytes) -> None:
        self._flights = flights
        self.key = key
        self.waiting: dict[_Waiter, None] = {}
        self.leader: _Waiter
        self.run: asyncio.Future[Response]

    def leave(self, waiter: _Waiter) -> None:
        """`waiter` wants no answer any more; without anyone who does, what has not started must not start."""
        self.waiting.pop(waiter, None)
        self._flights.end_if_deserted(self)


class Flights:
    """The flights to one service. Lives on the event loop.

    `keep` is given each key and answer, unless a newer flight with that key has begun; it returns what to say
    of the answer.

    Each waiter is answered exactly once and counted once. The service counts every run as one answer or one
    failure, for its leader; for all others that is done here. `levels` has the bounds of each priority level, the
    most urgent first; there are none where all are equal.
    """

    def __init__(
        self,
        service: Service,
        metrics: VersionMetrics,
        clock: Clock,
        keep: Callable[[bytes, Response], CacheNote],
        levels: Sequence[QueueBounds] = (),
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._clock = clock
        self._keep = keep
        self._levels = levels
        self._loop = asyncio.get_running_loop()
        self._newest: dict[bytes, Flight] = {}
        self._joined: set[Flight] = set()
        """Those with deadlines to watch: beside the leader's, which is the service's business."""
        self._earliest_s = _NEVER_S
        self._timer: asyncio.TimerHandle | None = None

    def find(self, key: bytes, request: Request) -> Flight | None:
        """The newest flight under way with that key, unless it is less urgent than `request` is."""
        flight = self._newest.get(key)
        if flight is not None and self._level(request) < self._level(flight.leader.request):
            return None
        return flight

    def _level(self, request: Request) -> int:
        """The priority level of a request, 0 the most urgent, as the queue has it."""
        return level_of(request.priority, len(self._levels) or 1)

    def lead(self, key: bytes, request: Request) -> asyncio.Future[Response]:
        """Begin a flight; raises what the service refuses the request with, and then nothing has begun."""
        flight = Flight(self, key)
        waiter = _Waiter(flight, request, self._loop)
        self._begin(flight, waiter)
        flight.waiting[waiter] = None
        self._newest[key] = flight
        return waiter

    def join(self, flight: Flight, request: Request) -> asyncio.Future[Response]:
        """Wait for the answer of a flight whose leader asked the same."""
        # Equal ones are there already; these need not be held until then.
        request.inputs = flight.leader.request.inputs
        if self._levels:
            longest_s = self._levels[self._level(request)].deadline_s
            request.deadline_s = min(request.deadline_s, request.received_s + longest_s)
        waiter = _Waiter(flight, request, self._loop)
        flight.waiting[waiter] = None
        self._joined.add(flight)
        self._watch(request.deadline_s)
        return waiter

    def _begin(self, flight: Flight, leader: _Waiter) -> None:
        answer = self._service(leader.request)
        flight.leader = leader
        flight.run = answer if isinstance(answer, asyncio.Future) else asyncio.ensure_future(answer)
        flight.run.add_done_callback(functools.partial(self._landed, flight))

    def end_if_deserted(self, flight: Flight) -> None:
        """Cancel a run that nobody waits for."""
        if not flight.waiting and not flight.run.done():
            self._forget(flight)
            flight.run.cancel()

    def _forget(self, flight: Flight) -> bool:
        """Let nobody join any more; whether it was the newest with its key."""
        self._joined.discard(flight)
        if self._timer is not None and not self._joined:
            # Deadlines may be far away, and until then it would hold all that it leads to.
            self._timer.cancel()
            self._timer, self._earliest_s = None, _NEVER_S
        newest = self._newest.get(flight.key) is flight
        if newest:
            del self._newest[flight.key]
        return newest

    # Landing.

    def _landed(self, flight: Flight, run: asyncio.Future[Response]) -> None:
        if run.cancelled():
            # By us, and nobody is left; or else whoever waits must not do so for ever.
            self._forget(flight)
            self._fail(_taken(flight), SalverError("INTERNAL", "the run was cancelled"))
            return
        error = run.exception()
        if error is None:
            self._answer(flight, run.result())
        elif isinstance(error, SalverError) and error.code in _OF_THE_LEADER:
            self._lead_anew(flight, error)
        else:
            self._forget(flight)
            self._fail(_taken(flight), error, counted=1)

    def _answer(self, flight: Flight, response: Response) -> None:
        note = self._keep(flight.key, response) if self._forget(flight) else CacheNote("miss")
        uncounted = False
        waiting = _taken(flight)
        if flight.leader in waiting:
            waiting.remove(flight.leader)
            response.cache = note
            flight.leader.set_result(response)
            uncounted = True
        if not waiting:
            return
        shared, now_s = note._replace(source="shared"), self._clock.monotonic_s()
        for waiter in waiting:
            waiter.set_result(
                Response(
                    response.model,
                    response.version,
                    response.batch,
                    response.start,
                    response.stop,
                    response.warnings,
                    cache=shared,
                )
            )
            if uncounted:
                self._metrics.answered(now_s - waiter.request.received_s)
            # The run was counted for its leader, or in its absence for the first of the others.
            uncounted = True

    def _lead_anew(self, flight: Flight, error: SalverError) -> None:
        """The run has ended for its leader; for the others it begins again."""
        leader, now_s = flight.leader, self._clock.monotonic_s()
        if leader in flight.waiting:
            del flight.waiting[leader]
            leader.set_exception(error)
        else:
            self._metrics.withdrawn(error.code, now_s - leader.request.received_s)
        self._expire(flight, now_s)
        if not flight.waiting:
            self._forget(flight)
            return
        # Who is most urgent is refused last, so a refusal holds for all of them.
        chosen = min(flight.waiting, key=lambda waiter: (self._level(waiter.request), -waiter.request.deadline_s))
        try:
            self._begin(flight, chosen)
        except Exception as refusal:  # noqa: BLE001 - whatever the service raises is their answer
            self._forget(flight)
            self._fail(_taken(flight), refusal)

    def _fail(self, waiting: Iterable[_Waiter], error: BaseException, *, counted: int = 0) -> None:
        """Answer with `error`; so many of them have been counted by the service."""
        now_s = self._clock.monotonic_s()
        for waiter in waiting:
            waiter.set_exception(error)
            if counted:
                counted -= 1
            elif isinstance(error, SalverError):
                # Anything else is a fault of ours, and the doors count those.
                self._metrics.failed(error.code, now_s - waiter.request.received_s)

    # Deadlines: one timer for all, at the earliest.

    def _watch(self, deadline_s: float) -> None:
        if deadline_s < self._earliest_s:
            self._earliest_s = deadline_s
            if self._timer is not None:
                self._timer.cancel()
            wait_s = max(_LEAST_WAIT_S, deadline_s - self._clock.monotonic_s())
            self._timer = self._loop.call_later(wait_s, self._look)

    def _look(self) -> None:
        """Answer those whose deadline has passed, and wait for the next of those who wait now."""
        self._timer, self._earliest_s = None, _NEVER_S
        now_s = self._clock.monotonic_s()
        for flight in list(self._joined):
            self._expire(flight, now_s)
            self.end_if_deserted(flight)
        self._watch(min(map(_earliest_deadline_s, self._joined), default=_NEVER_S))

    def _expire(self, flight: Flight, now_s: float) -> None:
        for waiter in [each for each in flight.waiting if each.request.deadline_s <= now_s]:
            if waiter is not flight.leader:
                del flight.waiting[waiter]
                received_s = waiter.request.received_s
                self._fail([waiter], too_late(received_s, now_s, "it waited for the answer to an identical request"))

    @property
    def under_way(self) -> int:
        """How many keys have a flight."""
        return len(self._newest)


def _taken(flight: Flight) -> list[_Waiter]:
    """All who wait, for the last time."""
    waiting, flight.waiting = list(flight.waiting), {}
    return waiting


def _earliest_deadline_s(flight: Flight) -> float:
    return min((each.request.deadline_s for each in flight.waiting if each is not flight.leader), default=_NEVER_S)
