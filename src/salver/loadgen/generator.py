"""Sends the requests of a plan and counts what comes back: one event loop, one processor."""

from __future__ import annotations

import asyncio
import gc
import itertools
import resource
import signal
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import numpy as np
import uvloop

from salver.clock import SYSTEM_CLOCK, Clock
from salver.loadgen.arrivals import Alarm, arrival_times
from salver.loadgen.connection import Connection, ReadingConnection
from salver.loadgen.plan import LoadPlan, Mode, Server
from salver.loadgen.report import LoadReport
from salver.loadgen.tally import BACKLOG_FULL, TIMEOUT, WRONG_ANSWER, Tally
from salver.protocol.errors import SalverError

__all__ = ["IsRight", "Progress", "run_load"]

_TICK_S: Final = 0.25
_CONNECT_TOGETHER: Final = 64
_CONNECT_AGAIN_S: Final = 0.1
_CONNECT_TIMEOUT_S: Final = 10.0
_SENT_AT_ONCE: Final = 256
"""Due requests sent before answers are looked at again, when the generator cannot keep up."""
_SPARE_DESCRIPTORS: Final = 64

IsRight = Callable[[int, bytes], bool]
"""Whether the body of an answer is right for the request of this number: 0 has the plan's `body`, 1 the next."""


class Progress(msgspec.Struct, frozen=True):
    """How far a run is; `rate_per_s` is that of successful answers since the last report."""

    phase: str
    """connecting, warming, measuring or finishing."""
    elapsed_s: float
    total_s: float
    ok: int
    failed: int
    rate_per_s: float


def run_load(
    plan: LoadPlan,
    *,
    tls: ssl.SSLContext | None = None,
    generator: np.random.Generator | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    is_right: IsRight | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> LoadReport:
    """Carry out `plan` and report; takes its warm-up and duration, and `timeout_s` more at most.

    An https URL is checked against `tls`, by default the usual authorities. `generator` draws
    the arrival times (default: from the plan's seed). `on_progress` is called about four times
    a second. `is_right` is shown each successful answer; one it denies counts as an error,
    WRONG_ANSWER. Ctrl-C in the main thread ends the run early; the report says so. REQUIRES a
    `clock` on the kernel's monotonic time and a thread without a running event loop. Raises
    INVALID_SETTING for a plan that cannot be carried out, NOT_READY when no server answers.
    """
    server = plan.check()
    _allow_descriptors(plan.connections)
    context = (tls or ssl.create_default_context()) if server.tls else None
    generator = np.random.default_rng(plan.seed) if generator is None else generator
    run = _Run(plan, server, generator, on_progress, is_right, clock)
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGINT)
    gc.collect()
    gc.freeze()  # collections in the middle of a measurement then look at little
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run.carry_out(context, heed_interrupt=in_main_thread))
    finally:
        gc.unfreeze()
        if in_main_thread and previous is not None:
            signal.signal(signal.SIGINT, previous)


def _allow_descriptors(connections: int) -> None:
    wanted = connections + _SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SalverError(
            "INVALID_SETTING",
            f"{connections} connections need {wanted} open files; this process may have {hard}",
            f"use at most {max(hard - _SPARE_DESCRIPTORS, 1)} connections, or raise the limit (ulimit -n)",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Run:
    """One run of a plan. Owns its connections; everything happens on the event loop."""

    def __init__(
        self,
        plan: LoadPlan,
        server: Server,
        generator: np.random.Generator,
        on_progress: Callable[[Progress], None] | None,
        is_right: IsRight | None,
        clock: Clock,
    ) -> None:
        self._plan = plan
        self._server = server
        self._requests = itertools.cycle(enumerate(plan.requests(server)))
        self._generator = generator
        self._on_progress = on_progress
        self._is_right = is_right
        self._now_s = clock.monotonic_s
        self._closed_loop = plan.mode is Mode.CLOSED
        self._tally = Tally(plan, generator)
        self._start_s = self._end_s = float("inf")
        self._connections: set[Connection] = set()
        self._free: deque[Connection] = deque()
        self._backlog: deque[float] = deque()
        self._in_flight = 0
        self._interrupted = False
        self._times: Iterator[float] = iter(())
        self._next_s = float("inf")
        self._last_tick: tuple[float, int] = (0.0, 0)

    async def carry_out(self, tls: ssl.SSLContext | None, *, heed_interrupt: bool) -> LoadReport:
        self._loop = asyncio.get_running_loop()
        self._tls = tls
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._opening: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._alarm = Alarm(self._loop, self._ring)
        if heed_interrupt:
            self._loop.add_signal_handler(signal.SIGINT, self._interrupt)
        try:
            await self._connect()
            if not self._done.done():
                self._begin()
            await self._done
            if not self._interrupted:
                self._tell_progress("finishing", float("inf"))
            waiting = [connection.intended_s for connection in self._connections if connection.busy]
            return self._tally.report(self._now_s(), [*waiting, *self._backlog], interrupted=self._interrupted)
        finally:
            await self._clean_up()

    def _interrupt(self) -> None:
        self._interrupted = True
        self._finish()

    def _finish(self) -> None:
        if not self._done.done():
            self._done.set_result(None)

    async def _clean_up(self) -> None:
        self._finish()  # nothing is opened again from here on
        self._alarm.close()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in list(self._connections):
            connection.abort(None)
        await asyncio.sleep(0)

    # Connections.

    async def _connect(self) -> None:
        """Open all connections, the first one alone so that a wrong address is one clear error."""
        self._tell_progress("connecting", 0.0)
        left = self._plan.connections
        together = 1
        while left and not self._done.done():
            opening = [self._loop.create_task(self._open()) for _ in range(min(together, left))]
            self._opening.update(opening)
            both: list[asyncio.Future[Any]] = [self._done, *opening]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not self._done.done():
                results = await asyncio.gather(*opening, return_exceptions=True)
                self._judge_opened([result for result in results if isinstance(result, BaseException)])
                self._opening.difference_update(opening)
            left -= len(opening)
            together = _CONNECT_TOGETHER

    def _judge_opened(self, problems: list[BaseException]) -> None:
        for problem in problems:
            if not isinstance(problem, OSError):
                raise problem
            if not self._connections:
                raise _unreachable(self._plan.url, problem) from problem
            self._tally.connect_failures += 1
            self._open_later(_CONNECT_AGAIN_S)

    async def _open(self) -> Connection:
        server = self._server
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            _, connection = await self._loop.create_connection(
                lambda: ReadingConnection(self) if self._is_right else Connection(self),
                server.host,
                server.port,
                ssl=self._tls,
                server_hostname=server.host if self._tls else None,
            )
        if connection.closing:
            raise ConnectionResetError("closed at once")
        self._connections.add(connection)
        return connection

    def _open_later(self, delay_s: float) -> None:
        task = self._loop.create_task(self._open_again(delay_s))
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[Any]) -> None:
        self._opening.discard(task)
        problem = None if task.cancelled() else task.exception()
        if problem is not None and not self._done.done():
            self._done.set_exception(problem)

    async def _open_again(self, delay_s: float) -> None:
        while True:
            await asyncio.sleep(delay_s)
            delay_s = _CONNECT_AGAIN_S
            try:
                connection = await self._open()
            except OSError:
                self._tally.connect_failures += 1
            else:
                if self._start_s <= self._now_s():
                    self._go_on(connection, self._now_s())
                return

    # Sending.

    def _begin(self) -> None:
        self._start_s = now_s = self._now_s()
        self._tally.from_s = now_s + self._plan.warmup_s
        self._end_s = self._tally.end_s = self._tally.from_s + self._plan.duration_s
        self._last_tick = (now_s, self._tally.answers)
        if self._closed_loop:
            for connection in list(self._connections):
                self._go_on(connection, now_s)
        else:
            self._free.extend(self._connections)
            plan = self._plan
            self._times = arrival_times(plan.arrivals, plan.rate_per_s, now_s, self._generator)
            self._next_s = next(self._times)
            self._alarm.set(self._next_s)
        self._tick()

    def _ring(self) -> None:
        """Send what is due, and set the alarm for what is next."""
        due_s, end_s = self._next_s, self._end_s
        for _ in range(_SENT_AT_ONCE):
            now_s = self._now_s()
            if due_s > now_s or due_s >= end_s:
                break
            self._tally.due(due_s, now_s)
            self._arrive(due_s)
            due_s = next(self._times)
        self._next_s = due_s
        if due_s < end_s:
            self._alarm.set(due_s)

    def _arrive(self, due_s: float) -> None:
        free = self._free
        while free:
            connection = free.popleft()
            if not connection.closing:
                self._send(connection, due_s)
                return
        if len(self._backlog) >= self._plan.max_backlog:
            self._tally.gave_up(due_s, due_s, BACKLOG_FULL)
            return
        self._backlog.append(due_s)
        self._tally.backlog_max = max(self._tally.backlog_max, len(self._backlog))

    def _send(self, connection: Connection, intended_s: float) -> None:
        self._in_flight += 1
        self._tally.left(intended_s)
        number, request = next(self._requests)
        connection.send(request, number, intended_s)

    def _go_on(self, connection: Connection, now_s: float) -> None:
        """Give a connection without a request its next one."""
        if connection.closing:
            return
        if self._backlog:
            self._send(connection, self._backlog.popleft())
        elif self._closed_loop and now_s < self._end_s:
            self._send(connection, now_s)
        else:
            self._free.append(connection)
            self._settle(now_s)

    # What comes back.

    def answered(self, connection: Connection, problem: str | None) -> None:
        """See `salver.loadgen.connection.Owner`."""
        now_s = self._now_s()
        self._in_flight -= 1
        if problem is None and self._is_right is not None:
            assert isinstance(connection, ReadingConnection)
            if not self._is_right(connection.number, connection.body):
                problem = WRONG_ANSWER
        if problem is not None and problem not in self._tally.words:
            self._tally.words[problem] = connection.said()
        self._tally.answered(connection.intended_s, now_s, problem)
        self._go_on(connection, now_s)

    def lost(self, connection: Connection, problem: str | None) -> None:
        """See `salver.loadgen.connection.Owner`."""
        if connection not in self._connections:
            return  # lost while it was being opened
        now_s = self._now_s()
        self._connections.discard(connection)
        if problem is not None:
            self._in_flight -= 1
            self._tally.gave_up(connection.intended_s, now_s, problem)
        if self._done.done():
            return
        if now_s < self._end_s or self._backlog:
            self._tally.reconnects += 1
            # One that never answered is not tried again at once: the server may be closing them all.
            self._open_later(0.0 if connection.used else _CONNECT_AGAIN_S)
        else:
            self._settle(now_s)

    def _settle(self, now_s: float) -> None:
        if now_s >= self._end_s and not self._in_flight and not self._backlog:
            self._finish()

    def _tick(self) -> None:
        """Four times a second: give up what waits too long, tell how far we are, perhaps end."""
        now_s = self._now_s()
        horizon_s = now_s - self._plan.timeout_s
        while self._backlog and self._backlog[0] < horizon_s:
            self._tally.gave_up(self._backlog.popleft(), now_s, TIMEOUT)
        for connection in list(self._connections):
            if connection.busy and connection.intended_s < horizon_s:
                connection.abort(TIMEOUT)
        self._tally.watch_processor(now_s)
        try:
            self._tell_progress(self._phase(now_s), now_s - self._start_s)
        except Exception as error:  # noqa: BLE001 - the caller's own, and the caller gets it
            if not self._done.done():
                self._done.set_exception(error)
        self._settle(now_s)
        wait_s = min([_TICK_S, *(at_s - now_s for at_s in (self._tally.from_s, self._end_s) if at_s > now_s)])
        self._timer = self._loop.call_later(wait_s + 0.001, self._tick)

    def _phase(self, now_s: float) -> str:
        if now_s < self._tally.from_s:
            return "warming"
        return "measuring" if now_s < self._end_s else "finishing"

    def _tell_progress(self, phase: str, elapsed_s: float) -> None:
        if self._on_progress is None:
            return
        now_s = self._now_s()
        answers = self._tally.answers
        (before_s, before), self._last_tick = self._last_tick, (now_s, answers)
        rate_per_s = (answers - before) / (now_s - before_s) if now_s > before_s else 0.0
        total_s = self._plan.warmup_s + self._plan.duration_s
        self._on_progress(Progress(phase, min(elapsed_s, total_s), total_s, answers, self._tally.failed, rate_per_s))


def _unreachable(url: str, problem: OSError) -> SalverError:
    if isinstance(problem, ssl.SSLCertVerificationError):
        return SalverError(
            "REFUSED_BY_POLICY",
            f"the certificate of {url} is not trusted: {problem.verify_message}",
            "give the authority that signed it",
        )
    what = problem.strerror or str(problem) or "no answer in time"
    return SalverError("NOT_READY", f"no connection to {url}: {what}", "is `salver serve` running there?")
