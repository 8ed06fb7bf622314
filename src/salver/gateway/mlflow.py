"""MLflow's scoring server: `/invocations`, `/ping`, `/health` and `/version`.

The paths name no model; see `EndpointChoice`. SageMaker uses two of them as well, and Azure Machine
Learning has one for the same forms. A body of the Open Inference Protocol is answered in that protocol, and
one for embeddings in OpenAI's.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from salver import __version__
from salver.gateway.choosing import EndpointChoice
from salver.gateway.contracts import Contracts, PlainContract, make_request
from salver.gateway.descriptions import Descriptions
from salver.gateway.doorway import Writer, Written, decode, read_plain, send
from salver.gateway.exchange import JSON, Exchange, Refusal
from salver.gateway.infer import InferDoor
from salver.gateway.openai import EmbeddingsDoor
from salver.gateway.routes import HttpRoute
from salver.gateway.schemas_scoring import Health, ScoringRequest, ScoringResponse
from salver.gateway.scoring_media import CSV, FRAMED, LINES, RAW, Kind, answer_media, kind_of
from salver.protocol.codecs.azure import mlflow_form
from salver.protocol.codecs.mlflow import FORMS, SCORING_REMEDY, decode_csv, decode_scoring, is_open_inference
from salver.protocol.codecs.openai import decode_embeddings
from salver.protocol.codecs.plain_json import decode_object
from salver.protocol.codecs.sagemaker import decode_lines
from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.protocol.tensor import Tensor
from salver.routing.router import Router
from salver.security.access import Operation

__all__ = ["MlflowDoor", "mlflow_routes"]

_ENCODE: Final = msgspec.json.Encoder().encode
_HEALTHY: Final = b'{"status":"Healthy"}'
_UNHEALTHY: Final = b'{"status":"Unhealthy"}'
_ATTRIBUTES: Final = b"x-amzn-sagemaker-custom-attributes"
_LONGEST_ATTRIBUTES: Final = 1024
"""SageMaker's own limit."""
_JSON_LENGTH: Final = b"inference-header-content-length"
_MOST_TOLD: Final = 10
"""Warnings in a header, whose size is limited where it is read."""
_ERROR_CODES: Final = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "RESOURCE_EXHAUSTED",
}
"""MLflow's names, of its `databricks.proto`, by status."""

_WARNINGS: Final = b"x-salver-warnings"
Other = Callable[[Exchange], None]
"""The way to the door of another protocol."""


class _Contract(PlainContract):
    """What this door prepares once for each version behind an endpoint."""

    __slots__ = ()

    def write(self, media: bytes, bare: bool, request: Request, response: Response) -> Written:
        """`{"predictions": ...}` with the warnings where there are any; or `bare` predictions, CSV or lines."""
        del request
        if media is JSON and not bare:
            more = b',"salver_warnings":' + _ENCODE(response.warnings) if response.warnings else b""
            return Written(b'{"predictions":%b%b}' % (self.answers.encode(response), more), JSON, self.headers)
        answers = self.answers
        body = {JSON: answers.encode, CSV: answers.encode_csv, LINES: answers.encode_lines}[media](response)
        warned = ((_WARNINGS, _told_warnings(response.warnings)),) if response.warnings else ()
        return Written(body, media, (*self.headers, *warned))


class MlflowDoor:
    """Turns `POST /invocations` into requests of the router, and answers back.

    `csv_header` says whether CSV begins with names where its media type does not.
    """

    def __init__(
        self,
        router: Router,
        choice: EndpointChoice,
        descriptions: Descriptions,
        open_inference: InferDoor,
        embeddings: EmbeddingsDoor,
        max_elements: int,
        *,
        csv_header: bool = True,
    ) -> None:
        self._contracts = Contracts(router, _Contract)
        self._csv_header = csv_header
        self._choice = choice
        self._descriptions = descriptions
        self._open_inference = open_inference
        self._embeddings = embeddings
        self._max_elements = max_elements

    def open(self, exchange: Exchange) -> None:
        """Begin an inference; raises SalverError, or answers the exchange when the model has.

        A path that names a model leads to that endpoint.
        """
        attributes = exchange.headers.get(_ATTRIBUTES, b"")
        if attributes and len(attributes) <= _LONGEST_ATTRIBUTES and attributes.decode("latin-1").isprintable():
            exchange.add_header(_ATTRIBUTES, attributes)
        read_plain(exchange, functools.partial(self._choose, bare=False))

    def score(self, exchange: Exchange) -> None:
        """The same in Azure's form: inputs under `input_data`, bare predictions back."""
        read_plain(exchange, functools.partial(self._choose, bare=True))

    def ping(self, exchange: Exchange) -> None:
        """Whether every required endpoint has a healthy replica and the server is not draining."""
        ready = self._descriptions.is_ready(draining=exchange.lane.gateway.draining)
        exchange.reply(_HEALTHY if ready else _UNHEALTHY, status=200 if ready else 503)

    def version(self, exchange: Exchange) -> None:
        """The version of the server as text."""
        exchange.reply(__version__.encode(), content_type=b"text/plain")

    def _choose(self, exchange: Exchange, body: bytes, *, bare: bool) -> None:
        kind = kind_of(exchange.headers.get(b"content-type", JSON))
        endpoint = exchange.params.get("model") or self._choice.of(exchange)
        exchange.params = {"model": endpoint}
        if kind.media == FRAMED:
            self._enqueue_framed(exchange, body, kind.json_bytes)
            return
        if kind.media == RAW:
            self._open_inference.enqueue(exchange, body)
            return
        contract = self._contracts.of(endpoint, None)
        exchange.endpoint = contract.target.spec.endpoint
        media = answer_media(exchange.headers.get(b"accept"))
        read = functools.partial(self._read, contract, kind)
        decode(exchange, body, read, functools.partial(self._enqueue, contract, media, bare))

    def _enqueue_framed(self, exchange: Exchange, body: bytes, json_bytes: bytes) -> None:
        # The mapping is another: that of a known head belongs to all its requests.
        headers = {name: value for name, value in exchange.headers.items() if name != b"accept"}
        exchange.headers = headers | {b"content-type": RAW, _JSON_LENGTH: json_bytes}
        contract, request = self._open_inference.prepare(exchange, body)
        send(exchange, contract.target, request, functools.partial(_in_media_type, contract.write))

    def _read(self, contract: _Contract, kind: Kind, body: bytes) -> dict[str, Tensor] | Other:
        """The inputs that a body holds, or the way to another door where it is written in another protocol."""
        signature = contract.target.manifest.signature
        if kind.media == CSV:
            has_header = kind.has_header
            if has_header is None and not self._csv_header:
                has_header = False
            return decode_csv(body, signature, self._max_elements, has_header)
        if kind.media == LINES:
            return decode_scoring(decode_lines(body), signature, self._max_elements)
        value = decode_object(body, tokens=True, remedy=SCORING_REMEDY)
        if is_open_inference(value):
            return lambda exchange: self._open_inference.enqueue(exchange, body)
        if "input" in value and not value.keys() & set(FORMS):
            # MLflow takes what OpenAI's clients send, and answers it as OpenAI does.
            asked = decode_embeddings(body)
            asked.model = contract.target.spec.endpoint
            return lambda exchange: self._embeddings.enqueue(exchange, asked)
        return decode_scoring(mlflow_form(value), signature, self._max_elements)

    def _enqueue(
        self, contract: _Contract, media: bytes, bare: bool, exchange: Exchange, found: dict[str, Tensor] | Other
    ) -> None:
        if not isinstance(found, dict):
            found(exchange)
            return
        request = make_request(exchange, contract.target, contract.check, found)
        send(exchange, contract.target, request, functools.partial(contract.write, media, bare))


def _in_media_type(write: Writer, request: Request, response: Response) -> Written:
    """An answer with binary tensors, the length of its JSON where SageMaker has it."""
    written = write(request, response)
    told = dict(written.headers)
    length = told.pop(_JSON_LENGTH, None)
    content_type = written.content_type if length is None else FRAMED + b";json-header-size=" + length
    return Written(written.body, content_type, tuple(told.items()))


def _told_warnings(warnings: Sequence[str]) -> bytes:
    """Warnings as a header may hold them, where a body has no place for them."""
    return json.dumps(list(warnings[:_MOST_TOLD])).encode()


def mlflow_refusal(error: SalverError) -> Refusal:
    """What MLflow's server says: an object, but plain text where the media type is the fault."""
    if error.http == 415:
        return Refusal(415, b"text/plain", str(error).encode())
    name = _ERROR_CODES.get(error.http) or ("BAD_REQUEST" if error.http < 500 else "INTERNAL_ERROR")
    return Refusal(error.http, JSON, _ENCODE({"error_code": name, "message": str(error)}))


def mlflow_routes(door: MlflowDoor) -> list[HttpRoute]:
    """All routes of the protocol on the data listener."""
    predict = Operation.PREDICT
    scored = ("Answer a scoring request of MLflow", ScoringRequest, ScoringResponse)
    return [
        HttpRoute("POST", "/invocations", predict, door.open, *scored, refusal=mlflow_refusal),
        HttpRoute("GET", "/ping", None, door.ping, "Is the server ready? For MLflow and SageMaker", None, Health),
        HttpRoute("GET", "/health", None, door.ping, "Is the server ready?", None, Health),
        HttpRoute("GET", "/version", predict, door.version, "The version of the server", refusal=mlflow_refusal),
    ]
