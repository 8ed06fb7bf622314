"""Tells webhooks of jobs that have ended. Runs in the controller: connections to others are no matter of serving.

At least once: a message is repeated until its receiver has said 2xx, with the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from salver.clock import Clock
from salver.control.webhook_sender import FIRST_PAUSE_S, LONGEST_PAUSE_S, Sender, Tried
from salver.protocol.errors import SalverError
from salver.protocol.jobs import Delivery, Job, JobLimits, backoff_s, view_of
from salver.registry.webhooks import WebhookRecord
from salver.storage.job_ledger import JobLedger
from salver.storage.job_steps import DeliveryTry
from salver.telemetry.logs import log_event

__all__ = ["JobDeliveries", "message_of"]

_LOOK_S: Final = 0.5
_AT_ONCE: Final = 32
_AT_ONCE_EACH: Final = 4
"""Of one webhook: a receiver that does not answer takes no more places than these."""
_STORE_PAUSE_S: Final = 1.0


class JobDeliveries:
    """The loop that tells webhooks. `webhooks` gives them as they are now, by name; it may block."""

    def __init__(
        self,
        ledger: JobLedger,
        webhooks: Callable[[], Mapping[str, WebhookRecord]],
        limits: JobLimits,
        sender: Sender,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._webhooks = webhooks
        self._limits = limits
        self._sender = sender
        self._clock = clock
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

    def _outcome(self, job: Job, tried: Tried) -> DeliveryTry:
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
        pause_s = backoff_s(FIRST_PAUSE_S, LONGEST_PAUSE_S, tries, job.id)
        return DeliveryTry(job.id, job.webhook, Delivery.PENDING, tried.note, pause_s)

    async def _try(self, job: Job, webhook: WebhookRecord | None) -> Tried:
        if webhook is None or webhook.tenant not in ("", job.tenant):
            return Tried(False, "the webhook was removed", final=True)
        return await self._sender.send(webhook, f"msg_{job.id.hex()}", message_of(job))


def message_of(job: Job) -> bytes:
    """What a webhook is sent: the job as it can be asked after, never its result."""
    at = dt.datetime.fromtimestamp(job.ended_s or job.accepted_s, dt.UTC).isoformat()
    return msgspec.json.encode({"type": f"job.{job.state.word}", "timestamp": at, "data": view_of(job)})
