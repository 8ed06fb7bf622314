"""OpenAI's embeddings for versions of kind `embed`: `POST /v1/embeddings`."""

from __future__ import annotations

import functools
import re
from typing import Final

import msgspec

from salver.gateway.contracts import Contracts, make_request
from salver.gateway.doorway import Written, decode, read_plain, send
from salver.gateway.exchange import JSON, Exchange, Refusal
from salver.gateway.negotiation import check_accept, check_content_type
from salver.gateway.routes import HttpRoute, Stray, UnroutedError
from salver.gateway.schemas_scoring import EmbeddingsRequest, EmbeddingsResponse
from salver.protocol.codecs.openai import (
    EmbeddingsBody,
    EmbeddingsError,
    decode_embeddings,
    embedding_output,
    encode_embeddings,
    inputs_of,
    require_dimensions,
    token_output,
)
from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.protocol.signature import SignatureCheck
from salver.routing.router import Router, Target
from salver.security.access import Operation

__all__ = ["OPENAI_STRAYS", "EmbeddingsDoor", "openai_refusal", "openai_routes"]

_ENCODE: Final = msgspec.json.Encoder().encode
_KIND: Final = "embed"
_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES: Final = {
    "NOT_FOUND": "model_not_found",
    "UNAUTHENTICATED": "invalid_api_key",
    "QUEUE_FULL": "rate_limit_exceeded",
}
"""What OpenAI calls these; other errors have the code of our catalogue."""


class _Contract:
    """What this door prepares once for each version behind an endpoint."""

    __slots__ = ("_counts", "_headers", "_output", "check", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        manifest = target.manifest
        if manifest.kind != _KIND:
            raise EmbeddingsError(
                "INVALID_PARAMETER",
                f"endpoint {target.spec.endpoint!r} serves a version of kind {manifest.kind!r}, which embeds nothing",
                'say kind = "embed" in its salver-model.toml, or use /v2/models/NAME/infer',
                param="model",
            )
        self.check = SignatureCheck(manifest.signature)
        self._output = embedding_output(manifest.signature)
        self._counts = token_output(manifest.signature)
        self._headers = ((b"x-salver-version", manifest.reference.encode()),)

    def require(self, asked: EmbeddingsBody) -> None:
        """Refuse before the model has run what could not be answered."""
        require_dimensions(asked, self._output.shape[1])

    def write(self, asked: EmbeddingsBody, request: Request, response: Response) -> Written:
        """A list of embeddings."""
        nonfinite = self.target.spec.nonfinite
        body = encode_embeddings(asked, response, request.endpoint, self._output, self._counts, nonfinite)
        return Written(body, JSON, self._headers)


class EmbeddingsDoor:
    """Turns requests for embeddings into requests of the router, and answers back."""

    def __init__(self, router: Router, max_elements: int) -> None:
        self._contracts = Contracts(router, _Contract)
        self._max_elements = max_elements

    def open(self, exchange: Exchange) -> None:
        """Begin an inference; raises SalverError, or answers the exchange when the model has."""
        if b"content-type" in exchange.headers:
            check_content_type(exchange.headers[b"content-type"])
        read_plain(exchange, self._read)

    def enqueue(self, exchange: Exchange, asked: EmbeddingsBody) -> None:
        """Ask the endpoint that `asked.model` names; raises SalverError."""
        if b"accept" in exchange.headers:
            check_accept(exchange.headers[b"accept"], JSON)
        contract = self._contracts.of(asked.model, None)
        target = contract.target
        exchange.endpoint = target.spec.endpoint
        contract.require(asked)
        inputs = inputs_of(asked, target.manifest.signature, self._max_elements)
        request = make_request(exchange, target, contract.check, inputs)
        send(exchange, target, request, functools.partial(contract.write, asked))

    def _read(self, exchange: Exchange, body: bytes) -> None:
        decode(exchange, body, decode_embeddings, self._require_model)

    def _require_model(self, exchange: Exchange, asked: EmbeddingsBody) -> None:
        if not asked.model:
            raise EmbeddingsError("INVALID_JSON", "'model' is missing", "name an endpoint", param="model")
        self.enqueue(exchange, asked)


def openai_refusal(error: SalverError) -> Refusal:
    """What OpenAI's clients read."""
    kind = _TYPES.get(error.http) or ("invalid_request_error" if error.http < 500 else "server_error")
    param, code = getattr(error, "param", ""), _CODES.get(error.code, error.code)
    if error.code == "NOT_FOUND":
        param, code = (None, "unknown_url") if isinstance(error, UnroutedError) else (param or "model", code)
    told = {"message": str(error), "type": kind, "param": param or None, "code": code}
    return Refusal(error.http, JSON, _ENCODE({"error": told}))


def openai_routes(door: EmbeddingsDoor) -> list[HttpRoute]:
    """The routes for embeddings on the data listener; the second is where KServe has it."""
    embedded = ("Embed texts, as OpenAI does", EmbeddingsRequest, EmbeddingsResponse)
    return [
        HttpRoute("POST", path, Operation.PREDICT, door.open, *embedded, refusal=openai_refusal)
        for path in ("/v1/embeddings", "/openai/v1/embeddings")
    ]


_HERE: Final = "of OpenAI's interface /v1/embeddings and /v1/models are here"
OPENAI_STRAYS: Final = (
    Stray(re.compile(rb"/v1/(?!models(?:[/:]|\Z))|/openai/"), _HERE, openai_refusal),
    Stray(
        re.compile(rb"/(?:chat/completions|completions|embeddings|responses)\Z"),
        f"{_HERE}, so a client's base URL ends in /v1",
        openai_refusal,
    ),
)
"""What clients of OpenAI's ask for that is not here; they print nothing of an error that is not in their shape."""
