"""Trying a version that takes the place of another on some of what that one answered last.

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

__all__ = ["may_rehearse", "rehearse"]

_BUDGET_S: Final = 2.0
_FATAL: Final = frozenset({"WORKER_LOST", "POISON_INPUT", "MODEL_HUNG"})


def may_rehearse(manifest: VersionManifest) -> bool:
    """Whether being asked once more does no harm: no effects, and no state that it would change."""
    return manifest.is_repeatable


async def rehearse(pool: Pool, samples: Iterable[Sample], clock: Clock) -> None:
    """Ask each replica's worth of `samples` one after the other, for 2 s at most in all.

    REQUIRES that nobody else asks the pool yet. Raises LOAD_FAILED when one of them kills or hangs the model.
    """
    until_s = clock.monotonic_s() + _BUDGET_S
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
                    f"{pool.manifest.reference} did not survive an input that the version before it has answered",
                    "see the log; --no-warm-from-traffic deploys without this trial",
                )
            log_event("warm_up_ended", version=pool.manifest.reference, problem=str(ended))
