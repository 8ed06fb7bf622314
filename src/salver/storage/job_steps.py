"""What the steps of the job store take and give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from salver.protocol.errors import SalverError
from salver.protocol.jobs import Delivery, Job, JobState

__all__ = ["Accepted", "Cancelled", "Claimed", "DeliveryTry", "Outcome", "Tended", "Wanted"]

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Accepted(NamedTuple):
    """A submission that is on disk; `created` is false when its key had brought it before."""

    id: bytes
    state: JobState
    created: bool = True


class Cancelled(NamedTuple):
    """Whether it was this call that ended the job, and the job as it is now; None where there is none."""

    changed: bool
    job: Job | None


class Wanted(NamedTuple):
    """What a process can run now: so many jobs of each endpoint, and so many bytes of bodies."""

    slots: dict[str, int]
    bytes: int


class Claimed(NamedTuple):
    """A job that this process is to run; `attempt` counts from 1 and names what `settle` may settle."""

    seq: int
    id: bytes
    attempt: int
    tenant: str
    endpoint: str
    version: str
    headers: dict[str, str]
    body: bytes


class Outcome(NamedTuple):
    """What became of an attempt: DONE with a result, FAILED with an error, or QUEUED to try again.

    `pause_s` is how long to wait before that; `counts` is false for an attempt that never reached a model.
    """

    job: Claimed
    state: JobState
    headers: Mapping[str, str] = _NO_HEADERS
    body: bytes = b""
    error: SalverError | None = None
    pause_s: float = 0.0
    counts: bool = True


class DeliveryTry(NamedTuple):
    """One try of a webhook: DELIVERED, FAILED for good, or PENDING to be tried again after `pause_s`."""

    id: bytes
    webhook: str
    delivery: Delivery
    note: str
    pause_s: float = 0.0


class Tended(NamedTuple):
    """What time has changed, by endpoint: jobs taken from the dead, those that failed with them, those given up.

    `lost` are those that the process took for its own and that are not, by place in the store.
    """

    taken_over: Counter[str]
    failed: Counter[str]
    expired: Counter[str]
    lost: frozenset[int]
