"""Sessions: sequences of requests whose model keeps a state between them. A Service over pools of one replica each.

A session is pinned to the replica that holds its state: each replica has a pool of its own, and a table
knows which. The steps of a session run in the order in which they came, one at a time; steps of different
sessions share batches.

A step that failed without having run changes nothing, and those that waited behind it are not run. One
that may have run unheard, because its caller left or its deadline passed, leaves the session in doubt: the
next step carries how many steps there should have been, and the model's side knows whether that is so
(`salver.runtime.states`).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Sequence
from typing import Final

import msgspec

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.runtime.curve import ServiceCurve
from salver.runtime.pool import Pool
from salver.runtime.replica import Replica
from salver.runtime.session_answer import StepAnswer
from salver.runtime.session_table import Key, OpenSession, SessionTable, Shard, shown
from salver.runtime.settlement import too_late
from salver.runtime.states import STEP_INPUT, step_tensor
from salver.runtime.watching import WATCH_S
from salver.telemetry.logs import log_event
from salver.telemetry.metrics import SessionCounts, VersionMetrics

__all__ = ["Serving", "Sessions", "pools_of"]

_SWEEP_S: Final = 0.25
"""How often idle sessions and dead replicas are looked for."""
_LONGEST_LINE: Final = 64
"""Steps of one session that wait at most."""
_LONGEST_DRAIN_S: Final = 3600.0
_NOT_RUN: Final = frozenset({"QUEUE_FULL", "OVERLOADED", "OUTSIDE_PROFILE"})
"""Errors of a pool after which a step has certainly not run."""
_RAISED: Final = frozenset({"MODEL_ERROR", "BAD_INPUT"})
"""Errors of the model's own code, after which the state is as it was."""
_IN_DOUBT: Final = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "NOT_READY"})
"""What may have befallen a step while it ran."""
_WORKER_DIED: Final = frozenset({"WORKER_LOST", "POISON_INPUT"})


class Sessions:
    """The sessions of one version behind an endpoint, and the pools that hold their state. Lives on the event loop.

    To whoever loads and frees versions it looks like one `Pool`.
    """

    def __init__(self, spec: DeploymentSpec, manifest: VersionManifest, metrics: VersionMetrics, clock: Clock) -> None:
        self.spec = spec
        self.manifest = manifest
        alone = msgspec.structs.replace(spec, replicas=1, max_queue=-(-spec.max_queue // spec.replicas))
        self.pools = [Pool(alone, manifest, metrics, clock) for _ in range(spec.replicas)]
        """One for each replica."""
        self._metrics = metrics
        metrics.sessions = counts = metrics.sessions or SessionCounts()
        self._table = SessionTable(spec, map(Shard, self.pools), counts)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._lined: set[OpenSession] = set()
        self._waiting = 0
        self._before: Sessions | None = None
        self._replaced = self._stopped = False
        self._emptied = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    # The request's side.

    def __call__(self, request: Request) -> asyncio.Future[Response]:
        """Answer one step; see `Service`.

        Raises SESSION_UNKNOWN, SESSION_LOST, TOO_MANY_SESSIONS, QUEUE_FULL for a session with too many
        steps waiting, INVALID_PARAMETER for a request that is no step, and what a pool raises.
        """
        step = request.sequence
        if step is None:
            raise SalverError(
                "INVALID_PARAMETER", f"{self.spec.endpoint} keeps state for sessions; the request has none"
            )
        if request.rows != 1:
            raise SalverError("TOO_MANY_ROWS", f"the request has {request.rows} rows; a step of a session has one")
        now_s = self._clock.monotonic_s()
        key: Key = (request.tenant, object() if step.id is None else step.id)
        session = self._table.find(key, now_s)
        if session is None:
            before = self._before
            elsewhere = before._table.find(key, now_s) if before is not None else None
            if not step.start:
                if before is None or elsewhere is None:
                    raise self._table.absent(key, now_s)
                return before(request)
            session = self._begin(key, now_s)
            if before is not None and elsewhere is not None:
                before._table.supersede(elsewhere)
        answer = StepAnswer(request, step, self._loop, now_s)
        if session.running is None:
            self._hand_over(session, answer, now_s)
        else:
            self._line_up(session, answer)
        return answer

    def _begin(self, key: Key, now_s: float) -> OpenSession:
        session = self._table.begin(key, now_s)
        if self._timer is None:
            self._timer = self._loop.call_later(_SWEEP_S, self._sweep)
        return session

    # Steps, one after the other.

    def _hand_over(self, session: OpenSession, answer: StepAnswer, now_s: float) -> None:
        """Give a step to the session's pool; raises what that refuses it with, and loses a session that begins so."""
        request, step, shard = answer.request, answer.step, session.shard
        vacated = shard.vacated.popleft() if shard.vacated else -1
        done = 0 if step.start else session.steps
        order = step_tensor(session.place, session.number, done, ends=step.end, vacated=vacated)
        request.inputs = {**request.inputs, STEP_INPUT: order}
        try:
            inner = shard.pool(request)
        except SalverError as error:
            self._untold(shard, vacated)
            if step.start:
                self._table.lose(session, _first_failed(error.code), now_s)
            raise
        session.running = answer
        answer.turn_s = now_s - answer.since_s
        answer.inner = inner
        inner.add_done_callback(functools.partial(self._settled, session, answer, vacated))

    def _untold(self, shard: Shard, vacated: int) -> None:
        """What a step was to tell may not have been heard; telling it twice does no harm."""
        if vacated >= 0:
            shard.vacated.append(vacated)

    def _line_up(self, session: OpenSession, answer: StepAnswer) -> None:
        line = session.line
        if len(line) >= _LONGEST_LINE or self._waiting >= self.spec.max_queue:
            raise SalverError(
                "QUEUE_FULL",
                f"{len(line)} steps of session {shown(session.key)} wait already, and {self._waiting} of all sessions",
                "send a step when the one before is answered",
            )
        line.append(answer)
        self._waiting += 1
        if not self._lined:
            # Deadlines are to be looked at more often from now on.
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(WATCH_S, self._sweep)
        self._lined.add(session)

    def _settled(self, session: OpenSession, answer: StepAnswer, vacated: int, inner: asyncio.Future[Response]) -> None:
        """The pool is done with a step, one way or the other."""
        now_s = self._clock.monotonic_s()
        session.running = None
        self._table.used(session, now_s)
        error = None if inner.cancelled() else inner.exception()
        skips = ""
        if error is None and not inner.cancelled():
            self._stepped(session, answer)
            self._tell(session, answer, inner.result(), now_s)
        else:
            self._untold(session.shard, vacated)
            code = "CANCELLED" if error is None else error.code if isinstance(error, SalverError) else "INTERNAL"
            skips = f"the step before this one failed with {code}"
            cause = self._cause_of_loss(session, answer, code)
            if cause:
                self._table.lose(session, cause, now_s)
                error = self._retold(session, answer, error, now_s)
            if error is not None and not answer.done():
                answer.set_exception(error)
        if session.line:
            self._go_on(session, skips, now_s)
        if self._replaced:
            self._note_emptied()

    def _tell(self, session: OpenSession, answer: StepAnswer, response: Response, now_s: float) -> None:
        """Answer a step that has run."""
        if answer.done():
            return
        if session.unwritten and not answer.step.start:
            # Its state had gone on with a step that its client was told has failed.
            lost = self._table.absent(session.key, now_s)
            self._metrics.unwritten(lost.code, now_s - answer.request.received_s)
            answer.set_exception(lost)
            return
        response.on_unwritten = functools.partial(self._unwritten, session)
        answer.set_result(response.waited("turn", answer.turn_s) if answer.turn_s else response)

    def _unwritten(self, session: OpenSession) -> None:
        """A door cannot write the answer to a step: the state is one step further than its client will know."""
        running = session.running
        if running is None or not running.step.start:
            session.unwritten = running is not None
            self._table.lose(session, "the answer to a step could not be written", self._clock.monotonic_s())
            if self._replaced:
                self._note_emptied()

    def _stepped(self, session: OpenSession, answer: StepAnswer) -> None:
        """A step has run and is answered."""
        if answer.step.end:
            self._table.end(session)
            return
        if answer.step.start:
            session.steps = 0
            session.generation = session.shard.generation()
        session.steps += 1
        session.in_doubt = False

    def _cause_of_loss(self, session: OpenSession, answer: StepAnswer, code: str) -> str:
        """Why a failed step costs its session; empty if the state is as it was, or that is yet to be seen."""
        if answer.step.start:
            return _first_failed(code)
        if code in _WORKER_DIED or session.generation != session.shard.generation():
            return self._table.death()
        if code in _RAISED:
            return "a step has run whose answer nobody had" if session.in_doubt else ""
        if code in _IN_DOUBT:
            session.in_doubt = True
            return ""
        return "" if code in _NOT_RUN else f"a step failed with {code}"

    def _retold(
        self, session: OpenSession, answer: StepAnswer, error: BaseException | None, now_s: float
    ) -> BaseException | None:
        """What the caller of a step is told that found its session's state gone."""
        told_otherwise = isinstance(error, SalverError) and error.code in (*_WORKER_DIED, *_RAISED)
        if not isinstance(error, SalverError) or not told_otherwise or answer.step.start:
            return error
        lost = self._table.absent(session.key, now_s)
        seconds = now_s - answer.request.received_s
        self._metrics.withdrawn(error.code, seconds)
        self._metrics.failed(lost.code, seconds)
        return lost

    def _go_on(self, session: OpenSession, skips: str, now_s: float) -> None:
        """Hand over the next step of the line. What may not run, for `skips` or for want of a session, is answered."""
        line = session.line
        while line:
            answer = line.popleft()
            self._waiting -= 1
            if answer.done():
                # It expired, or its caller went. It did not run, so the next must not.
                skips = skips or "the step before this one was withdrawn"
                continue
            try:
                self._require_turn(session, answer, skips, now_s)
                self._hand_over(session, answer, now_s)
                break
            except SalverError as error:
                skips = skips or f"the step before this one failed with {error.code}"
                self._fail(answer, error, now_s)
        if not line:
            self._lined.discard(session)

    def _require_turn(self, session: OpenSession, answer: StepAnswer, skips: str, now_s: float) -> None:
        """Raise why a step of the line may not run; a first step always may, and begins its session anew."""
        if answer.step.start:
            if session not in self._table:
                self._table.open(session, now_s)
        elif session not in self._table:
            raise self._table.absent(session.key, now_s)
        elif skips:
            raise SalverError("STEP_SKIPPED", skips, "send both again, in order")

    def _fail(self, answer: StepAnswer, error: SalverError, now_s: float) -> None:
        if not answer.done():
            answer.set_exception(error)
            self._metrics.failed(error.code, now_s - answer.request.received_s)

    # Time.

    def _sweep(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._before is not None and self._before._stopped:
            self._before = None
        try:
            self._table.expire_idle(now_s)
            lost = self._table.note_deaths(now_s)
            if lost:
                log_event("sessions_lost", version=self.manifest.reference, sessions=lost)
            for session in self._lined:
                for answer in session.line:
                    if answer.request.deadline_s <= now_s and not answer.done():
                        received_s = answer.request.received_s
                        self._fail(answer, too_late(received_s, now_s, "it waited for the step before it"), now_s)
        finally:
            next_s = WATCH_S if self._lined else _SWEEP_S
            self._timer = self._loop.call_later(next_s, self._sweep) if self._lined or len(self._table) else None
            self._note_emptied()

    def _note_emptied(self) -> None:
        if not len(self._table) and not self._lined:
            self._emptied.set()

    # What whoever loads and frees versions sees.

    @property
    def replicas(self) -> Sequence[Replica]:
        """All replicas."""
        return [replica for pool in self.pools for replica in pool.replicas]

    @property
    def open(self) -> int:
        """How many sessions are open."""
        return len(self._table)

    @property
    def available(self) -> bool:
        """Whether a replica is there to begin sessions on."""
        return any(pool.available for pool in self.pools)

    @property
    def curve(self) -> ServiceCurve:
        """That of the first replica: they are alike."""
        return self.pools[0].curve

    @property
    def batch_limit(self) -> int:
        """Likewise."""
        return self.pools[0].batch_limit

    @property
    def counts_cost(self) -> bool:
        """Likewise."""
        return self.pools[0].counts_cost

    @property
    def waiting(self) -> int:
        """Steps queued, those that wait for the one before included."""
        return self._waiting + sum(pool.waiting for pool in self.pools)

    @property
    def running(self) -> int:
        """Batches running."""
        return sum(pool.running for pool in self.pools)

    def succeed(self, before: Sessions) -> None:
        """Take the place of `before`, whose sessions go on there as long as its `drain` lets them.

        Those of the version before that end, and so do all where the two take or give different tensors.
        """
        self._table.inherit(before._table)
        if before.manifest.signature == self.manifest.signature:
            self._before, before._replaced = before, True
        else:
            before.end()
        if before._before is not None:
            before._before.end()
            before._before = None

    def end(self) -> None:
        """Lose all sessions. What runs is still answered, what waits behind it is not run."""
        now_s = self._clock.monotonic_s()
        for session in self._table:
            self._table.lose(session, "another version has taken the place of its own", now_s)
        self._note_emptied()

    async def drain(self, timeout_s: float) -> bool:
        """Wait for the sessions to end if new ones begin elsewhere, then for what is queued or running.

        The sessions have `timeout_s`, or if that is more until they would be idle, at most an hour; what is
        left of them is lost. False if what was queued took longer than `timeout_s`.
        """
        if self._replaced:
            self._emptied.clear()
            self._note_emptied()
            try:
                await asyncio.wait_for(
                    self._emptied.wait(), min(max(timeout_s, self.spec.session_idle_s), _LONGEST_DRAIN_S)
                )
            except TimeoutError:
                log_event("sessions_lost", version=self.manifest.reference, sessions=self.open)
        self.end()
        return all(await asyncio.gather(*(pool.drain(timeout_s) for pool in self.pools)))

    async def stop(self, error: SalverError) -> None:
        """Free the replicas; what is still unanswered, and what comes, is answered with `error`."""
        self.end()
        await asyncio.gather(*(pool.stop(error) for pool in self.pools))
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def __repr__(self) -> str:
        return f"<Sessions {self.manifest.reference} {self.open} open on {len(self.pools)} replicas>"


Serving = Pool | Sessions
"""What answers for a version behind an endpoint."""


def pools_of(serving: Serving | None) -> Sequence[Pool]:
    """The pools of a version: several where sessions are pinned to replicas."""
    if serving is None:
        return ()
    return serving.pools if isinstance(serving, Sessions) else (serving,)


def _first_failed(code: str) -> str:
    return f"its first step failed with {code}"
