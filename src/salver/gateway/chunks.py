"""What the doors for answers bit by bit share, whatever they speak."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import msgspec

from salver.gateway.contracts import ask, asks_timing, server_timing, told_waits
from salver.protocol.errors import SalverError
from salver.protocol.request import Chunks, Request, Response, StreamingService
from salver.routing.router import Target

if TYPE_CHECKING:
    from salver.gateway.exchange import Exchange
    from salver.gateway.grpc.call import Call

__all__ = ["OneAnswer", "Timing", "failure_json", "open_chunks"]


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


class Timing:
    """Why an answer took as long as it did, told within it: headers have left before a stream ends.

    Only to a client that asks; an answer that has nothing to tell has the text "". The one answer of a
    version that does not stream tells what `Server-Timing` would; of a stream one behind the last chunk.
    """

    __slots__ = ("_asked", "_chunks", "_clock", "_compute_s", "_first", "_placement", "_received_s", "_streams")

    def __init__(self, asked: Exchange | Call, request: Request, *, streams: bool) -> None:
        self._asked = asks_timing(asked, request)
        self._clock = asked.lane.gateway.clock
        self._received_s = request.received_s
        self._streams = streams
        self._first: list[bytes] = []
        self._compute_s = 0.0
        self._chunks = 0
        self._placement = ""

    def of(self, response: Response) -> str:
        """What the next answer tells, which is about to be written."""
        if not self._asked:
            return ""
        if not self._streams:
            return server_timing(response, self._clock, self._received_s).decode()
        if not self._chunks:
            self._first = [*told_waits(response), b"first;dur=%.3f" % self._since_ms()]
        self._chunks += 1
        self._compute_s += response.batch.compute_s
        self._placement = response.batch.placement
        return ""

    def of_all(self) -> str:
        """What is told behind the last chunk of a stream."""
        if not self._asked or not self._streams:
            return ""
        spans = self._first
        if self._chunks:
            what = (self._compute_s * 1e3, self._chunks, self._placement.encode())
            spans = [*spans, b'compute;dur=%.3f, chunks;desc="%d", placement;desc="%b"' % what]
        return b", ".join([*spans, b"total;dur=%.3f" % self._since_ms()]).decode()

    def _since_ms(self) -> float:
        return (self._clock.monotonic_s() - self._received_s) * 1e3


def open_chunks(target: Target, request: Request) -> Chunks:
    """Ask the service behind a target for an answer bit by bit; raises what it refuses at once."""
    if target.manifest.streams:
        return cast("StreamingService", target.service).open_stream(request)
    return OneAnswer(ask(target, request))


def failure_json(error: SalverError, id: str | None = None) -> bytes:
    """What went wrong behind the first part of an answer."""
    told = {"error": str(error), "code": error.code}
    return msgspec.json.encode(told if id is None else told | {"id": id})
