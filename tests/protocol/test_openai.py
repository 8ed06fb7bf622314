"""OpenAI's embeddings: what is asked for, and what is answered."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from salver.protocol.codecs.openai import (
    EmbeddingsError,
    decode_embeddings,
    embedding_output,
    encode_embeddings,
    inputs_of,
    require_dimensions,
    token_output,
)
from salver.protocol.errors import SalverError
from salver.protocol.request import BatchOutputs, Response
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import Nonfinite

VECTORS = TensorSpec("embedding", "FP32", (-1, 3))
COUNTS = TensorSpec("tokens", "INT32", (-1,))
TEXTS = Signature((TensorSpec("text", "BYTES", (-1,)),), (VECTORS, COUNTS))
COLUMN = Signature((TensorSpec("text", "BYTES", (-1, 1)),), (VECTORS,))
TOKENS = Signature((TensorSpec("ids", "INT64", (-1, -1)),), (VECTORS,))
EITHER = Signature(
    (TensorSpec("text", "BYTES", (-1,), optional=True), TensorSpec("ids", "INT64", (-1, -1), optional=True)), (VECTORS,)
)
MASKED = Signature((*TOKENS.inputs, TensorSpec("mask", "INT64", (-1, -1))), (VECTORS,))


def given(signature: Signature, value: Any) -> dict[str, Any]:
    asked = decode_embeddings(json.dumps({"input": value}).encode())
    return {name: tensor.numpy().tolist() for name, tensor in inputs_of(asked, signature, 100).items()}


@pytest.mark.parametrize(
    ("signature", "value", "wanted"),
    [
        (TEXTS, "a", {"text": [b"a"]}),
        (TEXTS, ["a", "\u00e9:{}"], {"text": [b"a", "\u00e9:{}".encode()]}),
        (TEXTS, "", {"text": [b""]}),
        (COLUMN, ["a", "b"], {"text": [[b"a"], [b"b"]]}),
        (TOKENS, [1, 2, 3], {"ids": [[1, 2, 3]]}),
        (TOKENS, [[1, 2], [3, 4]], {"ids": [[1, 2], [3, 4]]}),
        (EITHER, "a", {"text": [b"a"]}),
        (EITHER, [7], {"ids": [[7]]}),
    ],
)
def test_texts_and_tokens_go_to_the_input_that_takes_them(signature: Signature, value: Any, wanted: Any) -> None:
    assert given(signature, value) == wanted


@pytest.mark.parametrize(
    ("signature", "value", "code"),
    [
        (TEXTS, [], "INVALID_VALUE"),
        (TEXTS, ["a", 1], "INVALID_VALUE"),
        (TEXTS, ["a", [1]], "INVALID_VALUE"),
        (TOKENS, [[1], []], "INVALID_VALUE"),
        (TEXTS, [1, 2], "MISSING_INPUT"),
        (TEXTS, [[1, 2]], "MISSING_INPUT"),
        (TOKENS, "a", "MISSING_INPUT"),
        (MASKED, [1, 2], "MISSING_INPUT"),
        (TOKENS, [[1, 2], [3]], "WRONG_SHAPE"),
        (TOKENS, [2**63], "INVALID_VALUE"),
        (TOKENS, [[1] * 101], "INVALID_TENSOR"),
    ],
)
def test_what_a_model_does_not_take_is_refused(signature: Signature, value: Any, code: str) -> None:
    with pytest.raises(SalverError) as refused:
        given(signature, value)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "INVALID_JSON", None),
        (b"[]", "INVALID_JSON", ""),
        (b"{}", "INVALID_JSON", "input"),
        (b'{"input":null}', "INVALID_JSON", "input"),
        (b'{"input":{"text":"a"}}', "INVALID_JSON", "input"),
        (b'{"input":[true]}', "INVALID_JSON", "input"),
        (b'{"input":[1.5]}', "INVALID_JSON", "input"),
        (b'{"input":[[["a"]]]}', "INVALID_JSON", "input"),
        (b'{"input":"a","encoding_format":"int8"}', "INVALID_JSON", "encoding_format"),
        (b'{"input":"a","dimensions":"3"}', "INVALID_JSON", "dimensions"),
        (b'{"input":"a","model":3}', "INVALID_JSON", "model"),
        (b'{"input":"a","input":"b"}', "DUPLICATE_KEY", None),
        (b'{"input":"a","x":{"y":1,"y":2}}', "DUPLICATE_KEY", None),
        (b'{"input":' + b"[" * 100_000, "INVALID_JSON", "input"),
        (b'{"input":"a","x":' + b"[" * 100_000, "INVALID_JSON", None),
        (b'{"input":"\\ud800"}', "INVALID_JSON", None),
        (b'{"input":"\xff"}', "INVALID_JSON", None),
    ],
)
def test_what_is_no_request_is_refused_and_the_parameter_named(body: bytes, code: str, param: str | None) -> None:
    with pytest.raises(SalverError) as refused:
        decode_embeddings(body)
    assert refused.value.code == code
    assert getattr(refused.value, "param", None) == param


def answered(table: np.ndarray, policy: Nonfinite = Nonfinite.ERROR, datatype: str = "FP32", **asked: Any) -> Any:
    arrays = {"embedding": table, "tokens": np.arange(len(table), dtype=np.int32) + 10}
    response = Response("m", "1.0.0", BatchOutputs(arrays), 1, len(table))
    body = decode_embeddings(json.dumps({"input": "a", **asked}).encode())
    output = TensorSpec("embedding", datatype, (-1, 3))
    return json.loads(encode_embeddings(body, response, "texts", output, asked.pop("counts", "tokens"), policy))


TABLE = np.array([[9, 9, 9], [0.1, -2, 3e38], [0, 1, 2]], np.float32)


def test_embeddings_come_as_numbers_in_the_order_of_the_request_with_what_the_model_counted() -> None:
    answer = answered(TABLE)
    assert answer == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": TABLE[1].tolist()},
            {"object": "embedding", "index": 1, "embedding": TABLE[2].tolist()},
        ],
        "model": "texts",
        "usage": {"prompt_tokens": 23, "total_tokens": 23},
    }


@pytest.mark.parametrize("order", ["<f4", ">f4", "<f8", "<f2"])
def test_base64_is_little_endian_fp32_whatever_the_model_computes_in(order: str) -> None:
    table = np.array([[0, 0, 0], [0.5, -2, 8], [1, 2, 3]], order)
    first, second = (row["embedding"] for row in answered(table, encoding_format="base64")["data"])
    assert base64.b64decode(first) == b"\x00\x00\x00\x3f\x00\x00\x00\xc0\x00\x00\x00\x41"
    assert np.frombuffer(base64.b64decode(second), "<f4").tolist() == [1, 2, 3]


def test_bf16_is_widened() -> None:
    table = np.array([[0] * 3, [0x3F80, 0xC000, 0]], np.uint16)
    assert answered(table, datatype="BF16")["data"][0]["embedding"] == [1, -2, 0]


def test_nan_is_refused_in_lists_and_passes_in_base64() -> None:
    table = np.full((2, 3), np.nan, np.float32)
    for policy in (Nonfinite.ERROR, Nonfinite.PASS):
        with pytest.raises(SalverError) as refused:
            answered(table, policy)
        assert refused.value.code == "NONFINITE_OUTPUT"
    assert answered(table, Nonfinite.NULL)["data"][0]["embedding"] == [None] * 3
    packed = answered(table, encoding_format="base64")["data"][0]["embedding"]
    assert np.isnan(np.frombuffer(base64.b64decode(packed), "<f4")).all()


def test_tokens_that_were_sent_are_counted_and_those_nobody_counted_are_none() -> None:
    assert answered(TABLE, input=[[1, 2], [3, 4]])["usage"]["prompt_tokens"] == 4
    assert answered(TABLE, input=[1, 2, 3])["usage"]["prompt_tokens"] == 3
    assert answered(TABLE, counts=None)["usage"] == {"prompt_tokens": 0, "total_tokens": 0}


def test_the_width_of_the_model_is_the_only_one() -> None:
    require_dimensions(decode_embeddings(b'{"input":"a","dimensions":3}'), 3)
    require_dimensions(decode_embeddings(b'{"input":"a","dimensions":3}'), -1)
    for dimensions in (0, -1, 2, 4):
        with pytest.raises(EmbeddingsError) as refused:
            answered(TABLE, dimensions=dimensions)
        assert (refused.value.code, refused.value.param) == ("INVALID_PARAMETER", "dimensions")


def test_the_output_is_the_one_called_embedding_or_the_only_one_that_can_be() -> None:
    hidden = TensorSpec("hidden", "FP32", (-1, 8))
    assert embedding_output(TEXTS) is VECTORS
    assert embedding_output(Signature(TEXTS.inputs, (hidden, VECTORS))) is VECTORS
    assert embedding_output(Signature(TEXTS.inputs, (COUNTS, hidden))) is hidden
    assert token_output(TEXTS) == "tokens"
    assert token_output(TOKENS) is None
    two = (hidden, TensorSpec("other", "FP32", (-1, 8)))
    for signature in (
        Signature(TEXTS.inputs, two),
        Signature(TEXTS.inputs, (COUNTS,)),
        Signature(TEXTS.inputs, (TensorSpec("e", "FP32", (2, 3)),)),
    ):
        with pytest.raises(SalverError) as refused:
            embedding_output(signature)
        assert refused.value.code == "UNKNOWN_OUTPUT"
