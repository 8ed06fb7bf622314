"""What is committed gets published: what another home on the same database has changed, and what could not be before.

A change is committed and then published; where the disk is full in between, it waits here for room.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from salver.protocol.errors import SalverError
from salver.telemetry.logs import log_event

__all__ = ["Republishing"]

_TICK_S: Final = 1.0


class Republishing:
    """Looks at the revision of the database and publishes when it has moved.

    A look is one query of one row. While the database is away, what was published last stays.
    """

    def __init__(self, revision: Callable[[], int], publish: Callable[[], None]) -> None:
        self._revision = revision
        self._publish = publish
        self._seen = -1
        self._away = False

    def tick(self) -> bool:
        """Look once; whether there was news. Blocks. Says once that the database is away, and that it is back."""
        try:
            now = self._revision()
            if now == self._seen:
                moved = False
            else:
                self._publish()
                moved, self._seen = True, now
        except SalverError as error:
            if not self._away:
                log_event("database_away", level=logging.WARNING, problem=str(error))
            self._away = True
            return False
        if self._away:
            log_event("database_back")
        self._away = False
        return moved

    async def run(self) -> None:
        """Tick until cancelled; a fault is logged and the next tick looks again."""
        while True:
            try:
                await asyncio.to_thread(self.tick)
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                log_event("fault", level=logging.ERROR, error=error)
            await asyncio.sleep(_TICK_S)
