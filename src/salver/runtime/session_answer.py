"""What the caller of one step of a session awaits."""

from __future__ import annotations

import asyncio
from typing import Any

from salver.protocol.request import Request, Response, SequenceStep

__all__ = ["StepAnswer"]


class StepAnswer(asyncio.Future[Response]):
    """The answer to one step. `inner` is the pool's, from when the step was handed over; it is cancelled too."""

    def __init__(self, request: Request, step: SequenceStep, loop: asyncio.AbstractEventLoop, since_s: float) -> None:
        super().__init__(loop=loop)
        self.request = request
        self.step = step
        self.inner: asyncio.Future[Response] | None = None
        self.since_s = since_s
        self.turn_s = 0.0
        """Seconds that it waited for the step before."""

    def cancel(self, msg: Any = None) -> bool:
        """As ever; what has not begun to run never will."""
        if self.inner is not None:
            self.inner.cancel()
        return super().cancel(msg)
