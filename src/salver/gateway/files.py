"""Files and forms with files, answered in the Open Inference Protocol."""

from __future__ import annotations

import functools
from typing import Any, Final

from salver.gateway.contracts import Contracts, make_request
from salver.gateway.doorway import decode, read_plain, send
from salver.gateway.exchange import JSON, Exchange
from salver.gateway.infer import OipContract
from salver.gateway.negotiation import check_accept
from salver.gateway.routes import HttpRoute
from salver.gateway.schemas import InferenceResponse
from salver.protocol.codecs.files import decode_upload
from salver.protocol.errors import SalverError
from salver.protocol.tensor import Tensor
from salver.routing.router import Router
from salver.security.access import Operation

__all__ = ["FilesDoor", "files_routes"]

_BINARY: Final = b"application/octet-stream"


class FilesDoor:
    """Turns `POST /v2/models/{model}/predict` into requests of the router, and answers back."""

    def __init__(self, router: Router, max_elements: int) -> None:
        self._contracts = Contracts(router, OipContract)
        self._max_elements = max_elements

    def open(self, exchange: Exchange) -> None:
        """Begin an inference; raises SalverError, or answers the exchange when the model has."""
        read_plain(exchange, self._read)

    def _read(self, exchange: Exchange, body: bytes) -> None:
        contract = self._contracts.of(exchange.params["model"], exchange.params.get("version"))
        exchange.endpoint = contract.target.spec.endpoint
        parameters = _wanted(exchange)
        content_type, signature = exchange.headers.get(b"content-type"), contract.target.manifest.signature
        decode(
            exchange,
            body,
            lambda upload: decode_upload(content_type, upload, signature, self._max_elements),
            functools.partial(_enqueue, contract, parameters),
        )


def _enqueue(
    contract: OipContract, parameters: dict[str, Any] | None, exchange: Exchange, inputs: dict[str, Tensor]
) -> None:
    request = make_request(exchange, contract.target, contract.check, inputs, parameters=parameters)
    send(exchange, contract.target, request, contract.write)


def _wanted(exchange: Exchange) -> dict[str, Any] | None:
    """The answer's form by the Accept header: JSON, or all outputs in binary for those who accept only that."""
    accept = exchange.headers.get(b"accept")
    if accept is None:
        return None
    try:
        check_accept(accept, JSON)
    except SalverError:
        check_accept(accept, _BINARY)
        return {"binary_data_output": True}
    return None


def files_routes(door: FilesDoor) -> list[HttpRoute]:
    """The routes for files on the data listener."""
    told = ("Answer a file, or a form with files", None, InferenceResponse)
    return [
        HttpRoute("POST", path, Operation.PREDICT, door.open, *told)
        for path in ("/v2/models/{model}/predict", "/v2/models/{model}/versions/{version}/predict")
    ]
