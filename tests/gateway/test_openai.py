"""OpenAI's embeddings over real sockets."""

from __future__ import annotations

import base64
import json

import msgspec
import numpy as np
import pytest
from tests.gateway.computing import Computed, publish
from tests.gateway.scoring import broken
from tests.gateway.servers import Serve, Served
from tests.gateway.wire import _LEAK, RawClient, Reply, request

from salver.gateway.limits import Limits
from salver.gateway.schemas_scoring import EmbeddingsRequest, EmbeddingsResponse
from salver.protocol.errors import CATALOGUE
from salver.protocol.signature import Signature, TensorSpec

TEXTS = Signature((TensorSpec("text", "BYTES", (-1,)),), (TensorSpec("embedding", "FP32", (-1, 3)),))
TOKENS = Signature((TensorSpec("ids", "INT64", (-1, -1)),), (TensorSpec("embedding", "FP32", (-1, 3)),))
EMBEDS = {"kind": "embed"}


def lengths(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Texts to (bytes, vowels, 0.1)."""
    texts = inputs["text"].tolist()
    rows = [(len(text), sum(text.count(vowel) for vowel in (b"a", b"e", b"i", b"o", b"u")), 0.1) for text in texts]
    return {"embedding": np.array(rows, np.float32)}


def ids(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"embedding": np.stack([inputs["ids"].sum(axis=1)] * 3, axis=1).astype(np.float32)}


class OpenAiClient(RawClient):
    """Errors are what OpenAI's clients read."""

    def check(self, reply: Reply) -> None:
        assert set(reply.json) == {"error"}
        error = reply.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"]
        assert not _LEAK.search(error["message"]), reply
        assert reply.code is not None
        assert CATALOGUE[reply.code].http == reply.status


@pytest.fixture(scope="module")
def ordinary(serve_model: Serve) -> Served:
    """A server of these tests' own: what they publish is seen by no others."""
    return serve_model(Limits(body_bytes=2**20))


@pytest.fixture(scope="module", autouse=True)
def models(ordinary: Served) -> dict[str, Computed]:
    return publish(
        ordinary,
        texts=(TEXTS, lengths, EMBEDS),
        tokens=(TOKENS, ids, EMBEDS),
        broken=(TEXTS, broken, EMBEDS),
        labels=(TEXTS, lengths),
        odd=(Signature(TEXTS.inputs, (TensorSpec("n", "INT64", (-1,)),)), lengths, EMBEDS),
    )


def ask(server: Served, body: object, *headers: str, path: str = "/v1/embeddings") -> Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return OpenAiClient(server.connect().socket).ask(request("POST", path, data, headers))


@pytest.mark.parametrize("path", ["/v1/embeddings", "/openai/v1/embeddings"])
def test_texts_are_embedded(server: Served, path: str) -> None:
    reply = ask(server, {"model": "texts", "input": ["aha", "\u00e9"], "user": "u-1", "unknown": [1]}, path=path)
    assert (reply.status, reply.headers["x-salver-version"]) == (200, "texts@1.2.3")
    assert [row["embedding"][:2] for row in reply.json["data"]] == [[3, 2], [2, 0]]
    assert [row["index"] for row in reply.json["data"]] == [0, 1]
    assert reply.json["model"] == "texts"


@pytest.mark.parametrize("form", ["float", "base64"])
def test_what_is_answered_is_what_is_documented(server: Served, form: str) -> None:
    asked = {"model": "texts", "input": ["a", "b"], "encoding_format": form}
    msgspec.json.decode(json.dumps(asked).encode(), type=EmbeddingsRequest)
    msgspec.json.decode(ask(server, asked).body, type=EmbeddingsResponse)


def test_base64_is_what_the_same_numbers_are_in_little_endian_fp32(server: Served) -> None:
    asked = {"model": "texts", "input": "aha", "dimensions": 3}
    numbers = ask(server, asked).json["data"][0]["embedding"]
    packed = ask(server, {**asked, "encoding_format": "base64"}).json["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), "<f4").tolist() == numbers


def test_tokens_are_embedded_where_the_model_takes_them(server: Served) -> None:
    reply = ask(server, {"model": "tokens", "input": [[1, 2], [3, 4]]})
    assert [row["embedding"][0] for row in reply.json["data"]] == [3, 7]
    assert reply.json["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


def test_a_large_body_is_answered_in_the_same_order(server: Served) -> None:
    texts = ["x" * (each % 1000) for each in range(200)] + ["y" * 200_000]
    rows = ask(server, {"model": "texts", "input": texts}).json["data"]
    assert [row["embedding"][0] for row in rows] == [len(text) for text in texts]


def test_mlflow_s_path_takes_the_same_body_and_answers_the_same(server: Served) -> None:
    body = {"input": ["aha"]}
    told = ask(server, body, "X-Salver-Endpoint: texts", path="/invocations").json
    assert told == ask(server, {**body, "model": "texts"}).json


BAD: list[tuple[object, tuple[str, ...], int, str, str | None]] = [
    (b"", (), 400, "INVALID_JSON", None),
    (b"[]", (), 400, "INVALID_JSON", None),
    (b'{"model":"texts"}', (), 400, "INVALID_JSON", "input"),
    (b'{"input":"a"}', (), 400, "INVALID_JSON", "model"),
    (b'{"model":"texts","input":"a","input":"b"}', (), 400, "DUPLICATE_KEY", None),
    (b'{"model":"texts","input":' + b"[" * 50_000, (), 400, "INVALID_JSON", "input"),
    (b'{"model":"texts","input":"\xff"}', (), 400, "INVALID_JSON", None),
    (b'{"model":"tokens","input":[1' + b"0" * 400 + b"]}", (), 400, "INVALID_VALUE", None),
    ({"model": "texts", "input": []}, (), 400, "INVALID_VALUE", "input"),
    ({"model": "texts", "input": [1, 2]}, (), 400, "MISSING_INPUT", "input"),
    ({"model": "tokens", "input": "a"}, (), 400, "MISSING_INPUT", "input"),
    ({"model": "tokens", "input": [[1], [2, 3]]}, (), 400, "WRONG_SHAPE", None),
    ({"model": "texts", "input": "a", "encoding_format": "int8"}, (), 400, "INVALID_JSON", "encoding_format"),
    ({"model": "texts", "input": "a", "dimensions": 2}, (), 400, "INVALID_PARAMETER", "dimensions"),
    ({"model": "labels", "input": "a"}, (), 400, "INVALID_PARAMETER", "model"),
    ({"model": "odd", "input": "a"}, (), 400, "UNKNOWN_OUTPUT", None),
    ({"model": "text-embedding-3-small", "input": "a"}, (), 404, "model_not_found", "model"),
    ({"model": "broken", "input": "a"}, (), 500, "MODEL_ERROR", None),
    ({"model": "texts", "input": "a"}, ("Content-Type: multipart/form-data",), 415, "UNSUPPORTED_MEDIA_TYPE", None),
    ({"model": "texts", "input": "a"}, ("Accept: text/plain",), 406, "NOT_ACCEPTABLE", None),
    ({"model": "texts", "input": "a"}, ("Authorization: Bearer sk-none",), 401, "invalid_api_key", None),
    (b'{"model":"texts","input":"' + b"a" * 2**20 + b'"}', (), 413, "BODY_TOO_LARGE", None),
]


@pytest.mark.parametrize(("body", "headers", "status", "code", "param"), BAD)
def test_what_is_wrong_is_told_in_openai_s_shape_and_the_server_lives(
    server: Served, body: object, headers: tuple[str, ...], status: int, code: str, param: str | None
) -> None:
    reply = ask_any(server, body, *headers)
    if code == "BODY_TOO_LARGE":  # refused before its route is known
        assert (reply.status, reply.code) == (status, code)
    else:
        error = reply.json["error"]
        assert (reply.status, error["code"], error["param"]) == (status, code, param), reply
        kinds = {401: "authentication_error", 500: "server_error"}
        assert error["type"] == kinds.get(status, "invalid_request_error")
    assert ask(server, {"model": "texts", "input": "aha"}).status == 200


def ask_any(server: Served, body: object, *headers: str) -> Reply:
    if isinstance(body, bytes) and len(body) > 2**20:
        return server.post("/v1/embeddings", body, *headers)
    return ask(server, body, *headers)


def test_what_cannot_be_answered_does_not_run(server: Served, models: dict[str, Computed]) -> None:
    before = len(models["texts"].asked)
    ask(server, {"model": "texts", "input": "a", "dimensions": 2})
    assert len(models["texts"].asked) == before
