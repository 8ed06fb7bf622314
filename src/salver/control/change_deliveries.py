"""Tells webhooks of changes, each of one record after the other. Runs in the controller.

At least once, and in the order of the journal: a record that its receiver has not taken holds back those behind it
for this webhook, and for no other, until it has been tried often enough and is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec

from salver.clock import Clock
from salver.control.webhook_sender import FIRST_PAUSE_S, LONGEST_PAUSE_S, Sender, Tried
from salver.protocol.errors import SalverError
from salver.protocol.jobs import backoff_s
from salver.registry.change_positions import ChangePositions, Due
from salver.storage.journal import JournalRecord
from salver.telemetry.logs import log_event

__all__ = ["ChangeDeliveries", "change_message"]

_LOOK_S: Final = 0.5
_AT_ONCE: Final = 32
_STORE_PAUSE_S: Final = 1.0
_LARGEST_DETAILS: Final = 64 * 2**10
"""Characters of JSON; what is longer is to be asked for."""


class ChangeDeliveries:
    """The loop that tells of changes; a record is given up after `tries`."""

    def __init__(self, positions: ChangePositions, sender: Sender, tries: int, clock: Clock) -> None:
        self._positions = positions
        self._sender = sender
        self._tries = tries
        self._clock = clock
        self._under_way: dict[str, asyncio.Task[None]] = {}
        """By webhook: the one message that it is being told."""
        self._more = asyncio.Event()
        self._away = False

    async def run(self) -> None:
        """Look, and look again as soon as somebody has been told, until cancelled."""
        while True:
            self._more.clear()
            try:
                await self.tick()
            except SalverError as error:
                self._say_away(error)
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                log_event("fault", level=logging.ERROR, error=error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._more.wait(), _LOOK_S)

    async def tick(self) -> None:
        """Begin to tell each webhook what it is due, as far as there is room."""
        room = _AT_ONCE - len(self._under_way)
        if room <= 0:
            return
        under_way = frozenset(self._under_way)
        due = await asyncio.to_thread(self._positions.due, self._clock.wall_s(), under_way)
        self._away = False
        # Who waits for longest comes first: the journal says since when.
        for each in sorted(due, key=lambda each: each.record.seq)[:room]:
            name = each.webhook.name
            self._under_way[name] = asyncio.ensure_future(self._tell(each))

    async def settled(self) -> None:
        """Wait for the tries under way."""
        await asyncio.gather(*self._under_way.values())

    async def _tell(self, due: Due) -> None:
        try:
            message_id = f"chg_{due.webhook.id}_{due.record.seq}"
            tried = await self._sender.send(due.webhook, message_id, change_message(due.record))
            await self._note(self._noted(due, tried))
        except Exception as error:  # noqa: BLE001 - one message must not end the others
            log_event("fault", level=logging.ERROR, error=error)
        else:
            self._more.set()
        finally:
            del self._under_way[due.webhook.name]

    def _noted(self, due: Due, tried: Tried) -> Callable[[], None]:
        """What is to be noted of a try."""
        if tried.delivered:
            return lambda: self._positions.told(due)
        tries, now_s = due.attempts + 1, self._clock.wall_s()
        if tried.final or tries >= self._tries:
            log_event(
                "change_given_up",
                level=logging.WARNING,
                webhook=due.webhook.name,
                seq=due.record.seq,
                tries=tries,
                problem=tried.note,
            )
            return lambda: self._positions.given_up(due, tried.note, now_s)
        spread = hashlib.sha256(f"{due.webhook.id} {due.record.seq}".encode()).digest()[:16]
        due_s = now_s + backoff_s(FIRST_PAUSE_S, LONGEST_PAUSE_S, tries, spread)
        return lambda: self._positions.failed(due, tried.note, due_s)

    async def _note(self, write: Callable[[], None]) -> None:
        """Note a try, however long the database refuses: nobody must be told again and again meanwhile."""
        while True:
            try:
                await asyncio.to_thread(write)
            except SalverError as error:
                self._say_away(error)
                await asyncio.sleep(_STORE_PAUSE_S)
            else:
                return

    def _say_away(self, error: SalverError) -> None:
        if not self._away:
            log_event("changes_unavailable", level=logging.ERROR, code=error.code, problem=error.message)
        self._away = True


def change_message(record: JournalRecord) -> bytes:
    """What a webhook is sent: the record of the journal, without details that are very long."""
    data: dict[str, Any] = msgspec.to_builtins(record)
    if len(msgspec.json.encode(record.details)) > _LARGEST_DETAILS:
        data |= {"details": {}, "details_left_out": True}
    at = dt.datetime.fromtimestamp(record.at_s, dt.UTC).isoformat()
    return msgspec.json.encode({"type": f"change.{record.action}", "timestamp": at, "data": data})
