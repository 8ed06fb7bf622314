"""The door for inference in the REST interface of TensorFlow Serving, KServe's first protocol and Vertex AI.

One route serves all three: `POST /v1/models/{model}:predict`. KServe's clients may wrap request
and answer in CloudEvents.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from salver.gateway.contracts import Contracts, make_request
from salver.gateway.doorway import Writer, Written, decode, read_plain, send
from salver.gateway.exchange import JSON, Exchange
from salver.gateway.negotiation import check_accept
from salver.protocol.codecs.cloudevents import STRUCTURED, Event, data_of, is_binary, is_structured
from salver.protocol.codecs.plain_json import decode_object
from salver.protocol.codecs.tfs_request import read_examples, read_predict
from salver.protocol.codecs.tfs_response import TfsAnswers, score_output, value_output
from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.protocol.signature import SignatureCheck
from salver.protocol.tensor import Tensor
from salver.routing.router import Router, Target

__all__ = ["TfsDoor", "not_found"]

_ENCODE: Final = msgspec.json.Encoder().encode

Asked = tuple[dict[str, Tensor], Callable[[Response], bytes]]
"""The tensors of a request, and what makes JSON of the answer to it."""


class _Form(enum.Enum):
    """How a request was wrapped, and its answer will be."""

    PLAIN = enum.auto()
    BINARY_EVENT = enum.auto()
    STRUCTURED_EVENT = enum.auto()

    @property
    def media_type(self) -> bytes:
        """That of the answer."""
        return STRUCTURED if self is _Form.STRUCTURED_EVENT else JSON


class _Contract:
    """What this door prepares once for each version behind an endpoint."""

    __slots__ = ("_answers", "_headers", "_scores", "_signature", "_value", "check", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self._signature = target.manifest.signature
        self.check = SignatureCheck(self._signature)
        self._answers = TfsAnswers(self.check.outputs, target.spec.nonfinite)
        self._scores = score_output(self._signature)
        self._value = value_output(self._signature)
        # The bodies have no place for the version that answered.
        self._headers = ((b"x-salver-version", target.manifest.reference.encode()),)

    def predict(self, document: dict[str, Any], max_elements: int) -> Asked:
        """Rows in and out, or columns in and out."""
        asked = read_predict(document, self._signature, max_elements)
        return asked.inputs, self._answers.rows if asked.by_row else self._answers.columns

    def classify(self, document: dict[str, Any], max_elements: int) -> Asked:
        """Examples in, a label and a score for each class out."""
        if self._scores is None:
            raise _wrong_method("classification", "classify", "one floating-point output of shape [-1, classes]")
        inputs = read_examples(document, self._signature, max_elements)
        return inputs, functools.partial(self._answers.classes, scores=self._scores)

    def regress(self, document: dict[str, Any], max_elements: int) -> Asked:
        """Examples in, a number for each out."""
        if self._value is None:
            raise _wrong_method("regression", "regress", "one floating-point output of shape [-1] or [-1, 1]")
        inputs = read_examples(document, self._signature, max_elements)
        return inputs, functools.partial(self._answers.values, value=self._value)

    def writer(self, exchange: Exchange, encode: Callable[[Response], bytes], form: _Form) -> Writer:
        """Writes what `encode` makes of an answer; as an event if the request was one."""

        def write(request: Request, response: Response) -> Written:
            del request
            body = encode(response)
            if response.warnings:
                body = b'%b,"salver_warnings":%b}' % (body[:-1], _ENCODE(response.warnings))
            if form is _Form.PLAIN:
                return Written(body, JSON, self._headers)
            event = Event(exchange.id.decode(), self.target.spec.endpoint, exchange.lane.gateway.clock.wall_s())
            if form is _Form.STRUCTURED_EVENT:
                return Written(event.structured(body), STRUCTURED, self._headers)
            return Written(body, JSON, (*event.headers(), *self._headers))

        return write


Method = Callable[[_Contract, dict[str, Any], int], Asked]


class TfsDoor:
    """Turns `POST /v1/models/{model}:predict`, `:classify` and `:regress` into requests of the router."""

    def __init__(self, router: Router, max_elements: int) -> None:
        self._contracts = Contracts(router, _Contract)
        self._max_elements = max_elements

    def predict(self, exchange: Exchange) -> None:
        """Begin a prediction; raises SalverError, or answers the exchange when the model has."""
        read_plain(exchange, functools.partial(self._read, _Contract.predict))

    def classify(self, exchange: Exchange) -> None:
        """Begin a classification, likewise."""
        read_plain(exchange, functools.partial(self._read, _Contract.classify))

    def regress(self, exchange: Exchange) -> None:
        """Begin a regression, likewise."""
        read_plain(exchange, functools.partial(self._read, _Contract.regress))

    def explain(self, exchange: Exchange) -> None:
        """Refused; for an endpoint that is not there with NOT_FOUND."""
        self._contract(exchange)
        raise SalverError("UNSUPPORTED", "this server gives no explanations", "ask for a prediction with :predict")

    def _contract(self, exchange: Exchange) -> _Contract:
        model, version = exchange.params["model"], exchange.params.get("version")
        try:
            contract = self._contracts.of(model, version)
        except SalverError as error:
            which = f"Latest({model[:140]})" if version is None else f"Specific({model[:140]}, {version[:64]})"
            raise not_found(error, f"Servable not found for request: {which}") from None
        exchange.endpoint = contract.target.spec.endpoint
        return contract

    def _read(self, method: Method, exchange: Exchange, body: bytes) -> None:
        contract = self._contract(exchange)
        form = _form_of(exchange.headers)
        if b"accept" in exchange.headers:
            check_accept(exchange.headers[b"accept"], form.media_type)

        def read(body: bytes) -> Asked:
            # Any media type: `curl -d` as TensorFlow Serving's own examples use it names a form's.
            document = data_of(body) if form is _Form.STRUCTURED_EVENT else decode_object(body, tokens=True)
            return method(contract, document, self._max_elements)

        decode(exchange, body, read, functools.partial(self._enqueue, contract, form))

    def _enqueue(self, contract: _Contract, form: _Form, exchange: Exchange, asked: Asked) -> None:
        inputs, encode = asked
        request = make_request(exchange, contract.target, contract.check, inputs)
        send(exchange, contract.target, request, contract.writer(exchange, encode, form))


def not_found(error: SalverError, message: str) -> SalverError:
    """`error`, in TensorFlow Serving's words if it says that something is not there."""
    return SalverError("NOT_FOUND", message) if error.code == "NOT_FOUND" else error


def _form_of(headers: Mapping[bytes, bytes]) -> _Form:
    if is_structured(headers.get(b"content-type", JSON)):
        return _Form.STRUCTURED_EVENT
    return _Form.BINARY_EVENT if is_binary(headers) else _Form.PLAIN


def _wrong_method(kind: str, method: str, needs: str) -> SalverError:
    return SalverError(
        "INVALID_PARAMETER",
        f"Expected {kind} signature method_name to be tensorflow/serving/{method}. Was: tensorflow/serving/predict",
        f"the model would need {needs}; ask with :predict",
    )
