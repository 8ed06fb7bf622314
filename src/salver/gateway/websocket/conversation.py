"""Inferences over WebSocket: each message is a request of the Open Inference Protocol, answered in order.

A text is a request in JSON. A binary message is the length of the JSON, 4 bytes little-endian, the
JSON, and the tensors behind it: what HTTP has in a header stands in front. Answers have the same two
forms, by what was asked. A version that streams answers a request with several messages and a
last one that has no outputs and says `triton_final_response`.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from salver.gateway.chunks import Timing, failure_json, open_chunks
from salver.gateway.exchange import Exchange
from salver.gateway.infer import InferDoor, OipContract
from salver.protocol.codecs.oip_request import InferBody, decode_json, decode_with_binary
from salver.protocol.errors import SalverError
from salver.protocol.request import Chunks, Request

if TYPE_CHECKING:
    from salver.gateway.websocket.lane import WebSocketLane

__all__ = ["Conversation"]

_LENGTH: Final = struct.Struct("<I")
_HTTP_OK: Final = 200
_POLICY_VIOLATION: Final = 1008
_KEPT: Final[tuple[bytes, ...]] = (
    b"authorization",
    b"request-timeout",
    b"x-envoy-expected-rq-timeout-ms",
    b"priority",
    b"x-salver-timing",
)


class _Asked(msgspec.Struct, eq=False):
    """A message that is being answered: what it asks and whom, or why it cannot be."""

    exchange: Exchange
    size: int
    id: str | None = None
    contract: OipContract | None = None
    request: Request | None = None
    chunks: Chunks | None = None
    error: SalverError | None = None


class Conversation:
    """The messages of one connection, each answered as the exchange of its handshake would be."""

    def __init__(self, lane: WebSocketLane, handshake: Exchange, door: InferDoor, max_elements: int) -> None:
        self._lane = lane
        self._handshake = handshake
        # What was said of the handshake alone says nothing of the messages.
        self._headers = {name: handshake.headers[name] for name in _KEPT if name in handshake.headers}
        self._door = door
        self._max_elements = max_elements
        self._count = 0
        self._waiting: deque[_Asked] = deque()
        self._answering: asyncio.Task[None] | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether no answer is owed."""
        return not self._waiting

    def take(self, data: bytes, *, binary: bool) -> None:
        """Begin to answer a message; raises TOO_MANY_PIPELINED where too many wait."""
        gateway = self._lane.gateway
        most = gateway.limits.pipelined
        if len(self._waiting) > most:
            gateway.inflight_bytes -= len(data)
            raise SalverError("TOO_MANY_PIPELINED", f"more than {most} messages were sent ahead", "read the answers")
        self._count += 1
        given = self._handshake
        exchange = Exchange(
            self._lane,
            given.method,
            given.target,
            self._headers,
            received_s=gateway.clock.monotonic_s(),
            id=b"%b-%d" % (given.id, self._count),
            body_bytes=len(data),
            route=given.route,
            params=given.params,
        )
        asked = _Asked(exchange, len(data))
        self._waiting.append(asked)
        try:
            self._ask(asked, data, binary=binary)
        except SalverError as error:
            asked.error = error
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            asked.error = gateway.fault(error)
        if self._answering is None:
            self._answering = asyncio.get_running_loop().create_task(self._answer_all())

    def _ask(self, asked: _Asked, data: bytes, *, binary: bool) -> None:
        exchange = asked.exchange
        # Each time: a token that was right when the connection began may be worth nothing by now.
        self._lane.gateway.admit(exchange, exchange.route.operation)
        contract = asked.contract = self._door.contract_of(exchange)
        infer = self._read_binary(data) if binary else decode_json(data, self._max_elements)
        asked.id = infer.id
        request = asked.request = contract.request(exchange, infer)
        asked.chunks = open_chunks(contract.target, request)

    def _read_binary(self, data: bytes) -> InferBody:
        if len(data) < _LENGTH.size:
            raise SalverError(
                "INVALID_TENSOR", f"the message has {len(data)} bytes, too few for the length of its JSON"
            )
        (json_bytes,) = _LENGTH.unpack_from(data)
        body = data[_LENGTH.size :]
        if json_bytes > len(body):
            raise SalverError("INVALID_TENSOR", f"the message claims {json_bytes} bytes of JSON; {len(body)} follow")
        return decode_with_binary(body, json_bytes, self._max_elements)

    async def _answer_all(self) -> None:
        """Answer what waits, in its order, until nothing does."""
        try:
            while self._waiting:
                asked = self._waiting[0]
                await self._answer(asked)
                if self._waiting and self._waiting[0] is asked:
                    # Else it was abandoned with all the others.
                    self._forget(self._waiting.popleft())
        finally:
            self._answering = None

    async def _answer(self, asked: _Asked) -> None:
        gateway, error, counted = self._lane.gateway, asked.error, False
        if error is None:
            try:
                counted = await self._send_chunks(asked)
            except SalverError as failure:
                # Whoever failed a request that had been accepted has counted it.
                error, counted = failure, True
            except Exception as fault:  # noqa: BLE001 - a fault of ours must still answer
                error = gateway.fault(fault)
        if error is not None:
            await self._refuse(asked, error, counted=counted)
        elif gateway.access.takes(_HTTP_OK):
            gateway.observe(asked.exchange, _HTTP_OK)

    async def _send_chunks(self, asked: _Asked) -> bool:
        """Send each answer; whether a failure was counted."""
        contract, request, chunks, lane = asked.contract, asked.request, asked.chunks, self._lane
        assert contract is not None
        assert request is not None
        assert chunks is not None
        streams = contract.target.manifest.streams
        timing = Timing(asked.exchange, request, streams=streams)
        async for response in chunks:
            asked.exchange.response = response
            try:
                body, json_bytes = contract.encode(request, response, timing.of(response))
            except Exception as error:
                response.unwritten()
                if not isinstance(error, SalverError):
                    raise
                await self._refuse(asked, error, counted=False)
                return True
            if json_bytes is None:
                await lane.send(body, binary=False)
            else:
                await lane.send(_LENGTH.pack(json_bytes) + body, binary=True)
        if streams:
            await lane.send(contract.write_last(request, timing.of_all()), binary=False)
        return True

    async def _refuse(self, asked: _Asked, error: SalverError, *, counted: bool) -> None:
        gateway, exchange = self._lane.gateway, asked.exchange
        if not counted:
            gateway.refused(exchange.endpoint, error)
        if gateway.access.takes(error.http):
            gateway.observe(exchange, error.http)
        await self._lane.send(failure_json(error, asked.id), binary=False)
        if error.code == "UNAUTHENTICATED":
            self._lane.close(_POLICY_VIOLATION, error.code)

    def _forget(self, asked: _Asked) -> None:
        if asked.chunks is not None:
            asked.chunks.close()
        self._lane.gateway.inflight_bytes -= asked.size

    def abandon(self) -> None:
        """Nobody waits for answers any more: what has not started must not start."""
        waiting, self._waiting = self._waiting, deque()
        for asked in waiting:
            self._forget(asked)
        if self._answering is not None:
            self._answering.cancel()
