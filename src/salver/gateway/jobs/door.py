"""The door for jobs: `POST /v2/models/{model}/jobs` and what can be asked about one afterwards.

Submitting takes the way of an inference as far as the queue - read, check, refuse - and then
waits for one fsync instead of a model. A job is its tenant's: to everybody else, operators
aside, it does not exist.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
from collections.abc import Awaitable
from typing import Final
from urllib.parse import parse_qsl

from salver.clock import Clock
from salver.gateway.doorway import read_plain
from salver.gateway.exchange import Exchange
from salver.gateway.infer import InferDoor
from salver.gateway.jobs.attempt import require_no_sessions
from salver.gateway.jobs.runner import JobRunner
from salver.gateway.jobs.waits import JobWaits
from salver.gateway.routes import HttpRoute
from salver.gateway.schemas import InferenceRequest, InferenceResponse
from salver.protocol.errors import SalverError
from salver.protocol.jobs import (
    FINAL,
    Job,
    JobLimits,
    JobPage,
    JobState,
    JobTicket,
    JobView,
    NewJob,
    parse_id,
    unknown_job,
    url_of,
    view_of,
)
from salver.protocol.tables import Webhook
from salver.security.access import Operation, allows
from salver.storage.job_ledger import JobLedger
from salver.storage.job_steps import Accepted, Cancelled
from salver.storage.job_view import JobQuery
from salver.telemetry.job_metrics import JobMetrics

__all__ = ["JobDoor", "job_routes"]

_KEPT: Final = (b"content-type", b"inference-header-content-length")
_LONGEST_KEY: Final = 255
_MOST_LISTED: Final = 1000
_WAIT: Final = re.compile(rb"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,6})\"?(?=$|[,;\s])", re.IGNORECASE)
_LONGEST_WAIT_S: Final = 60


class JobDoor:
    """Takes jobs in and answers for them. `webhooks` are those that may be named, by name."""

    def __init__(
        self,
        ledger: JobLedger,
        door: InferDoor,
        runner: JobRunner,
        waits: JobWaits,
        limits: JobLimits,
        metrics: JobMetrics,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._door = door
        self._runner = runner
        self._waits = waits
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self.webhooks: dict[str, Webhook] = {}

    # Submitting.

    def submit(self, exchange: Exchange) -> None:
        """Take a job in; raises what is wrong with it, or answers 202 once it is durable."""
        read_plain(exchange, self._accept)

    def _accept(self, exchange: Exchange, body: bytes) -> None:
        limits = self._limits
        if len(body) > limits.body_bytes:
            raise SalverError(
                "BODY_TOO_LARGE", f"the body has {len(body)} bytes; a job's has at most {limits.body_bytes}"
            )
        params = exchange.params
        try:
            contract, _ = self._door.prepare(exchange, body)
            require_no_sessions(contract.target.manifest)
        except SalverError as error:
            if error.code != "NOT_READY":
                raise
            # It is deployed and away: whether the request fits is found out when it is back.
            exchange.endpoint = params["model"]
        headers = exchange.headers
        job = NewJob(
            int(self._clock.wall_s() * 1e3).to_bytes(6, "big") + os.urandom(10),
            exchange.tenant,
            params["model"],
            params.get("version", ""),
            {name.decode(): headers[name].decode("latin-1") for name in _KEPT if name in headers},
            body,
            _key(headers[b"idempotency-key"]) if b"idempotency-key" in headers else None,
            self._webhook(exchange),
        )
        # Not `pending`: it goes on, and counts, for a client that has gone.
        self._ledger.accept(job).add_done_callback(functools.partial(self._accepted, exchange, job))

    def _webhook(self, exchange: Exchange) -> str:
        name = exchange.headers.get(b"salver-webhook", b"").decode("latin-1")
        if b"?" in exchange.target:
            name = _query(exchange, {"webhook"}).get("webhook", name)
        if not name:
            return ""
        webhook = self.webhooks.get(name)
        if webhook is None or webhook.tenant not in ("", exchange.tenant):
            raise SalverError(
                "INVALID_PARAMETER",
                f"there is no webhook {name[:80]!r}",
                "an operator makes one: salver webhook create",
            )
        return name

    def _accepted(self, exchange: Exchange, job: NewJob, accepted: asyncio.Future[Accepted]) -> None:
        try:
            found = accepted.result()
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            exchange.fail(error)
            return
        if found.created:
            self._metrics.accepted[job.endpoint] += 1
            self._runner.come(job.endpoint)
        if exchange.answered:
            return
        name = found.id.hex()
        url = url_of(name)
        body = b'{"id":"%b","state":"%b","url":"%b"}' % (name.encode(), found.state.word.encode(), url.encode())
        exchange.reply(body, status=202, headers=[(b"location", url.encode())])

    # Asking.

    def show(self, exchange: Exchange) -> None:
        """Answer with a job's state, once it has ended or the client has waited for long enough."""
        _soon(exchange, self._show(exchange))

    async def _show(self, exchange: Exchange) -> None:
        job = await self._ended(exchange)
        exchange.reply_json(view_of(job))

    def result(self, exchange: Exchange) -> None:
        """Answer with what the model answered; raises JOB_NOT_DONE, JOB_FAILED, JOB_CANCELLED, JOB_EXPIRED."""
        _soon(exchange, self._result(exchange))

    async def _result(self, exchange: Exchange) -> None:
        job = await self._ended(exchange)
        _require_done(job)
        found = await self._ledger.result(job.id)
        if found is None:
            raise SalverError("JOB_EXPIRED", f"the result of job {job.id.hex()} has been removed")
        headers = dict(found.headers)
        content_type = headers.pop("content-type", "application/json").encode()
        told = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        exchange.reply(found.body, content_type=content_type, headers=told)

    def cancel(self, exchange: Exchange) -> None:
        """End a job that has not ended, and answer with what it is now."""
        _soon(exchange, self._cancel(exchange))

    async def _cancel(self, exchange: Exchange) -> None:
        job = await self._find(exchange)
        if job.state not in FINAL:
            cancelled = self._ledger.cancel(job.id)
            cancelled.add_done_callback(self._cancelled)
            # Shielded: it goes on, and counts, for a client that has gone.
            job = (await asyncio.shield(cancelled)).job or job
        exchange.reply_json(view_of(job))

    def _cancelled(self, cancelled: asyncio.Future[Cancelled]) -> None:
        if cancelled.exception() is not None:
            return  # `_cancel` answers with it, if anybody still asks
        changed, job = cancelled.result()
        if changed and job is not None:
            self._metrics.cancelled[job.endpoint] += 1
            self._runner.cancelled(job.id)

    def list(self, exchange: Exchange) -> None:
        """Answer with the tenant's jobs, newest first; to operators, with everybody's."""
        query = _query(exchange, {"endpoint", "state", "limit", "after"})
        limit = query.get("limit", "100")
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 6 and 0 < int(limit) <= _MOST_LISTED):
            raise SalverError("INVALID_PARAMETER", f"limit is {limit[:40]!r}", f"use 1-{_MOST_LISTED}")
        states = {state.word: state for state in JobState}
        if query.get("state", "done") not in states:
            raise SalverError("INVALID_PARAMETER", f"state is {query['state'][:40]!r}", f"use {', '.join(states)}")
        after = parse_id(query["after"]) if "after" in query else None
        asked = JobQuery(
            None if self._may_see_all(exchange) else exchange.tenant,
            query.get("endpoint"),
            states[query["state"]] if "state" in query else None,
            int(limit),
            after,
        )
        _soon(exchange, self._list(exchange, asked))

    async def _list(self, exchange: Exchange, query: JobQuery) -> None:
        if not self._ledger.exists:
            exchange.reply_json(JobPage(()))
            return
        found = await self._ledger.page(query)
        exchange.reply_json(JobPage(tuple(map(view_of, found.jobs)), found.next.hex() if found.next else None))

    async def _ended(self, exchange: Exchange) -> Job:
        """The job, once it has ended or the client has waited for as long as it would."""
        wish = _WAIT.search(exchange.headers.get(b"prefer", b""))
        job = await self._find(exchange)
        if wish is None or job.state in FINAL:
            return job
        until_s = self._clock.monotonic_s() + min(int(wish[1]), _LONGEST_WAIT_S)
        with self._waits.place(job.id) as event:
            while event is not None:
                job = await self._find(exchange)
                left_s = until_s - self._clock.monotonic_s()
                if job.state in FINAL or left_s <= 0:
                    break
                await self._waits.look_again(event, left_s)
        return job

    async def _find(self, exchange: Exchange) -> Job:
        text = exchange.params["job"]
        wanted = parse_id(text)
        job = await self._ledger.find(wanted) if self._ledger.exists else None
        if job is None or (job.tenant != exchange.tenant and not self._may_see_all(exchange)):
            raise unknown_job(text)
        return job

    def _may_see_all(self, exchange: Exchange) -> bool:
        principal = exchange.lane.gateway.principal(exchange)
        return principal is not None and allows(principal.role, Operation.OPERATE)


def _soon(exchange: Exchange, answering: Awaitable[None]) -> None:
    exchange.pending = asyncio.ensure_future(_answer(exchange, answering))


async def _answer(exchange: Exchange, answering: Awaitable[None]) -> None:
    try:
        await answering
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        exchange.fail(error)


def _require_done(job: Job) -> None:
    name = job.id.hex()
    if job.state is JobState.FAILED:
        raise SalverError(
            "JOB_FAILED", f"job {name} failed: {job.code}: {job.message}", "correct it and submit it anew"
        )
    if job.state is JobState.CANCELLED:
        raise SalverError("JOB_CANCELLED", f"job {name} was cancelled")
    if job.state is JobState.EXPIRED:
        raise SalverError("JOB_EXPIRED", f"job {name} has expired", "submit it anew")
    if job.state is not JobState.DONE:
        raise SalverError("JOB_NOT_DONE", f"job {name} is {job.state.word}", "ask again later, or with Prefer: wait=30")


def _key(value: bytes) -> str:
    key = value.decode("latin-1").strip('"')
    if not (key and len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable()):
        raise SalverError(
            "INVALID_PARAMETER", "the Idempotency-Key is none", f"use 1-{_LONGEST_KEY} printable ASCII characters"
        )
    return key


def _query(exchange: Exchange, known: set[str]) -> dict[str, str]:
    """The parameters behind the path; INVALID_PARAMETER for others than those known, or one that comes twice."""
    text = exchange.target.partition(b"?")[2].decode("ascii", "replace")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=len(known), errors="strict")
    except ValueError:
        pairs = [("", "")]
    found = dict(pairs)
    if len(found) < len(pairs) or found.keys() - known:
        raise SalverError(
            "INVALID_PARAMETER", f"the query {text[:80]!r} is not understood", f"use {', '.join(sorted(known))}"
        )
    return found


def job_routes(door: JobDoor) -> list[HttpRoute]:
    """All routes of jobs."""
    predict = Operation.PREDICT
    routes = [
        HttpRoute(
            "POST", f"/v2/models/{{model}}{at}/jobs", predict, door.submit, "Submit a job", InferenceRequest, JobTicket
        )
        for at in ("", "/versions/{version}")
    ]
    return [
        *routes,
        HttpRoute("GET", "/v2/jobs", predict, door.list, "Jobs, newest first", None, JobPage),
        HttpRoute("GET", "/v2/jobs/{job}", predict, door.show, "What a job is doing", None, JobView),
        HttpRoute("DELETE", "/v2/jobs/{job}", predict, door.cancel, "Cancel a job", None, JobView),
        HttpRoute("GET", "/v2/jobs/{job}/result", predict, door.result, "A job's result", None, InferenceResponse),
    ]
