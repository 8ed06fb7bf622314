"""The job store: what changes jobs, each step for many jobs at once.

Every method takes a list and does all of it in the transaction it is called in, so that one
fsync pays for as many jobs as came together. What a method returns counts once that transaction
has been committed. Methods refuse single jobs by returning a `SalverError` in their place, and
raise only what concerns the whole store.

Two processes may run the same job - one was stopped, was taken for dead, and comes back - but
`settle` lets only the attempt that the store knows of bring an outcome.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.jobs import Delivery, JobLimits, JobState, NewJob
from salver.storage.job_steps import Accepted, Cancelled, Claimed, DeliveryTry, Outcome, Tended, Wanted
from salver.storage.job_view import find_jobs, read_headers
from salver.storage.owners import lives

__all__ = ["JobStore"]

_INSERTED: Final = 64
"""Rows of one INSERT: one statement for many is cheaper, and holds the interpreter lock less often."""
_TENANTS: Final = 64
"""Of so many tenants a claim looks for jobs; the next claim begins with others."""
_SWEPT: Final = 500
_VACUUMED_PAGES: Final = 500
_NEW: Final = "seq, id, tenant, endpoint, version, state, bytes, accepted_s, expires_s, webhook, due_s, key, digest"


class JobStore:
    """The jobs behind one open connection, on behalf of the process `owner`. Not for two threads at once.

    REQUIRES that each method is called inside a `transaction`.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        limits: JobLimits,
        clock: Clock,
        owner: str,
        *,
        is_alive: Callable[[str], bool] = lives,
    ) -> None:
        self.connection = connection
        self._limits = limits
        self._clock = clock
        self._owner = owner
        self._is_alive = is_alive
        self._turn = 0

    # Coming in.

    def accept(self, jobs: Sequence[NewJob]) -> list[Accepted | SalverError]:
        """Take jobs in.

        Refuses with QUEUE_FULL where an endpoint has too many waiting or the store is full, and with
        CONFLICT a key that came with another request before.
        """
        used_bytes = self.used_bytes()
        waiting = self._waiting({job.endpoint for job in jobs})
        answers: list[Accepted | SalverError] = []
        rows: list[tuple[NewJob, bytes | None]] = []
        named: dict[tuple[str, str], tuple[bytes, bytes, JobState]] = {}
        for job in jobs:
            digest = _digest(job) if job.key is not None else None
            before = self._same_key(job, named) if job.key is not None else None
            if before is not None:
                answers.append(_again(job, digest, before))
                continue
            refusal = self._room(job, used_bytes, waiting)
            if refusal is not None:
                answers.append(refusal)
                continue
            used_bytes += len(job.body)
            waiting[job.endpoint] += 1
            rows.append((job, digest))
            if job.key is not None and digest is not None:
                named[job.tenant, job.key] = (job.id, digest, JobState.QUEUED)
            answers.append(Accepted(job.id, JobState.QUEUED))
        self._insert(rows)
        return answers

    def _waiting(self, endpoints: Iterable[str]) -> Counter[str]:
        counted: Counter[str] = Counter()
        for endpoint in endpoints:
            found = self.connection.execute(
                "SELECT SUM(count) FROM tallies WHERE endpoint = ? AND state = 0", (endpoint,)
            ).fetchone()
            counted[endpoint] = found[0] or 0
        return counted

    def used_bytes(self) -> int:
        """What the store holds, apart from the pages that are free again."""
        ask = self.connection.execute
        (pages,), (free,), (size,) = (
            ask(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _same_key(
        self, job: NewJob, named: dict[tuple[str, str], tuple[bytes, bytes, JobState]]
    ) -> tuple[bytes, bytes, JobState] | None:
        assert job.key is not None
        found = named.get((job.tenant, job.key))
        if found is not None:
            return found
        row = self.connection.execute(
            "SELECT id, digest, state FROM jobs WHERE tenant = ? AND key = ?", (job.tenant, job.key)
        ).fetchone()
        return None if row is None else (row[0], row[1], JobState(row[2]))

    def _room(self, job: NewJob, used_bytes: int, waiting: Counter[str]) -> SalverError | None:
        limits = self._limits
        if waiting[job.endpoint] >= limits.waiting:
            return SalverError(
                "QUEUE_FULL",
                f"{waiting[job.endpoint]} jobs of {job.endpoint} wait, the most there may be",
                "retry later",
            )
        if used_bytes + len(job.body) > limits.store_bytes:
            return SalverError(
                "QUEUE_FULL",
                f"the jobs of this server take {used_bytes} bytes; {limits.store_bytes} is the most",
                "retry later, when results have expired",
            )
        return None

    def _insert(self, rows: Sequence[tuple[NewJob, bytes | None]]) -> None:
        now_s, wall_s = self._clock.monotonic_s(), self._clock.wall_s()
        (last,) = self.connection.execute("SELECT COALESCE(MAX(seq), 0) FROM jobs").fetchone()
        for start in range(0, len(rows), _INSERTED):
            part = list(enumerate(rows[start : start + _INSERTED], last + start + 1))
            jobs: list[Any] = []
            bodies: list[Any] = []
            for seq, (job, digest) in part:
                jobs += (seq, job.id, job.tenant, job.endpoint, job.version, 0, len(job.body), wall_s)
                jobs += (wall_s + self._limits.wait_s, job.webhook, now_s, job.key, digest)
                bodies += (seq, _write(job.headers), job.body)
            self.connection.execute(f"INSERT INTO jobs ({_NEW}) VALUES {_places(13, len(part))}", jobs)  # noqa: S608 - our own names
            self.connection.execute(f"INSERT INTO bodies VALUES {_places(3, len(part))}", bodies)  # noqa: S608

    # Running.

    def claim(self, wanted: Sequence[Wanted]) -> list[list[Claimed]]:
        """Jobs that are due, oldest first, of all endpoints and tenants in turn: this process's from now on."""
        return [self._claim(each) for each in wanted]

    def _claim(self, wanted: Wanted) -> list[Claimed]:
        now_s, left = self._clock.monotonic_s(), wanted.bytes
        taken: list[int] = []
        self._turn += 1
        names = list(wanted.slots)
        # The first takes of the bytes what it can use, so another endpoint is it each time. Tenants turn when
        # all endpoints have: turned in step, the same one of them would always meet its endpoint's turn.
        rounds, at = divmod(self._turn, len(names)) if names else (0, 0)
        for endpoint in names[at:] + names[:at]:
            for seq, size in self._due(endpoint, wanted.slots[endpoint], now_s, rounds):
                if taken and size > left:
                    break
                left -= size
                taken.append(seq)
        self.connection.executemany(
            "UPDATE jobs SET state = 1, attempts = attempts + 1, owner = ?, lease_s = ?, started_s = ? "
            "WHERE seq = ? AND state = 0",
            [(self._owner, now_s + self._limits.lease_s, self._clock.wall_s(), seq) for seq in taken],
        )
        return [self._claimed(seq) for seq in taken]

    def _due(self, endpoint: str, slots: int, now_s: float, turn: int) -> list[tuple[int, int]]:
        """(seq, bytes) of the next jobs of an endpoint, those of its tenants in turn."""
        tenants = [
            tenant
            for (tenant,) in self.connection.execute(
                "SELECT tenant FROM tallies WHERE endpoint = ? AND state = 0 AND count > 0", (endpoint,)
            )
        ]
        if not tenants:
            return []
        first = turn % len(tenants)
        queues = [
            self.connection.execute(
                "SELECT seq, bytes FROM jobs WHERE state = 0 AND endpoint = ? AND tenant = ? AND due_s <= ? "
                "ORDER BY due_s LIMIT ?",
                (endpoint, tenant, now_s, slots),
            ).fetchall()
            for tenant in (tenants[first:] + tenants[:first])[:_TENANTS]
        ]
        in_turn = [queue[place] for place in range(slots) for queue in queues if place < len(queue)]
        return in_turn[:slots]

    def _claimed(self, seq: int) -> Claimed:
        name, attempts, tenant, endpoint, version, headers, body = self.connection.execute(
            "SELECT id, attempts, tenant, endpoint, version, headers, body "
            "FROM jobs LEFT JOIN bodies USING (seq) WHERE seq = ?",
            (seq,),
        ).fetchone()
        return Claimed(seq, name, attempts, tenant, endpoint, version, read_headers(headers), body or b"")

    def settle(self, outcomes: Sequence[Outcome]) -> list[JobState | None]:
        """Record what became of attempts, and give the state each job has now.

        None where the job was not this attempt's any more: then the outcome counts for nothing.
        """
        return [self._settle(each) for each in outcomes]

    def _settle(self, outcome: Outcome) -> JobState | None:
        job, state = outcome.job, outcome.state
        if state is JobState.QUEUED and outcome.counts and job.attempt >= self._limits.attempts:
            state = JobState.FAILED
        mine = (job.seq, job.id, self._owner, job.attempt)
        error = outcome.error
        if state is JobState.QUEUED:
            done = self.connection.execute(
                "UPDATE jobs SET state = 0, attempts = attempts - ?, due_s = ?, owner = NULL, lease_s = NULL, "
                "code = ?, message = ? WHERE seq = ? AND id = ? AND state = 1 AND owner = ? AND attempts = ?",
                (
                    0 if outcome.counts else 1,
                    self._clock.monotonic_s() + outcome.pause_s,
                    error and error.code,
                    error and error.message,
                    *mine,
                ),
            )
            return state if done.rowcount else None
        if not self._end(state, error, "seq = ? AND id = ? AND state = 1 AND owner = ? AND attempts = ?", mine):
            return None
        if state is JobState.DONE:
            self.connection.execute(
                "INSERT INTO results VALUES (?, ?, ?)", (job.seq, _write(outcome.headers), outcome.body)
            )
        self.connection.execute("DELETE FROM bodies WHERE seq = ?", (job.seq,))
        return state

    def _end(self, state: JobState, error: SalverError | None, where: str, values: Sequence[Any]) -> bool:
        """Bring one job to its end, if it is there; its webhook is due from now on."""
        wall_s = self._clock.wall_s()
        done = self.connection.execute(
            "UPDATE jobs SET state = ?, ended_s = ?, expires_s = ?, owner = NULL, lease_s = NULL, code = ?, "  # noqa: S608 - our own words
            f"message = ?, delivery = (webhook != ''), due_s = ? WHERE {where}",
            (
                state,
                wall_s,
                wall_s + self._limits.ttl_s,
                error and error.code,
                error and error.message,
                self._clock.monotonic_s(),
                *values,
            ),
        )
        return done.rowcount > 0

    def cancel(self, ids: Sequence[bytes]) -> list[Cancelled]:
        """End jobs that have not ended yet; each as it is now, None for one that is not there."""
        return [Cancelled(self._cancel(each), find_jobs(self.connection, [each])[0]) for each in ids]

    def _cancel(self, id: bytes) -> bool:
        row = self.connection.execute("SELECT seq FROM jobs WHERE id = ? AND state IN (0, 1)", (id,)).fetchone()
        if row is None:
            return False
        self._end(JobState.CANCELLED, None, "seq = ?", row)
        self.connection.execute("DELETE FROM bodies WHERE seq = ?", row)
        return True

    # Time.

    def tend(self, looks: Sequence[Collection[int]]) -> list[Tended]:
        """Go on holding what this process runs, take over what the dead have left, and end what is too old.

        A look names the jobs that this process holds in its opinion. Renewing and taking over are one step,
        or a slow disk between the two would make this process take its own jobs for left behind.
        """
        return [self._tend(held) for held in looks]

    def _tend(self, held: Collection[int]) -> Tended:
        tended = Tended(Counter(), Counter(), Counter(), self._renew(held))
        self._take_over(tended)
        self._sweep(tended)
        if self.connection.execute("PRAGMA freelist_count").fetchone()[0] > _VACUUMED_PAGES:
            self.connection.execute(f"PRAGMA incremental_vacuum({_VACUUMED_PAGES})").fetchall()
        return tended

    def _renew(self, held: Collection[int]) -> frozenset[int]:
        """Those of the jobs `held` that are not this process's own any more; all others it goes on holding."""
        until_s = self._clock.monotonic_s() + self._limits.lease_s
        self.connection.executemany(
            "UPDATE jobs SET lease_s = ? WHERE seq = ? AND state = 1 AND owner = ?",
            [(until_s, seq, self._owner) for seq in held],
        )
        mine = self.connection.execute("SELECT seq FROM jobs WHERE state = 1 AND owner = ?", (self._owner,))
        return frozenset(held).difference(seq for (seq,) in mine)

    def _take_over(self, tended: Tended) -> None:
        now_s = self._clock.monotonic_s()
        owners = self.connection.execute("SELECT DISTINCT owner FROM jobs WHERE state = 1").fetchall()
        for (owner,) in owners:
            least_s = now_s if owner == self._owner or self._is_alive(owner) else float("inf")
            rows = self.connection.execute(
                "SELECT seq, endpoint, attempts FROM jobs WHERE state = 1 AND owner = ? AND lease_s < ?",
                (owner, least_s),
            ).fetchall()
            for seq, endpoint, attempts in rows:
                lost = SalverError("WORKER_LOST", "the server process that ran this job was lost")
                if attempts >= self._limits.attempts:
                    self._end(JobState.FAILED, lost, "seq = ?", (seq,))
                    self.connection.execute("DELETE FROM bodies WHERE seq = ?", (seq,))
                    tended.failed[endpoint] += 1
                else:
                    self.connection.execute(
                        "UPDATE jobs SET state = 0, owner = NULL, lease_s = NULL, due_s = ?, code = ?, message = ? "
                        "WHERE seq = ?",
                        (now_s, lost.code, lost.message, seq),
                    )
                    tended.taken_over[endpoint] += 1

    def _sweep(self, tended: Tended) -> None:
        wall_s, ask = self._clock.wall_s(), self.connection.execute
        due = ask(
            "SELECT seq, state, endpoint FROM jobs WHERE state != 1 AND expires_s <= ? ORDER BY expires_s LIMIT ?",
            (wall_s, _SWEPT),
        ).fetchall()
        for seq, state, endpoint in due:
            if state == JobState.EXPIRED:
                ask("DELETE FROM jobs WHERE seq = ?", (seq,))
                continue
            if state == JobState.QUEUED:
                late = SalverError(
                    "JOB_EXPIRED", f"the job had not ended {self._limits.wait_s:g} s after it was accepted"
                )
                self._end(JobState.EXPIRED, late, "seq = ?", (seq,))
                tended.expired[endpoint] += 1
            else:
                ask(
                    "UPDATE jobs SET state = 5, expires_s = ?, "
                    "delivery = CASE delivery WHEN 1 THEN 3 ELSE delivery END WHERE seq = ?",
                    (wall_s + self._limits.ttl_s, seq),
                )
            ask("UPDATE jobs SET key = NULL, digest = NULL WHERE seq = ?", (seq,))
            for table in ("bodies", "results"):
                ask(f"DELETE FROM {table} WHERE seq = ?", (seq,))  # noqa: S608

    # Deliveries.

    def record_deliveries(self, tries: Sequence[DeliveryTry]) -> list[bool]:
        """Record tries of webhooks, and whether each was still awaited."""
        return [self._record_delivery(each) for each in tries]

    def _record_delivery(self, tried: DeliveryTry) -> bool:
        done = self.connection.execute(
            "UPDATE jobs SET delivery = ?, deliveries = deliveries + 1, delivery_note = ?, due_s = ? "
            "WHERE id = ? AND delivery = 1",
            (tried.delivery, tried.note, self._clock.monotonic_s() + tried.pause_s, tried.id),
        )
        self.connection.execute(
            "INSERT INTO delivery_counts VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1",
            (tried.webhook, tried.delivery.word if tried.delivery is not Delivery.PENDING else "retried"),
        )
        return done.rowcount > 0


def _write(headers: Mapping[str, str]) -> str:
    return msgspec.json.encode(dict(headers)).decode()


def _places(columns: int, rows: int) -> str:
    return ", ".join([f"({', '.join('?' * columns)})"] * rows)


def _digest(job: NewJob) -> bytes:
    """What makes a request the same as one before under its key."""
    parts = [job.endpoint, job.version, job.webhook, *(f"{name}: {job.headers[name]}" for name in sorted(job.headers))]
    digest = hashlib.sha256("\0".join(parts).encode() + b"\0\0")
    digest.update(job.body)
    return digest.digest()


def _again(job: NewJob, digest: bytes | None, before: tuple[bytes, bytes, JobState]) -> Accepted | SalverError:
    first, earlier, state = before
    if digest != earlier:
        return SalverError(
            "CONFLICT",
            f"the Idempotency-Key {str(job.key)[:80]!r} came with another request before",
            "use a new key for a new request",
        )
    return Accepted(first, state, created=False)
