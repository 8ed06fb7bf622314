"""Trying a version on some of what was answered last, by the one whose place it takes, or by itself before it left.

Its first batches of real sizes and lengths run before anybody waits for them, and its service curve
begins with them. A model that raises on them, or answers badly, is not judged by it here; one that they
kill or hang is not put into service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.request import Request
from salver.protocol.tables import VersionManifest
from salver.runtime.pool import Pool
from salver.runtime.recent import Sample
from salver.telemetry.logs import log_event

__all__ = ["BESIDE_ANOTHER_S", "WAITED_FOR_S", "may_rehearse", "rehearse"]

BESIDE_ANOTHER_S: Final = 2.0
"""How long a version may be tried while another one serves."""
WAITED_FOR_S: Final = 0.25
"""And one that requests wait for: they would meet what is slow the first time, but want no more than that."""
_FATAL: Final = frozenset({"WORKER_LOST", "POISON_INPUT", "MODEL_HUNG"})


def may_rehearse(manifest: VersionManifest) -> bool:
    """Whether being asked once more does no harm: no effects, and no state that it would change."""
    return manifest.is_repeatable


async def rehearse(pool: Pool, samples: Iterable[Sample], budget_s: float, clock: Clock) -> None:
    """Ask each replica's worth of `samples` one after the other, and begin none after `budget_s`.

    REQUIRES that nobody else asks the pool yet. Raises LOAD_FAILED when one of them kills or hangs the model.
    """
    until_s = clock.monotonic_s() + budget_s
    for sample in samples:
        now_s = clock.monotonic_s()
        if now_s >= until_s:
            break
        inputs, due_s = dict(sample.inputs), now_s + pool.spec.deadline_s
        request = Request(pool.spec.endpoint, inputs, received_s=now_s, deadline_s=due_s, rows=sample.rows)
        try:
            answers = [asyncio.ensure_future(pool(request)) for _ in pool.replicas]
        except SalverError:
            continue  # of more rows than this deployment takes, say
        for ended in await asyncio.gather(*answers, return_exceptions=True):
            if not isinstance(ended, SalverError):
                continue
            if ended.code in _FATAL:
                raise SalverError(
                    "LOAD_FAILED",
                    f"{pool.manifest.reference} did not survive an input that was answered before",
                    "see the log; --no-warm-from-traffic deploys without this trial",
                )
            log_event("warm_up_ended", version=pool.manifest.reference, problem=str(ended))
