"""The door for inference in the Open Inference Protocol over HTTP: the hot path.

Synchronous up to the queue: parse, resolve, decode, check, enqueue; then one callback when the
answer is there. Nothing is computed per request that can be computed per version or per batch.
"""

from __future__ import annotations

import functools
from typing import Final

from salver.gateway.contracts import Contracts, make_request
from salver.gateway.doorway import Written, aside, read_plain, send
from salver.gateway.exchange import JSON, Exchange
from salver.gateway.negotiation import check_accept, check_content_type
from salver.protocol.codecs.oip_request import InferBody, decode_json, decode_raw_tensor, decode_with_binary
from salver.protocol.codecs.oip_response import ResponseEncoder
from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.protocol.signature import SignatureCheck
from salver.routing.router import Router, Target

__all__ = ["EVENTS", "InferDoor", "OipContract"]

EVENTS: Final = b"text/event-stream"

_BINARY: Final = b"application/octet-stream"
_JSON_LENGTH: Final = b"inference-header-content-length"
_USUAL_TYPES: Final = frozenset({b"application/json", _BINARY})
_LENGTH_DIGITS: Final = 12
_DECODE_ASIDE_BYTES: Final = 2**20
"""Above this, what is not numbers in binary is read off the event loop."""


class OipContract:
    """What is prepared once for each version behind an endpoint whose answers are of the protocol."""

    __slots__ = ("_encoder", "check", "takes_bytes", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        spec, manifest = target.spec, target.manifest
        self.check = SignatureCheck(manifest.signature)
        self.takes_bytes = any(spec.datatype == "BYTES" for spec in manifest.signature.inputs)
        self._encoder = ResponseEncoder(
            spec.endpoint, manifest.model, manifest.version, self.check.outputs, spec.nonfinite
        )

    def request(self, asked: Exchange, infer: InferBody) -> Request:
        """The request for what a client sent; raises SalverError if the signature forbids it."""
        return make_request(
            asked,
            self.target,
            self.check,
            infer.inputs,
            id=infer.id,
            outputs=infer.outputs,
            parameters=infer.parameters,
        )

    def encode(self, request: Request, response: Response, timing: str) -> tuple[bytes, int | None]:
        """The answer, and the length of its JSON where binary tensors stand behind it."""
        return self._encoder.encode(request, response, timing)

    def write(self, request: Request, response: Response) -> Written:
        """The answer as JSON, or as JSON with binary tensors behind it."""
        body, json_bytes = self._encoder.encode(request, response)
        if json_bytes is None:
            return Written(body, JSON, ())
        return Written(body, _BINARY, ((_JSON_LENGTH, b"%d" % json_bytes),))

    def write_last(self, request: Request, timing: str) -> bytes:
        """Behind the answers of a stream, the one that says that they were all."""
        return self._encoder.encode_last(request, timing)


class InferDoor:
    """Turns `POST /v2/models/{model}/infer` into requests of the router, and answers back."""

    def __init__(self, router: Router, max_elements: int) -> None:
        self._contracts = Contracts(router, OipContract)
        self._max_elements = max_elements

    def open(self, exchange: Exchange) -> None:
        """Begin an inference; raises SalverError, or answers the exchange when the model has."""
        read_plain(exchange, self.enqueue)

    def enqueue(self, exchange: Exchange, body: bytes) -> None:
        """Ask the model that the exchange's `params` name for what `body` says; raises SalverError."""
        if len(body) > _DECODE_ASIDE_BYTES:
            contract = self.contract_of(exchange)
            if _JSON_LENGTH not in exchange.headers or contract.takes_bytes:
                read = functools.partial(self._read, exchange, body, contract.target, as_events=False)
                aside(exchange, read, functools.partial(_ask, contract))
                return
        contract = self.contract_of(exchange)
        infer = self._read(exchange, body, contract.target, as_events=False)
        send(exchange, contract.target, contract.request(exchange, infer), contract.write)

    def prepare(self, exchange: Exchange, body: bytes, *, as_events: bool = False) -> tuple[OipContract, Request]:
        """The request that `body` is, and who answers it, without asking yet; raises what is wrong with it.

        Where it is answered as events, which are text, it may ask for no binary tensors.
        """
        contract = self.contract_of(exchange)
        return contract, contract.request(exchange, self._read(exchange, body, contract.target, as_events=as_events))

    def contract_of(self, exchange: Exchange) -> OipContract:
        """The contract with the version that the exchange's `params` name."""
        params = exchange.params
        contract = self._contracts.of(params["model"], params.get("version"))
        exchange.endpoint = contract.target.spec.endpoint
        return contract

    def _read(self, exchange: Exchange, body: bytes, target: Target, *, as_events: bool) -> InferBody:
        headers = exchange.headers
        content_type = headers.get(b"content-type")
        if content_type is not None and content_type not in _USUAL_TYPES:
            check_content_type(content_type)
        if _JSON_LENGTH in headers:
            infer = self._decode(headers[_JSON_LENGTH], body, target)
        else:
            infer = decode_json(body, self._max_elements)
        if b"accept" in headers and headers[b"accept"] != b"*/*":
            check_accept(headers[b"accept"], EVENTS if as_events else _offered(infer))
        if as_events and _offered(infer) is not JSON:
            raise SalverError(
                "INVALID_PARAMETER", "binary outputs are asked for, and events are text", "leave them out"
            )
        return infer

    def _decode(self, json_length: bytes, body: bytes, target: Target) -> InferBody:
        if not json_length.isdigit() or len(json_length) > _LENGTH_DIGITS:
            raise SalverError(
                "INVALID_TENSOR",
                f"Inference-Header-Content-Length is {json_length[:40].decode('latin-1')!r}, no length",
            )
        if int(json_length) == 0:
            return decode_raw_tensor(body, target.manifest.signature, self._max_elements)
        return decode_with_binary(body, int(json_length), self._max_elements)


def _ask(contract: OipContract, exchange: Exchange, infer: InferBody) -> None:
    send(exchange, contract.target, contract.request(exchange, infer), contract.write)


def _offered(infer: InferBody) -> bytes:
    binary = bool(infer.parameters and infer.parameters.get("binary_data_output")) or any(
        output.binary for output in infer.outputs or ()
    )
    return _BINARY if binary else JSON
