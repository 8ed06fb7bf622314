"""Which sessions of a version are open, on which replica each is, and which were lost lately. No loop, no clock.

absent --begin--> open --drop (its client ends it)--> absent
                   '--lose (idle, its worker died, in doubt, replaced)--> lost, and after a while absent
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import Final

from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec
from salver.runtime.pool import Pool
from salver.runtime.session_answer import StepAnswer
from salver.telemetry.metrics import SessionCounts

__all__ = ["Key", "OpenSession", "SessionTable", "Shard", "shown"]

Key = tuple[str, object]
"""Tenant and id: sessions of different tenants have nothing to do with each other, whatever they are called."""
Generation = tuple[int, int | None] | None
"""How often a replica's worker was started again, and which process it is."""

_MOST_LOST: Final = 4096
_REMEMBERED_S: Final = 3600.0
"""How many lost sessions are remembered at most, and for how long."""


class Shard:
    """A pool of one replica, and the sessions whose state is there."""

    __slots__ = ("_places", "pool", "seen", "sessions", "vacated")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.sessions = 0
        self.vacated: deque[int] = deque()
        """Places of sessions that are over while their state may still be kept there; the next steps tell."""
        self._places = 0
        self.seen: Generation = None
        """The generation of its replica when it was last looked at."""

    def take_place(self) -> int:
        """Where the state of a new session goes: if possible where one that is over may have left its own.

        So there are never more places than sessions that were open, and being told of, at one time.
        """
        if self.vacated:
            return self.vacated.popleft()
        self._places += 1
        return self._places

    def generation(self) -> Generation:
        """Another one when what the replica kept is gone; None when there is no replica any more."""
        replicas = self.pool.replicas
        return (replicas[0].restarts, replicas[0].pid) if replicas else None


class OpenSession:
    """One session. `steps` have run and been answered; `running` is with the pool, `line` waits behind it."""

    __slots__ = (
        "generation",
        "in_doubt",
        "key",
        "line",
        "number",
        "place",
        "running",
        "shard",
        "steps",
        "unwritten",
        "used_s",
    )

    def __init__(self, key: Key, shard: Shard, now_s: float) -> None:
        self.key = key
        self.shard = shard
        self.used_s = now_s
        self.number = -1
        """What the model's side calls it; never given twice."""
        self.place = -1
        """Where its state is there."""
        self.steps = 0
        self.generation: Generation = None
        """That of the replica when it took the first step."""
        self.in_doubt = False
        """Whether a step may have run of which nobody heard."""
        self.unwritten = False
        """Whether one has run whose answer could not be written."""
        self.running: StepAnswer | None = None
        self.line: deque[StepAnswer] = deque()


class SessionTable:
    """The sessions of one version behind an endpoint; at most `max_sessions`, over all replicas."""

    def __init__(self, spec: DeploymentSpec, shards: Iterable[Shard], counts: SessionCounts) -> None:
        self._spec = spec
        self._shards = list(shards)
        self._counts = counts
        self._open: OrderedDict[Key, OpenSession] = OrderedDict()
        """By when they were last used."""
        self._lost: OrderedDict[Key, tuple[str, float]] = OrderedDict()
        """Why, and until when that is remembered."""
        self._numbers = 0

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[OpenSession]:
        return iter(list(self._open.values()))

    def __contains__(self, session: OpenSession) -> bool:
        return self._open.get(session.key) is session

    def inherit(self, before: SessionTable) -> None:
        """Remember what was lost in the table that this one takes the place of, and what will be."""
        self._lost = before._lost

    # In.

    def find(self, key: Key, now_s: float) -> OpenSession | None:
        """The open session of a name; one that is idle for too long, or whose state is gone, is lost here."""
        session = self._open.get(key)
        if session is None or session.running is not None:
            return session
        if now_s - session.used_s >= self._spec.session_idle_s:
            self._expire(session, now_s)
            return None
        if session.generation != session.shard.generation():
            self.lose(session, self.death(), now_s)
            return None
        return session

    def begin(self, key: Key, now_s: float) -> OpenSession:
        """A new session on the replica that has fewest; raises TOO_MANY_SESSIONS."""
        shard = min(self._shards, key=lambda shard: (not shard.pool.available, shard.sessions))
        session = OpenSession(key, shard, now_s)
        self.open(session, now_s)
        return session

    def open(self, session: OpenSession, now_s: float) -> None:
        """Put a session on the table, under a new number; raises TOO_MANY_SESSIONS.

        REQUIRES that no other of its name is there.
        """
        most = self._spec.max_sessions
        if len(self._open) >= most:
            self.expire_idle(now_s)
        if len(self._open) >= most:
            raise SalverError(
                "TOO_MANY_SESSIONS",
                f"{len(self._open)} sessions of {self._spec.endpoint} are open, as many as may be",
                "end sessions with sequence_end, or deploy with a larger --max-sessions",
            )
        self._lost.pop(session.key, None)
        self._numbers += 1
        session.number, session.place, session.steps = self._numbers, session.shard.take_place(), 0
        session.in_doubt = session.unwritten = False
        session.generation = session.shard.generation()
        session.used_s = now_s
        session.shard.sessions += 1
        self._open[session.key] = session
        self._counts.begun += 1

    def used(self, session: OpenSession, now_s: float) -> None:
        """A session was just used."""
        session.used_s = now_s
        if session in self:
            self._open.move_to_end(session.key)

    # Out.

    def end(self, session: OpenSession) -> None:
        """A session is over as its client wished, and its state freed."""
        if self._drop(session):
            self._counts.ended += 1

    def lose(self, session: OpenSession, cause: str, now_s: float) -> None:
        """A session is over although its client did not end it."""
        if self._drop(session):
            self._counts.lost += 1
            self._remember(session, cause, now_s)

    def supersede(self, session: OpenSession) -> None:
        """A session was begun anew in another table."""
        if self._drop(session):
            self._counts.lost += 1
            session.shard.vacated.append(session.place)

    def _expire(self, session: OpenSession, now_s: float) -> None:
        if self._drop(session):
            self._counts.expired += 1
            self._remember(session, f"no step came for {self._spec.session_idle_s:g} s", now_s)

    def _drop(self, session: OpenSession) -> bool:
        if session not in self:
            return False
        del self._open[session.key]
        session.shard.sessions -= 1
        return True

    def _remember(self, session: OpenSession, cause: str, now_s: float) -> None:
        session.shard.vacated.append(session.place)
        self._lost[session.key] = (cause, now_s + _REMEMBERED_S)
        self._lost.move_to_end(session.key)
        if len(self._lost) > _MOST_LOST:
            self._lost.popitem(last=False)

    def expire_idle(self, now_s: float) -> None:
        """Lose the sessions that nobody has asked for in too long a time."""
        while self._open:
            session = next(iter(self._open.values()))
            if now_s - session.used_s < self._spec.session_idle_s:
                return
            if session.running is None:
                self._expire(session, now_s)
            else:
                self.used(session, now_s)

    def note_deaths(self, now_s: float) -> int:
        """Lose the sessions whose replica is another one by now; returns how many."""
        before = len(self)
        for shard in self._shards:
            generation = shard.generation()
            if generation == shard.seen:
                continue
            if shard.seen is not None:
                shard.vacated.clear()
            shard.seen = generation
            for session in self:
                if session.shard is shard and session.generation != generation and session.running is None:
                    self.lose(session, self.death(), now_s)
        return before - len(self)

    # Why.

    def death(self) -> str:
        """The cause of a loss: the replica is another one."""
        return f"the replica of {self._spec.model}@{self._spec.version} that held its state died"

    def absent(self, key: Key, now_s: float) -> SalverError:
        """Why a session cannot go on: SESSION_LOST, or SESSION_UNKNOWN for one that never was or has ended."""
        cause, until_s = self._lost.get(key, ("", 0.0))
        if cause and now_s < until_s:
            return SalverError(
                "SESSION_LOST", f"session {shown(key)} is lost: {cause}", "begin it again with sequence_start"
            )
        return SalverError(
            "SESSION_UNKNOWN",
            f"there is no session {shown(key)}",
            "begin it with sequence_start in its first step; "
            "where there are several server processes, send all its steps on one connection",
        )


def shown(key: Key) -> str:
    """A session's own name as far as an error repeats it."""
    name = key[1]
    return repr(name)[:80] if isinstance(name, int | str) else "without a name"
