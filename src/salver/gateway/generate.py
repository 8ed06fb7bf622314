"""The doors for answers bit by bit over HTTP: Triton's generate extension, and inference as events."""

from __future__ import annotations

from salver.gateway.contracts import Contracts, make_request
from salver.gateway.doorway import Written, decode, read_plain, send
from salver.gateway.events import send_events
from salver.gateway.exchange import JSON, Exchange
from salver.gateway.infer import EVENTS, InferDoor
from salver.gateway.negotiation import check_accept
from salver.gateway.routes import HttpRoute
from salver.gateway.schemas import InferenceRequest
from salver.protocol.codecs.generate import GenerateAnswers, read_generate
from salver.protocol.codecs.oip_request import InferBody
from salver.protocol.request import Request, Response
from salver.protocol.signature import SignatureCheck
from salver.routing.router import Router, Target
from salver.security.access import Operation

__all__ = ["GenerateDoor", "generate_routes"]


class _Contract:
    """What this door prepares once for each version behind an endpoint."""

    __slots__ = ("answers", "check", "target")

    def __init__(self, target: Target) -> None:
        spec, manifest = target.spec, target.manifest
        self.target = target
        self.check = SignatureCheck(manifest.signature)
        self.answers = GenerateAnswers(spec.endpoint, manifest.version, self.check.outputs, spec.nonfinite)

    def request(self, exchange: Exchange, body: InferBody) -> Request:
        return make_request(exchange, self.target, self.check, body.inputs, id=body.id, parameters=body.parameters)

    def write(self, request: Request, response: Response) -> Written:
        return Written(self.answers.encode(request, response))


class GenerateDoor:
    """Answers `generate` in one piece, `generate_stream` and `infer_stream` as events."""

    def __init__(self, router: Router, infer: InferDoor, max_elements: int) -> None:
        self._contracts = Contracts(router, _Contract)
        self._infer = infer
        self._max_elements = max_elements

    def generate(self, exchange: Exchange) -> None:
        """Everything that the model generates, joined."""
        self._check_accept(exchange, JSON)
        read_plain(exchange, self._read_joined)

    def _read_joined(self, exchange: Exchange, body: bytes) -> None:
        contract = self._contract(exchange)

        def ask(exchange: Exchange, asked: InferBody) -> None:
            send(exchange, contract.target, contract.request(exchange, asked), contract.write)

        decode(exchange, body, lambda body: self._read(contract, body), ask)

    def generate_stream(self, exchange: Exchange) -> None:
        """An event for each part that the model generates."""
        self._check_accept(exchange, EVENTS)
        read_plain(exchange, self._read_streamed)

    def _read_streamed(self, exchange: Exchange, body: bytes) -> None:
        contract = self._contract(exchange)

        def ask(exchange: Exchange, asked: InferBody) -> None:
            answers, request = contract.answers, contract.request(exchange, asked)
            send_events(exchange, contract.target, request, answers.encode, answers.encode_last)

        decode(exchange, body, lambda body: self._read(contract, body), ask)

    def _read(self, contract: _Contract, body: bytes) -> InferBody:
        return read_generate(body, contract.target.manifest.signature, self._max_elements)

    def infer_stream(self, exchange: Exchange) -> None:
        """An event for each answer of the Open Inference Protocol."""
        read_plain(exchange, self._infer_streamed)

    def _infer_streamed(self, exchange: Exchange, body: bytes) -> None:
        contract, request = self._infer.prepare(exchange, body, as_events=True)
        wants_last = request.parameters is not None and request.parameters.get("triton_enable_empty_final_response")
        send_events(
            exchange,
            contract.target,
            request,
            lambda request, response, timing: contract.encode(request, response, timing)[0],
            lambda request, timing: contract.write_last(request, timing) if wants_last or timing else None,
        )

    def _contract(self, exchange: Exchange) -> _Contract:
        params = exchange.params
        contract = self._contracts.of(params["model"], params.get("version"))
        exchange.endpoint = contract.target.spec.endpoint
        return contract

    @staticmethod
    def _check_accept(exchange: Exchange, offered: bytes) -> None:
        # Any type may come in: `curl -d` names a form's, and this is how the extension is shown everywhere.
        if b"accept" in exchange.headers:
            check_accept(exchange.headers[b"accept"], offered)


def generate_routes(door: GenerateDoor) -> list[HttpRoute]:
    """All routes of these doors."""
    predict = Operation.PREDICT
    inferred = ("Inference answered as events", InferenceRequest)
    routes = []
    for at in ("", "/versions/{version}"):
        path = "/v2/models/{model}" + at
        routes += [
            HttpRoute("POST", path + "/generate", predict, door.generate, "What a model generates, joined"),
            HttpRoute(
                "POST", path + "/generate_stream", predict, door.generate_stream, "What a model generates, as events"
            ),
            HttpRoute("POST", path + "/infer_stream", predict, door.infer_stream, *inferred),
        ]
    return routes
