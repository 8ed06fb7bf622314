"""Tells webhooks of jobs that have ended. Runs in the controller: connections to others are no matter of serving.

At least once: a message is repeated until its receiver has said 2xx, with the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, NamedTuple

import httpx2
import msgspec

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.jobs import Delivery, Job, JobLimits, backoff_s, view_of
from salver.registry.webhooks import WebhookRecord
from salver.security.egress import parse_target, require_public
from salver.security.signing import signature_headers, webhook_secret
from salver.storage.job_ledger import JobLedger
from salver.storage.job_steps import DeliveryTry
from salver.telemetry.logs import log_event

__all__ = ["Deliveries", "Resolve", "resolve_name"]

_LOOK_S: Final = 0.5
_AT_ONCE: Final = 32
_AT_ONCE_EACH: Final = 4
"""Of one webhook: a receiver that does not answer takes no more places than these."""
_STORE_PAUSE_S: Final = 1.0
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 3600.0
_GONE: Final = 410

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""From a host and port to all its addresses."""


class _Tried(NamedTuple):
    """What one try met."""

    delivered: bool
    note: str
    final: bool = False


async def resolve_name(host: str, port: int) -> list[str]:
    """Ask the system; raises OSError where it does not know."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in found))


class Deliveries:
    """The loop that tells webhooks. `webhooks` gives them as they are now, by name; it may block."""

    def __init__(
        self,
        ledger: JobLedger,
        webhooks: Callable[[], Mapping[str, WebhookRecord]],
        limits: JobLimits,
        pepper: bytes,
        clock: Clock,
        *,
        resolve: Resolve = resolve_name,
    ) -> None:
        self._ledger = ledger
        self._webhooks = webhooks
        self._limits = limits
        self._pepper = pepper
        self._clock = clock
        self._resolve = resolve
        self._tls = ssl.create_default_context()
        self._under_way: dict[bytes, tuple[str, asyncio.Task[None]]] = {}
        """By job: the webhook and the try."""
        self._room = asyncio.Event()
        """Set when a try has been recorded. One that met a fault of ours must not be repeated without a pause."""
        self._last = ""
        """The webhook that the last try was of: the next is another's."""

    async def run(self) -> None:
        """Look, and look again as soon as there is room, until cancelled."""
        while True:
            self._room.clear()
            try:
                await self.tick()
            except SalverError as error:
                log_event("jobs_unavailable", level=logging.ERROR, code=error.code, problem=error.message)
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                log_event("fault", level=logging.ERROR, error=error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), _LOOK_S)

    async def tick(self) -> None:
        """Begin to tell of what is due, as far as there is room."""
        if len(self._under_way) >= _AT_ONCE or not self._ledger.exists:
            return
        # As of before the store is read, which may still give what ends meanwhile.
        under_way = set(self._under_way)
        due = await self._ledger.due_deliveries(self._clock.monotonic_s(), _AT_ONCE_EACH)
        chosen = self._choose(job for job in due if job.id not in under_way)
        if not chosen:
            return
        webhooks = await asyncio.to_thread(self._webhooks)
        for job in chosen:
            task = asyncio.ensure_future(self._deliver(job, webhooks.get(job.webhook)))
            self._under_way[job.id] = job.webhook, task

    def _choose(self, due: Iterable[Job]) -> list[Job]:
        """Those of the jobs `due` for which there is room, of all webhooks in turn."""
        under_way = Counter(name for name, _ in self._under_way.values())
        of: dict[str, list[Job]] = {}
        for job in due:
            if under_way[job.webhook] < _AT_ONCE_EACH:
                under_way[job.webhook] += 1
                of.setdefault(job.webhook, []).append(job)
        names = sorted(of, key=lambda name: (name <= self._last, name))
        in_turn = [of[name][at] for at in range(_AT_ONCE_EACH) for name in names if at < len(of[name])]
        chosen = in_turn[: _AT_ONCE - len(self._under_way)]
        if chosen:
            self._last = chosen[-1].webhook
        return chosen

    async def settled(self) -> None:
        """Wait for the tries under way."""
        await asyncio.gather(*(task for _, task in self._under_way.values()))

    async def _deliver(self, job: Job, webhook: WebhookRecord | None) -> None:
        try:
            await self._record(self._outcome(job, await self._try(job, webhook)))
        except Exception as error:  # noqa: BLE001 - one message must not end the others
            log_event("fault", level=logging.ERROR, error=error)
        else:
            self._room.set()
        finally:
            del self._under_way[job.id]

    async def _record(self, tried: DeliveryTry) -> None:
        """Record a try, however long the store refuses: a receiver must not be told again and again meanwhile."""
        while True:
            try:
                await self._ledger.record_delivery(tried)
            except SalverError as error:
                log_event("jobs_unavailable", level=logging.ERROR, code=error.code, problem=error.message)
                await asyncio.sleep(_STORE_PAUSE_S)
            else:
                return

    def _outcome(self, job: Job, tried: _Tried) -> DeliveryTry:
        if tried.delivered:
            return DeliveryTry(job.id, job.webhook, Delivery.DELIVERED, tried.note)
        tries = job.deliveries + 1
        if tried.final or tries >= self._limits.deliveries:
            log_event(
                "webhook_given_up",
                level=logging.WARNING,
                webhook=job.webhook,
                job=job.id.hex(),
                tries=tries,
                problem=tried.note,
            )
            return DeliveryTry(job.id, job.webhook, Delivery.FAILED, tried.note)
        pause_s = backoff_s(_FIRST_PAUSE_S, _LONGEST_PAUSE_S, tries, job.id)
        return DeliveryTry(job.id, job.webhook, Delivery.PENDING, tried.note, pause_s)

    async def _try(self, job: Job, webhook: WebhookRecord | None) -> _Tried:
        if webhook is None or webhook.tenant not in ("", job.tenant):
            return _Tried(False, "the webhook was removed", final=True)
        try:
            async with asyncio.timeout(self._limits.delivery_s):
                status = await self._post(job, webhook)
        except TimeoutError:
            return _Tried(False, f"no answer within {self._limits.delivery_s:g} s")
        except SalverError as error:
            return _Tried(False, error.message)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ssl.SSLError) as error:
            return _Tried(False, f"it could not be reached: {type(error).__name__}")
        return _Tried(200 <= status < 300, f"it answered {status}", final=status == _GONE)

    async def _post(self, job: Job, webhook: WebhookRecord) -> int:
        """Send the message to a checked address and return the status; the rest of the answer is not read."""
        target = parse_target(webhook.url, allow_private=webhook.allow_private)
        addresses = await self._resolve(target.host, target.port)
        if not webhook.allow_private:
            require_public(target.host, addresses)
        if not addresses:
            raise OSError("no address")
        body = message_of(job)
        secret = webhook_secret(self._pepper, webhook.id)
        headers = signature_headers(secret, f"msg_{job.id.hex()}", self._clock.wall_s(), body) | {
            "host": target.authority,
            "content-type": "application/json",
            "user-agent": "salver",
            "connection": "close",
        }
        # The address itself, so that nobody resolves the name again; TLS still asks for the name.
        address = (
            f"[{addresses[0]}]" if ipaddress.ip_address(addresses[0].partition("%")[0]).version == 6 else addresses[0]
        )
        url = f"{target.scheme}://{address}:{target.port}{target.path}"
        async with (
            httpx2.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=None) as client,
            client.stream(
                "POST", url, content=body, headers=headers, extensions={"sni_hostname": target.host}
            ) as answer,
        ):
            return answer.status_code


def message_of(job: Job) -> bytes:
    """What a webhook is sent: the job as it can be asked after, never its result."""
    at = dt.datetime.fromtimestamp(job.ended_s or job.accepted_s, dt.UTC).isoformat()
    return msgspec.json.encode({"type": f"job.{job.state.word}", "timestamp": at, "data": view_of(job)})
