"""Jobs: requests that are answered later, as values that cross boundaries, and the states they go through.

                 accepted
                    |
                    v        claimed
      +--------> QUEUED -----------------> RUNNING --------> DONE ------+
      |             |   <- given back, -      |  answered               |
      |             |      retried, lost      |                         |
      |             |                         +--------> FAILED --------+
      |             |                         |  refused, tried enough  |  kept long enough
      |             +--------> CANCELLED <----+                         v
      |             |             +---------------------------------> EXPIRED --> forgotten
      |             +---------------------------------------------------^
                       waited too long

A job is run at least once and has exactly one outcome: what a run brings counts only while the
store says that the job is running in that very attempt.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from salver.protocol.errors import SalverError

__all__ = [
    "FINAL",
    "TRANSITIONS",
    "Delivery",
    "Job",
    "JobError",
    "JobLimits",
    "JobPage",
    "JobState",
    "JobTicket",
    "JobView",
    "NewJob",
    "WebhookState",
    "backoff_s",
    "parse_id",
    "unknown_job",
    "url_of",
    "view_of",
]


class JobState(enum.IntEnum):
    """Where a job is; the numbers are those in the store."""

    QUEUED = 0
    RUNNING = 1
    DONE = 2
    FAILED = 3
    CANCELLED = 4
    EXPIRED = 5

    @property
    def word(self) -> str:
        """What clients read."""
        return self.name.lower()


TRANSITIONS: Final[Mapping[JobState, frozenset[JobState]]] = MappingProxyType(
    {
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.EXPIRED}),
        JobState.RUNNING: frozenset({JobState.QUEUED, JobState.DONE, JobState.FAILED, JobState.CANCELLED}),
        JobState.DONE: frozenset({JobState.EXPIRED}),
        JobState.FAILED: frozenset({JobState.EXPIRED}),
        JobState.CANCELLED: frozenset({JobState.EXPIRED}),
        JobState.EXPIRED: frozenset(),
    }
)
"""From each state to those that may follow; the store refuses every other change."""
FINAL: Final = frozenset(JobState) - {JobState.QUEUED, JobState.RUNNING}


class Delivery(enum.IntEnum):
    """What has become of telling a webhook about a job."""

    NONE = 0
    """No webhook, or the job has not ended yet."""
    PENDING = 1
    DELIVERED = 2
    FAILED = 3

    @property
    def word(self) -> str:
        """What clients read."""
        return self.name.lower()


class NewJob(msgspec.Struct, frozen=True):
    """A job as it was submitted: a request that its door has found well-formed."""

    id: bytes
    """16 bytes, the last 10 random; nobody guesses it."""
    tenant: str
    endpoint: str
    version: str
    """As the client named it; empty for whatever serves when the job runs."""
    headers: dict[str, str]
    """Those that say how the body is to be read."""
    body: bytes
    key: str | None = None
    """The client's Idempotency-Key."""
    webhook: str = ""


class Job(msgspec.Struct, frozen=True):
    """A job as the store has it, without body and result. Dates are seconds since 1970."""

    id: bytes
    tenant: str
    endpoint: str
    version: str
    state: JobState
    attempts: int
    bytes: int
    accepted_s: float
    started_s: float | None
    """When the last attempt began."""
    ended_s: float | None
    expires_s: float
    """When it is given up, if it waits; when its result is removed, if it has ended."""
    code: str | None
    """What went wrong: with the job, or with the last attempt of one that will be tried again."""
    message: str | None
    webhook: str
    delivery: Delivery
    deliveries: int
    """How often the webhook was tried."""
    delivery_note: str | None


class JobLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What jobs may take, and for how long they are kept."""

    body_bytes: int = 16 * 2**20
    """One job's body, after decompression."""
    result_bytes: int = 64 * 2**20
    """One job's result; a larger one fails the job."""
    store_bytes: int = 4 * 2**30
    """Bodies, results and all else in the store; beyond it no job is accepted."""
    waiting: int = 100_000
    """Jobs of one endpoint that wait; the next gets 429."""
    in_flight: int = 64
    """Jobs of one endpoint that one server process runs at a time; the rest waits in the store."""
    in_flight_bytes: int = 64 * 2**20
    """Bodies of all jobs that one server process runs at a time, but for a single job."""
    wait_s: float = 86_400.0
    """A job that has not ended after so long is given up when it would have to wait again."""
    ttl_s: float = 86_400.0
    """How long an ended job and its result are kept; then for as long it is known to have expired."""
    attempts: int = 5
    """How often a job is begun at most."""
    attempt_s: float = 300.0
    """Seconds that one attempt may take."""
    backoff_s: float = 1.0
    """Pause before the second attempt; each further one is twice as long."""
    longest_backoff_s: float = 300.0
    lease_s: float = 30.0
    """A job whose server process has been silent for longer is taken over by another."""
    retry_model_errors: bool = False
    """Try again also what the model itself answered with an error, or not at all."""
    deliveries: int = 10
    """How often a webhook is tried at most."""
    delivery_s: float = 10.0
    """Seconds that one delivery may take."""


def backoff_s(first_s: float, longest_s: float, failures: int, id: bytes) -> float:
    r"""Seconds to wait after so many failures: doubled each time, then spread over its upper half by the job's id.

    Ids are random, so jobs that failed together do not come back together.

    >>> [round(backoff_s(1.0, 60.0, failures, bytes(16)), 2) for failures in (1, 2, 3, 10)]
    [0.5, 1.0, 2.0, 30.0]
    >>> round(backoff_s(1.0, 60.0, 1, b"\xff" * 16), 2)
    1.0
    """
    whole_s = min(first_s * 2.0 ** min(failures - 1, 32), longest_s)
    return whole_s * (0.5 + int.from_bytes(id[-2:]) / 131072)


class JobError(msgspec.Struct, frozen=True):
    """What went wrong, in the words of the catalogue."""

    code: str
    message: str


class WebhookState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What has become of telling a webhook."""

    name: str
    state: str
    attempts: int
    note: str = ""
    """What the last attempt met."""


class JobView(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job as people and programs are told of it."""

    id: str
    state: str
    url: str
    endpoint: str
    accepted_s: float
    expires_s: float
    attempts: int
    tenant: str = ""
    version: str = ""
    started_s: float | None = None
    ended_s: float | None = None
    error: JobError | None = None
    result_url: str | None = None
    webhook: WebhookState | None = None


def view_of(job: Job) -> JobView:
    """How a job is shown."""
    name = job.id.hex()
    delivery = None
    if job.webhook:
        delivery = WebhookState(job.webhook, job.delivery.word, job.deliveries, job.delivery_note or "")
    return JobView(
        name,
        job.state.word,
        url_of(name),
        job.endpoint,
        round(job.accepted_s, 6),
        round(job.expires_s, 6),
        job.attempts,
        job.tenant,
        job.version,
        job.started_s,
        job.ended_s,
        None if job.code is None else JobError(job.code, job.message or ""),
        f"{url_of(name)}/result" if job.state is JobState.DONE else None,
        delivery,
    )


def url_of(id: str) -> str:
    """Where a job is asked after."""
    return f"/v2/jobs/{id}"


def parse_id(text: str) -> bytes:
    """The id a client wrote; raises NOT_FOUND for what is none."""
    if len(text) == 32 and text.isascii() and text.islower() | text.isdecimal():
        try:
            return bytes.fromhex(text)
        except ValueError:
            pass
    raise unknown_job(text)


def unknown_job(text: str) -> SalverError:
    """The one answer for jobs that never were, are forgotten, or are somebody else's."""
    return SalverError("NOT_FOUND", f"there is no job {text[:40]!r}", "ids are those that submitting a job gave")


class JobTicket(msgspec.Struct, frozen=True):
    """What submitting a job is answered with."""

    id: str
    state: str
    url: str


class JobPage(msgspec.Struct, frozen=True):
    """Some jobs, newest first, and the `after` of the next page; None when there is no more."""

    jobs: tuple[JobView, ...]
    next: str | None = None
