"""One run of a job: the exchange of a client who is not there.

It goes through the very door that its request would have gone through at once, so it is read,
checked, run and written by the same code; only its answer goes to the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from salver.gateway.contracts import read_wishes
from salver.gateway.doorway import send
from salver.gateway.exchange import JSON, Exchange
from salver.gateway.infer import InferDoor
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.jobs import JobLimits, JobState, backoff_s
from salver.protocol.tables import VersionManifest
from salver.storage.job_steps import Claimed, Outcome

if TYPE_CHECKING:
    from salver.gateway.gateway import Gateway

__all__ = ["Answered", "Attempt", "abandoned", "begin", "outcome_of", "require_no_sessions"]

_LEAST_URGENT: Final = 2**31
_KEPT: Final = frozenset({b"inference-header-content-length"})
"""Headers of an answer without which it cannot be read."""
_NOT_BEGUN: Final = frozenset({"QUEUE_FULL", "OVERLOADED", "NOT_READY"})
"""Refusals of a model that others keep busy, or that is not there: no attempt has been made."""
_MODELS_OWN: Final = frozenset(
    {"MODEL_ERROR", "MODEL_HUNG", "BAD_MODEL_OUTPUT", "NONFINITE_OUTPUT", "DEADLINE_EXCEEDED"}
)


class Answered(NamedTuple):
    """What a door replied."""

    headers: dict[str, str]
    body: bytes


class _Nowhere:
    """The connection of an attempt: there is none."""

    peer = None
    is_last = False

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway


class Attempt(Exchange, eq=False):
    """A job being run. `told` is called once, with the reply or the refusal, unless it is abandoned before."""

    told: Callable[[Answered | SalverError], None] | None = None

    def reply(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: bytes = JSON,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """See `Exchange`."""
        del status
        kept = {name.decode(): value.decode("latin-1") for name, value in headers if name in _KEPT}
        self._tell(Answered({"content-type": content_type.decode(), **kept}, body))

    def refuse(
        self,
        error: SalverError,
        *,
        close: bool = False,
        counted: bool = False,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """See `Exchange`. A refusal that is none of the model's counts as one of this server's."""
        del close, headers
        if not counted and not self.answered:
            self.lane.gateway.refused(self.endpoint, error)
        self._tell(error)

    def _tell(self, answer: Answered | SalverError) -> None:
        if self.answered:
            return
        self.answered = True
        assert self.told is not None
        self.told(answer)


def begin(
    job: Claimed, door: InferDoor, gateway: Gateway, limits: JobLimits, told: Callable[[Answered | SalverError], None]
) -> Attempt:
    """Ask the model; `told` may be called before this returns."""
    headers = {name.encode(): value.encode("latin-1") for name, value in job.headers.items()}
    attempt = Attempt(
        _Nowhere(gateway),
        b"POST",
        b"",
        headers,
        received_s=gateway.clock.monotonic_s(),
        id=job.id.hex().encode(),
        tenant=job.tenant,
        client=f"jobs:{job.tenant}",
        params={"model": job.endpoint} | ({"version": job.version} if job.version else {}),
        told=told,
    )
    try:
        contract, request = door.prepare(attempt, job.body)
        # Which it may be only since the job was accepted.
        require_no_sessions(contract.target.manifest)
        # Nobody waits at the other end: not the deployment's time but that of jobs, unless the request says less.
        request.deadline_s = attempt.received_s + read_wishes(request.parameters, {}, limits.attempt_s)[0]
        request.priority = _LEAST_URGENT
        send(attempt, contract.target, request, contract.write)
    except Exception as error:  # noqa: BLE001 - whatever it is, the job has an outcome
        attempt.fail(error)
    return attempt


def outcome_of(job: Claimed, answer: Answered | SalverError, limits: JobLimits) -> Outcome:
    """What an answer makes of a job.

    What found the model away or busy waits and is no attempt. What failed on the way to the model or with
    its process is tried again, later each time. Everything else - bad input, a model that raises - would
    end the same again, so it is final.
    """
    if isinstance(answer, Answered):
        if len(answer.body) <= limits.result_bytes:
            return Outcome(job, JobState.DONE, answer.headers, answer.body)
        problem = f"the result has {len(answer.body)} bytes; jobs.result_bytes allows {limits.result_bytes}"
        return Outcome(job, JobState.FAILED, error=SalverError("BODY_TOO_LARGE", problem))
    code = answer.code
    if code in _NOT_BEGUN:
        pause_s = max(answer.retry_after_s or 0.0, backoff_s(limits.backoff_s, limits.longest_backoff_s, 1, job.id))
        return Outcome(job, JobState.QUEUED, error=answer, pause_s=pause_s, counts=False)
    if CATALOGUE[code].grpc == "UNAVAILABLE" or (limits.retry_model_errors and code in _MODELS_OWN):
        pause_s = backoff_s(limits.backoff_s, limits.longest_backoff_s, job.attempt, job.id)
        return Outcome(job, JobState.QUEUED, error=answer, pause_s=pause_s)
    return Outcome(job, JobState.FAILED, error=answer)


def abandoned(job: Claimed) -> Outcome:
    """Given back as it was: this process ends."""
    return Outcome(job, JobState.QUEUED, counts=False)


def require_no_sessions(manifest: VersionManifest) -> None:
    """Raise INVALID_PARAMETER for a version whose requests are steps: a job may run late, or twice."""
    if manifest.keeps_state:
        raise SalverError(
            "INVALID_PARAMETER",
            f"{manifest.reference} answers steps of sessions, which follow one another",
            "a job runs when there is time for it; ask at /v2/models/NAME/infer",
        )
