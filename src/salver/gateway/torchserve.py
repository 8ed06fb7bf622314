"""TorchServe's inference interface: `/predictions` with a file, a form or JSON. Its `/ping` is MLflow's as well."""

from __future__ import annotations

import functools
from typing import Final

import msgspec

from salver.gateway.contracts import Contracts, PlainContract, make_request
from salver.gateway.doorway import Written, decode, read_plain, send
from salver.gateway.exchange import JSON, Exchange, Refusal
from salver.gateway.negotiation import check_accept
from salver.gateway.routes import HttpRoute
from salver.protocol.codecs.torchserve import TorchServeError, Upload, read_prediction, torchserve_error
from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.routing.router import Router
from salver.security.access import Operation

__all__ = ["TorchServeDoor", "torchserve_routes"]

_ENCODE: Final = msgspec.json.Encoder().encode


class _Contract(PlainContract):
    """What this door prepares once for each version behind an endpoint."""

    __slots__ = ()

    def write(self, asked: Upload, request: Request, response: Response) -> Written:
        """What a handler would have returned for one request."""
        del request
        if asked.alone:
            return Written(self.answers.encode_row(response), JSON, self.headers)
        body = self.answers.encode(response)
        return Written(b'{"predictions":%b}' % body if asked.in_envelope else body, JSON, self.headers)


class TorchServeDoor:
    """Turns `POST /predictions/{model}` into requests of the router, and answers back."""

    def __init__(self, router: Router, max_elements: int) -> None:
        self._router = router
        self._contracts = Contracts(router, _Contract)
        self._max_elements = max_elements

    def open(self, exchange: Exchange) -> None:
        """Begin an inference; raises SalverError, or answers the exchange when the model has."""
        read_plain(exchange, self._read)

    def explain(self, exchange: Exchange) -> None:
        """Refused; for an endpoint that is not there with NOT_FOUND."""
        self._contract(exchange)
        raise SalverError("UNSUPPORTED", "this server gives no explanations", "ask for a prediction: /predictions")

    def _contract(self, exchange: Exchange) -> _Contract:
        model = exchange.params["model"]
        try:
            contract = self._contracts.of(model, exchange.params.get("version"))
        except SalverError as error:
            if error.code != "NOT_FOUND":
                raise
            known = model in self._router.names()
            raise TorchServeError(
                error, "ModelVersionNotFoundException" if known else "ModelNotFoundException"
            ) from None
        exchange.endpoint = contract.target.spec.endpoint
        return contract

    def _read(self, exchange: Exchange, body: bytes) -> None:
        contract = self._contract(exchange)
        if b"accept" in exchange.headers:
            check_accept(exchange.headers[b"accept"], JSON)
        content_type, signature = exchange.headers.get(b"content-type"), contract.target.manifest.signature
        decode(
            exchange,
            body,
            lambda upload: read_prediction(content_type, upload, signature, self._max_elements),
            functools.partial(_enqueue, contract),
        )


def _enqueue(contract: _Contract, exchange: Exchange, asked: Upload) -> None:
    request = make_request(exchange, contract.target, contract.check, asked.inputs)
    send(exchange, contract.target, request, functools.partial(contract.write, asked))


def torchserve_refusal(error: SalverError) -> Refusal:
    """What TorchServe's clients read."""
    return Refusal(error.http, JSON, _ENCODE(torchserve_error(error)))


def torchserve_routes(door: TorchServeDoor) -> list[HttpRoute]:
    """The routes on the data listener; those to manage models are the control listener's."""
    routes = []
    doors = (
        ("/predictions", door.open, "Answer a file, a form or JSON, as TorchServe does"),
        ("/explanations", door.explain, "Refused: there are no explanations"),
    )
    for at in ("/{model}", "/{model}/{version}"):
        for verb in ("POST", "PUT"):
            routes += [
                HttpRoute(verb, path + at, Operation.PREDICT, asked, told, refusal=torchserve_refusal)
                for path, asked, told in doors
            ]
    return routes
