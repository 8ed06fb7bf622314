"""The way through every door of inference over HTTP: a plain body in, one answer out.

A protocol's own door reads the body and says how answers are written; what lies between -
content codings, deadlines, the queue, failures, timing, compression - is the same for all.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from salver.gateway.asked import Asked
from salver.gateway.contracts import ask, headers_of, refuse_unwritten
from salver.gateway.exchange import JSON, TIMING_HEADER, Exchange
from salver.gateway.negotiation import OFFLOAD_BYTES, compress, decompress, wanted_encoding
from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.routing.router import Target

__all__ = [
    "WRITE_ASIDE_ELEMENTS",
    "Writer",
    "Written",
    "aside",
    "decode",
    "read_plain",
    "send",
    "write_aside",
]

_OFFLOAD_ANSWER_BYTES: Final = 256 * 2**10
"""An answer larger than this is compressed off the event loop."""

_DECODE_ASIDE_BYTES: Final = 128 * 2**10
"""Above this, values that are read one by one are read off the event loop: some milliseconds' worth."""
WRITE_ASIDE_ELEMENTS: Final = 2**16
"""Answers of a batch with more than these are written off the event loop."""
_AHEAD: Final = object()
"""Key of `BatchOutputs.codec_cache`: the last answer of the batch that is being written, or was, off the event loop."""

Done = TypeVar("Done")
AnyAsked = TypeVar("AnyAsked", bound=Asked)
Headers = Sequence[tuple[bytes, bytes]]


class Written(msgspec.Struct, frozen=True):
    """An answer as its protocol has it. A struct because making a tuple with names takes four times as long."""

    body: bytes
    content_type: bytes = JSON
    headers: Headers = ()


Writer = Callable[[Request, Response], Written]
"""Writes what the model answered; raises SalverError where the protocol cannot say it."""


def read_plain(exchange: Exchange, then: Callable[[Exchange, bytes], None]) -> None:
    """Call `then` with the body without its content coding, now or soon; what it raises is answered.

    The exchange no longer holds the body. A decompressed body counts in place of the compressed one.
    """
    body, exchange.body = exchange.body, b""
    if b"content-encoding" not in exchange.headers:
        then(exchange, body)
        return
    coding, limit = exchange.headers[b"content-encoding"], exchange.lane.gateway.limits.body_bytes
    if len(body) <= OFFLOAD_BYTES:
        _go_on(exchange, decompress(body, coding, limit), then)
        return
    aside(exchange, lambda: decompress(body, coding, limit), lambda exchange, plain: _go_on(exchange, plain, then))


def aside(exchange: AnyAsked, work: Callable[[], Done], then: Callable[[AnyAsked, Done], None]) -> None:
    """Let `work` run beside the event loop, and call `then` with its result unless the client has gone.

    What either raises is answered.
    """
    exchange.pending = asyncio.get_running_loop().run_in_executor(None, work)
    exchange.pending.add_done_callback(functools.partial(_done_aside, exchange, then))


def decode(
    exchange: Exchange, body: bytes, read: Callable[[bytes], Done], then: Callable[[Exchange, Done], None]
) -> None:
    """Call `then` with what `read` makes of a body: now, or soon if reading it would hold up the event loop.

    For protocols that are read value by value, which takes many times as long as the Open Inference Protocol.
    """
    if len(body) <= _DECODE_ASIDE_BYTES:
        then(exchange, read(body))
    else:
        aside(exchange, lambda: read(body), then)


def _done_aside(exchange: AnyAsked, then: Callable[[AnyAsked, Done], None], done: asyncio.Future[Done]) -> None:
    if done.cancelled() or exchange.answered:
        return
    try:
        then(exchange, done.result())
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        exchange.fail(error)


def _go_on(exchange: Exchange, body: bytes, then: Callable[[Exchange, bytes], None]) -> None:
    gateway = exchange.lane.gateway
    gateway.inflight_bytes += len(body) - exchange.body_bytes
    exchange.body_bytes = len(body)
    if gateway.inflight_bytes > gateway.limits.inflight_bytes:
        raise SalverError(
            "QUEUE_FULL",
            f"the bodies in flight would have {gateway.inflight_bytes} bytes, decompressed; "
            f"at most {gateway.limits.inflight_bytes} may be",
            "retry later",
        )
    then(exchange, body)


def send(exchange: Exchange, target: Target, request: Request, write: Writer) -> None:
    """Ask the service behind `target`, and answer the exchange with what `write` makes of its answer.

    Raises what the service refuses the request with at once; every later failure is answered here.
    """
    future = ask(target, request)
    exchange.pending = future
    future.add_done_callback(functools.partial(_answered, exchange, request, write))


def _answered(exchange: Exchange, request: Request, write: Writer, answer: asyncio.Future[Response]) -> None:
    """The model has answered, or the request has failed on the way to it."""
    if answer.cancelled() or exchange.answered:
        return
    try:
        response = answer.result()
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        # Whoever failed a request that had been accepted has counted it.
        exchange.fail(error, counted=True)
        return
    exchange.response = response
    if response.batch.elements > WRITE_ASIDE_ELEMENTS:
        write_aside(exchange, request, response, write, functools.partial(_reply, exchange, request, response))
        return
    try:
        written = write(request, response)
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        refuse_unwritten(exchange, request, response, error)
        return
    _reply(exchange, request, response, written)


def write_aside(
    asked: Asked,
    request: Request,
    response: Response,
    write: Callable[[Request, Response], Done],
    then: Callable[[Done], None],
) -> None:
    """Let `write` run beside the event loop, and call `then` with its result unless the client has gone.

    Answers of one batch wait for each other: the first makes what they share, and those that are small
    themselves are then written at once.
    """
    if asked.answered:
        return
    cache = response.batch.codec_cache
    ahead: asyncio.Future[Any] | None = cache.get(_AHEAD)
    if ahead is not None and not ahead.done():
        ahead.add_done_callback(lambda _: write_aside(asked, request, response, write, then))
        return
    if ahead is None or _elements(response) > WRITE_ASIDE_ELEMENTS:
        cache[_AHEAD] = written = asyncio.get_running_loop().run_in_executor(None, write, request, response)
        written.add_done_callback(lambda written: _written(asked, request, response, written.result, then))
    else:
        _written(asked, request, response, functools.partial(write, request, response), then)


def _written(
    asked: Asked, request: Request, response: Response, result: Callable[[], Done], then: Callable[[Done], None]
) -> None:
    try:
        written = result()
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        if not asked.answered:
            refuse_unwritten(asked, request, response, error)
        return
    if not asked.answered:
        then(written)


def _elements(response: Response) -> int:
    """How many elements an answer has."""
    if response.stop is None:
        return response.batch.elements
    return response.batch.elements * (response.stop - response.start) // max(1, response.batch.rows)


def _reply(exchange: Exchange, request: Request, response: Response, written: Written) -> None:
    headers = written.headers
    # Asked for by few, and so looked for here, where nothing is called for the others.
    if (
        request.parameters is not None
        or response.cache is not None
        or TIMING_HEADER in exchange.headers
        or exchange.lane.gateway.tells_timing
    ):
        headers = (*headers, *headers_of(exchange, request, response))
    if b"accept-encoding" in exchange.headers:
        _reply_encoded(exchange, written.body, written.content_type, headers)
    else:
        exchange.reply(written.body, content_type=written.content_type, headers=headers)


def _reply_encoded(exchange: Exchange, body: bytes, content_type: bytes, headers: Headers) -> None:
    coding = wanted_encoding(exchange.headers[b"accept-encoding"], len(body))
    if coding is None:
        exchange.reply(body, content_type=content_type, headers=headers)
        return
    headers = [*headers, (b"content-encoding", coding), (b"vary", b"accept-encoding")]
    if len(body) <= _OFFLOAD_ANSWER_BYTES:
        exchange.reply(compress(body, coding), content_type=content_type, headers=headers)
        return
    exchange.pending = asyncio.get_running_loop().run_in_executor(None, compress, body, coding)
    exchange.pending.add_done_callback(functools.partial(_compressed, exchange, content_type, headers))


def _compressed(exchange: Exchange, content_type: bytes, headers: Headers, packed: asyncio.Future[bytes]) -> None:
    if packed.cancelled():
        return
    if (error := packed.exception()) is not None:
        exchange.fail(error)
        return
    exchange.reply(packed.result(), content_type=content_type, headers=headers)
