"""The door for inference in the Open Inference Protocol over HTTP: the hot path.

Synchronous up to the queue: parse, resolve, decode, check, enqueue; then one callback when the
answer is there. Nothing is computed per request that can be computed per version or per batch.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

from salver.gateway.contracts import TIMING, Contracts, ask, read_wait_s, refuse_unwritten, server_timing
from salver.gateway.exchange import Exchange
from salver.gateway.negotiation import (
    OFFLOAD_BYTES,
    check_accept,
    check_content_type,
    compress,
    decompress,
    wanted_encoding,
)
from salver.protocol.codecs.oip_request import InferBody, decode_json, decode_raw_tensor, decode_with_binary
from salver.protocol.codecs.oip_response import ResponseEncoder
from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.protocol.signature import SignatureCheck
from salver.routing.router import Router, Target

__all__ = ["InferDoor"]

_OFFLOAD_ANSWER_BYTES: Final = 256 * 2**10
"""An answer larger than this is compressed off the event loop."""
_BINARY: Final = b"application/octet-stream"
_JSON_LENGTH: Final = b"inference-header-content-length"
_USUAL_TYPES: Final = frozenset({b"application/json", _BINARY})
_LENGTH_DIGITS: Final = 12


class _Contract:
    """What this door prepares once for each version behind an endpoint."""

    __slots__ = ("check", "encoder", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        spec, manifest = target.spec, target.manifest
        self.check = SignatureCheck(manifest.signature)
        self.encoder = ResponseEncoder(
            spec.endpoint, manifest.model, manifest.version, self.check.outputs, spec.nonfinite
        )


class InferDoor:
    """Turns `POST /v2/models/{model}/infer` into requests of the router, and answers back."""

    def __init__(self, router: Router, max_elements: int, body_limit: int) -> None:
        self._contracts = Contracts(router, _Contract)
        self._max_elements = max_elements
        self._body_limit = body_limit

    def open(self, exchange: Exchange) -> None:
        """Begin an inference; raises SalverError, or answers the exchange when the model has."""
        if b"content-encoding" in exchange.headers:
            self._open_compressed(exchange)
        else:
            self._enqueue(exchange, exchange.body)

    def _open_compressed(self, exchange: Exchange) -> None:
        coding, body = exchange.headers[b"content-encoding"], exchange.body
        exchange.body = b""
        if len(body) <= OFFLOAD_BYTES:
            self._enqueue_plain(exchange, decompress(body, coding, self._body_limit))
            return
        loop = asyncio.get_running_loop()
        exchange.pending = loop.run_in_executor(None, decompress, body, coding, self._body_limit)
        exchange.pending.add_done_callback(functools.partial(self._decompressed, exchange))

    def _decompressed(self, exchange: Exchange, body: asyncio.Future[bytes]) -> None:
        if body.cancelled() or exchange.answered:
            return
        try:
            self._enqueue_plain(exchange, body.result())
        except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
            exchange.fail(error)

    def _enqueue_plain(self, exchange: Exchange, body: bytes) -> None:
        """Go on with a decompressed body, which counts in place of the compressed one."""
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
        self._enqueue(exchange, body)

    def _enqueue(self, exchange: Exchange, body: bytes) -> None:
        params = exchange.params
        contract = self._contracts.of(params["model"], params.get("version"))
        exchange.endpoint = contract.target.spec.endpoint
        request = self._read(exchange, body, contract)
        # What the model needs has been taken out of the body.
        exchange.body = b""
        future = ask(contract.target, request)
        exchange.pending = future
        future.add_done_callback(functools.partial(_answered, exchange, request, contract.encoder))

    def _read(self, exchange: Exchange, body: bytes, contract: _Contract) -> Request:
        target, headers = contract.target, exchange.headers
        content_type = headers.get(b"content-type")
        if content_type is not None and content_type not in _USUAL_TYPES:
            check_content_type(content_type)
        if b"inference-header-content-length" in headers:
            infer = self._decode(headers[b"inference-header-content-length"], body, target)
        else:
            infer = decode_json(body, self._max_elements)
        if b"accept" in headers and headers[b"accept"] != b"*/*":
            check_accept(headers[b"accept"], _offered(infer))
        inputs, outputs, parameters = infer.inputs, infer.outputs, infer.parameters
        rows = contract.check.rows(inputs)
        if outputs is not None:
            contract.check.require_outputs(outputs)
        spec, received_s = target.spec, exchange.received_s
        wait_s = spec.deadline_s if parameters is None else read_wait_s(parameters, spec.deadline_s)
        return Request(
            spec.endpoint,
            inputs,
            target.manifest.version,
            infer.id,
            outputs,
            parameters,
            received_s,
            received_s + wait_s,
            rows,
            exchange.id,
        )

    def _decode(self, json_length: bytes, body: bytes, target: Target) -> InferBody:
        if not json_length.isdigit() or len(json_length) > _LENGTH_DIGITS:
            raise SalverError(
                "INVALID_TENSOR",
                f"Inference-Header-Content-Length is {json_length[:40].decode('latin-1')!r}, no length",
            )
        if int(json_length) == 0:
            return decode_raw_tensor(body, target.manifest.signature, self._max_elements)
        return decode_with_binary(body, int(json_length), self._max_elements)


def _answered(exchange: Exchange, request: Request, encoder: ResponseEncoder, answer: asyncio.Future[Response]) -> None:
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
    try:
        body, json_bytes = encoder.encode(request, response)
    except Exception as error:  # noqa: BLE001 - a fault of ours must still answer
        refuse_unwritten(exchange, request, response, error)
        return
    told = () if request.parameters is None else _timing(exchange, request.parameters, response)
    if b"accept-encoding" in exchange.headers:
        _reply_encoded(exchange, body, json_bytes, told)
    elif json_bytes is None:
        exchange.reply(body, headers=told)
    else:
        exchange.reply(body, content_type=_BINARY, headers=((_JSON_LENGTH, b"%d" % json_bytes), *told))


def _timing(exchange: Exchange, parameters: Mapping[str, Any], response: Response) -> tuple[tuple[bytes, bytes], ...]:
    """The header of W3C Server Timing for a client that asks."""
    if not parameters.get(TIMING):
        return ()
    return ((b"server-timing", server_timing(response, exchange.lane.gateway.clock, exchange.received_s)),)


def _offered(infer: InferBody) -> bytes:
    binary = bool(infer.parameters and infer.parameters.get("binary_data_output")) or any(
        output.binary for output in infer.outputs or ()
    )
    return b"application/octet-stream" if binary else b"application/json"


def _reply_encoded(
    exchange: Exchange, body: bytes, json_bytes: int | None, told: Sequence[tuple[bytes, bytes]]
) -> None:
    headers = [*told]
    content_type = b"application/json"
    if json_bytes is not None:
        content_type = _BINARY
        headers.append((_JSON_LENGTH, b"%d" % json_bytes))
    coding = wanted_encoding(exchange.headers[b"accept-encoding"], len(body))
    if coding is None:
        exchange.reply(body, content_type=content_type, headers=headers)
        return
    headers += [(b"content-encoding", coding), (b"vary", b"accept-encoding")]
    if len(body) <= _OFFLOAD_ANSWER_BYTES:
        exchange.reply(compress(body, coding), content_type=content_type, headers=headers)
        return
    exchange.pending = asyncio.get_running_loop().run_in_executor(None, compress, body, coding)
    exchange.pending.add_done_callback(functools.partial(_compressed, exchange, content_type, headers))


def _compressed(
    exchange: Exchange, content_type: bytes, headers: list[tuple[bytes, bytes]], packed: asyncio.Future[bytes]
) -> None:
    if packed.cancelled():
        return
    if (error := packed.exception()) is not None:
        exchange.fail(error)
        return
    exchange.reply(packed.result(), content_type=content_type, headers=headers)
