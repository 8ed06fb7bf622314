"""What the doors for answers bit by bit share, whatever they speak."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec

from salver.gateway.contracts import ask
from salver.protocol.errors import SalverError
from salver.protocol.request import Chunks, Request, Response, StreamingService
from salver.routing.router import Target

__all__ = ["OneAnswer", "failure_json", "open_chunks"]


class OneAnswer:
    """The answer of a version that does not stream, as a stream of one."""

    def __init__(self, answer: asyncio.Future[Response]) -> None:
        self._answer: asyncio.Future[Response] | None = answer

    def __aiter__(self) -> OneAnswer:
        return self

    async def __anext__(self) -> Response:
        """The answer, once."""
        answer, self._answer = self._answer, None
        if answer is None:
            raise StopAsyncIteration
        return await answer

    def close(self) -> None:
        """Nobody waits for it any more."""
        if self._answer is not None:
            self._answer.cancel()


def open_chunks(target: Target, request: Request) -> Chunks:
    """Ask the service behind a target for an answer bit by bit; raises what it refuses at once."""
    if target.manifest.streams:
        return cast("StreamingService", target.service).open_stream(request)
    return OneAnswer(ask(target, request))


def failure_json(error: SalverError, id: str | None = None) -> bytes:
    """What went wrong behind the first part of an answer."""
    told = {"error": str(error), "code": error.code}
    return msgspec.json.encode(told if id is None else told | {"id": id})
