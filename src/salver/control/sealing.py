"""The controller's care for the audit: tree heads over what has waited for one, while it runs and when it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from salver.registry.audit import Audit
from salver.telemetry.logs import log_event

__all__ = ["keep_sealed", "seal_at_end"]

_TICK_S: Final = 5.0


async def keep_sealed(audit: Audit) -> None:
    """Tick until cancelled; what fails is logged as an event and tried again at the next tick."""
    while True:
        await _attempt(audit.tick)
        await asyncio.sleep(_TICK_S)


async def seal_at_end(audit: Audit) -> None:
    """Sign what is not signed yet, or log why that fails: the next controller signs it then."""
    await _attempt(audit.seal)


async def _attempt(step: Callable[[], object]) -> None:
    try:
        await asyncio.to_thread(step)
    except Exception as error:  # noqa: BLE001 - the journal itself refuses changes where it must; this is tried again
        log_event("sealing_failed", level=logging.ERROR, error=error)
