"""Answers that come bit by bit, written to a client of HTTP as they come: server-sent events.

A client that does not read stops the model that answers it, and one that leaves ends it. Until the
first event everything is refused as ever; what fails later is the last event of a stream that
has begun with 200.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from salver.gateway.chunks import Timing, failure_json, open_chunks
from salver.gateway.exchange import Exchange
from salver.gateway.infer import EVENTS
from salver.protocol.errors import SalverError
from salver.protocol.request import Chunks, Request, Response
from salver.routing.router import Target

__all__ = ["EventReply", "send_events"]

_HTTP_OK: Final = 200
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ndate: %b\r\ncontent-type: %b\r\ncache-control: no-store\r\nx-request-id: %b\r\n%b%b%b\r\n"
)
_LAST_CHUNK: Final = b"0\r\n\r\n"


class EventReply:
    """A reply in parts: chunked to a client that knows chunks, else up to the end of the connection."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._chunked = not exchange.connection
        self.begun = False

    def _head(self) -> bytes:
        exchange = self._exchange
        gateway = exchange.lane.gateway
        exchange.answered = self.begun = True
        if not self._chunked or (gateway.draining and exchange.lane.is_last):
            exchange.keep_alive = False
        return _HEAD % (
            gateway.date,
            EVENTS,
            exchange.id,
            b"transfer-encoding: chunked\r\n" if self._chunked else b"",
            exchange.also,
            b"" if exchange.keep_alive else b"connection: close\r\n",
        )

    def _part(self, data: bytes) -> bytes:
        event = b"data: %b\n\n" % data
        part = b"%x\r\n%b\r\n" % (len(event), event) if self._chunked else event
        return part if self.begun else self._head() + part

    async def event(self, data: bytes) -> None:
        """Send an event of one line, and wait until the client reads."""
        if not self.begun:
            self._exchange.lane.expect_parts()
        await self._exchange.lane.send_part(self._exchange, self._part(data))

    def end(self, last: bytes | None = None) -> None:
        """Send a last event, if there is one, and that it was the last."""
        exchange = self._exchange
        rest = self._part(last) if last is not None else b"" if self.begun else self._head()
        gateway = exchange.lane.gateway
        if gateway.access.takes(_HTTP_OK):
            gateway.observe(exchange, _HTTP_OK)
        exchange.lane.send(exchange, rest, _LAST_CHUNK if self._chunked else b"")


def send_events(
    exchange: Exchange,
    target: Target,
    request: Request,
    write: Callable[[Request, Response, str], bytes],
    write_last: Callable[[Request, str], bytes | None],
) -> None:
    """Answer an exchange with an event for each part of the answer, and perhaps a last one behind them.

    Writers are given the timing that they are to tell, or "". Raises what the service refuses the request
    with at once; every later failure is answered here.
    """
    chunks = open_chunks(target, request)
    timing = Timing(exchange, request, streams=target.manifest.streams)
    task = asyncio.get_running_loop().create_task(_send(exchange, request, chunks, timing, write, write_last))
    # Not in the task: one that is cancelled before its first step runs nothing, not even its end.
    task.add_done_callback(lambda _: chunks.close())
    exchange.pending = task


async def _send(
    exchange: Exchange,
    request: Request,
    chunks: Chunks,
    timing: Timing,
    write: Callable[[Request, Response, str], bytes],
    write_last: Callable[[Request, str], bytes | None],
) -> None:
    reply = EventReply(exchange)
    counted = True
    try:
        async for response in chunks:
            exchange.response = response
            counted = False
            try:
                data = write(request, response, timing.of(response))
            except Exception:
                response.unwritten()
                raise
            counted = True
            await reply.event(data)
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        _fail(exchange, reply, error, counted=counted)
    else:
        reply.end(write_last(request, timing.of_all()))


def _fail(exchange: Exchange, reply: EventReply, error: Exception, *, counted: bool) -> None:
    """End a reply with what went wrong: `counted` is whether whoever raised it has counted it."""
    gateway = exchange.lane.gateway
    if not reply.begun:
        exchange.fail(error, counted=counted)
        return
    refusal: SalverError = error if isinstance(error, SalverError) else gateway.fault(error)
    if refusal is not error or not counted:
        gateway.refused(exchange.endpoint, refusal)
    reply.end(failure_json(refusal))
