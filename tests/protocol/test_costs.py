"""Bodies that are small and made to be dear: no codec's work grows with more than what came.

Each of them once held up the event loop for seconds, or took gigabytes.
"""

from __future__ import annotations

import contextlib
import json
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from salver.protocol.codecs.forms import read_form
from salver.protocol.codecs.generate import read_generate
from salver.protocol.codecs.mlflow import decode_csv, decode_scoring
from salver.protocol.codecs.oip_grpc import decode_infer
from salver.protocol.codecs.oip_request import decode_json, decode_with_binary
from salver.protocol.codecs.openai import decode_embeddings
from salver.protocol.codecs.plain_json import decode_object, decode_value
from salver.protocol.codecs.sagemaker import decode_lines
from salver.protocol.codecs.tfs_request import read_examples, read_predict
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec

MOST = 2**24
LARGEST = 128 * 2**10
OUT = (TensorSpec("y", "FP32", (-1,)),)
WIDE = Signature((TensorSpec("x", "FP32", (-1, -1)),), OUT)
TWO = Signature((TensorSpec("a", "FP32", (-1,)), TensorSpec("v", "FP32", (-1, -1), optional=True)), OUT)
TEXT = Signature((TensorSpec("text", "BYTES", (-1,)), TensorSpec("v", "BYTES", (-1, 1), optional=True)), OUT)
NAMES = [f"k{n}" for n in range(5000)]


def packed(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def field(number: int, content: bytes) -> bytes:
    size, length = len(content), bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *length, size]) + content


def predict(body: bytes) -> object:
    return read_predict(decode_object(body), WIDE, MOST)


def examples(signature: Signature = TWO) -> Callable[[bytes], object]:
    return lambda body: read_examples(decode_object(body), signature, MOST)


def scoring(signature: Signature = WIDE) -> Callable[[bytes], object]:
    return lambda body: decode_scoring(decode_object(body, tokens=True), signature, MOST)


def csv(signature: Signature = WIDE, has_header: bool | None = True) -> Callable[[bytes], object]:
    return lambda body: decode_csv(body, signature, MOST, has_header)


def grpc(body: bytes) -> object:
    return decode_infer(body, MOST)


def oip(body: bytes) -> object:
    return decode_json(body, MOST)


def nested(datatype: str, one: str) -> bytes:
    data = ",".join([one] * (100_000 // (len(one) + 1)))
    return b'{"inputs":[{"name":"x","datatype":"%b","shape":[1,1],"data":[%b]}]}' % (datatype.encode(), data.encode())


DIGITS = b"1" * 30_000 + b"x"
REPEATED = ",".join([*(f"a{n}" for n in range(14_000)), "a13999"])
TENSOR = field(1, b"x") + field(2, b"FP32")
CORPUS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "digits that end in a letter": (csv(), b"a,b,c,d\n1,2,3," + DIGITS),
    "digits in a name": (csv(has_header=None), b"1,2," + DIGITS + b"\n1,2,3\n"),
    "digits without a header": (csv(has_header=False), DIGITS + b",1\n"),
    "a column that stands twice in CSV": (csv(), REPEATED.encode() + b"\n"),
    "a column that stands twice in a frame": (
        scoring(),
        packed({"dataframe_split": {"columns": REPEATED.split(","), "data": []}}),
    ),
    "empty lines": (csv(), b"a,b\n" + b"\n" * 120_000),
    "empty fields": (csv(), b"," * 120_000),
    "quotes": (csv(), b'a\n"' + b'""' * 60_000),
    "sparse records": (scoring(), packed({"dataframe_records": [{name: 1} for name in NAMES]})),
    "sparse instances": (scoring(), packed({"instances": [{name: 1} for name in NAMES]})),
    "sparse rows": (predict, packed({"instances": [{name: 1} for name in NAMES]})),
    "context times examples": (examples(), packed({"context": dict.fromkeys(NAMES, 0), "examples": [{}] * 2000})),
    "a long feature for all examples": (
        examples(),
        packed({"context": {"v": [1] * 8000}, "examples": [{"a": 1}] * 9000}),
    ),
    "a long text for all examples": (
        examples(TEXT),
        packed({"context": {"v": "x" * 60_000}, "examples": [{"text": ""}] * 4000}),
    ),
    "a long parameter for all rows": (
        scoring(TWO),
        packed({"inputs": {"a": [1] * 30_000}, "params": {"v": [1] * 30_000}}),
    ),
    "lists in lists in a tensor": (oip, nested("FP32", "[]")),
    "lists in lists in a tensor of texts": (oip, nested("BYTES", "[]")),
    "texts full of brackets": (oip, nested("BYTES", '["[[[["]')),
    "texts full of escapes": (oip, nested("BYTES", r'"\\\""')),
    "colons": (oip, b'{"inputs":[],"x":"%b"}' % (b":" * 120_000)),
    "one name many times": (oip, b"{%b}" % b",".join([b'"x":1'] * 18_000)),
    "binary texts of no length": (
        lambda body: decode_with_binary(body, len(body) - 100_000, MOST),
        packed(
            {
                "inputs": [
                    {"name": "x", "datatype": "BYTES", "shape": [25_000], "parameters": {"binary_data_size": 100_000}}
                ]
            }
        )
        + bytes(100_000),
    ),
    "empty inputs": (grpc, b"\x2a\0" * 60_000),
    "empty raw contents": (grpc, b"\x3a\0" * 60_000),
    "a shape without end": (grpc, field(5, TENSOR + field(3, b"\1" * 120_000))),
    "a shape of large numbers": (grpc, field(5, TENSOR + field(3, (b"\xff" * 8 + b"\x7f") * 12_000))),
    "parameters of a tensor": (grpc, field(5, b"".join(field(4, field(1, b"%d" % n)) for n in range(12_000)))),
    "many tensors": (grpc, b"".join(field(5, TENSOR) for _ in range(8_000))),
    "texts in contents": (grpc, field(5, field(1, b"x") + field(2, b"BYTES") + field(5, b"\x42\0" * 60_000))),
    "groups in groups": (grpc, b"\x0b" * 120_000),
    "nested lists": (lambda body: decode_value(body, tokens=True), b"[" * 120_000),
    "numbers of many digits": (lambda body: decode_value(body, tokens=True), b"[NaN,%b]" % (b"1" * 120_000)),
    "empty JSON lines": (decode_lines, b"\n" * 120_000),
    "empty texts to embed": (decode_embeddings, packed({"model": "m", "input": [""] * 40_000})),
    "names to generate from": (lambda body: read_generate(body, TEXT, MOST), packed(dict.fromkeys(NAMES, 1))),
    "parts of a form": (
        lambda body: read_form(b"multipart/form-data; boundary=B", body),
        b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 2300 + b"--B--\r\n",
    ),
    "nearly a boundary": (
        lambda body: read_form(b"multipart/form-data; boundary=B", body),
        b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"\r\n--" * 30_000,
    ),
}


@pytest.mark.parametrize("kind", CORPUS)
def test_a_small_body_takes_little_time(kind: str) -> None:
    read, body = CORPUS[kind]
    assert len(body) <= LARGEST
    begun_s = time.process_time()
    with contextlib.suppress(SalverError):
        read(body)
    # A bound against what hangs, many times what the slowest of them takes.
    assert time.process_time() - begun_s < 2.0


MULTIPLIED = (
    "context times examples",
    "a long feature for all examples",
    "a long text for all examples",
    "a long parameter for all rows",
    "sparse records",
    "sparse instances",
)


@pytest.mark.parametrize("kind", MULTIPLIED)
def test_what_would_be_multiplied_is_refused(kind: str) -> None:
    read, body = CORPUS[kind]
    with pytest.raises(SalverError) as refused:
        read(body)
    assert refused.value.http == 400


def test_what_is_shared_by_all_rows_is_still_taken() -> None:
    shared = {"context": {"v": [1, 2]}, "examples": [{"a": n} for n in range(100)]}
    tensors = read_examples(shared, TWO, MOST)
    assert tensors["v"].numpy().tolist() == [[1, 2]] * 100
    assert tensors["a"].numpy().tolist() == list(range(100))
    texts = read_examples({"context": {"v": "é"}, "examples": [{"text": "a"}] * 3}, TEXT, MOST)
    assert texts["v"].data == (struct.pack("<I", 2) + "é".encode()) * 3


def test_records_may_leave_out_most_of_their_names() -> None:
    columns = scoring()(packed({"dataframe_records": [{f"k{n}": n} for n in range(100)]}))
    assert columns["x"].shape == (100, 100)  # type: ignore[index]


def test_as_many_lists_as_the_shape_has_are_taken_and_texts_may_hold_any() -> None:
    rows = 20_000
    data = [["[[[" * 10, '"[\\'] for _ in range(rows)]
    tensors = decode_json(
        packed({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [rows, 2], "data": data}]}), MOST
    )
    assert tensors.inputs["x"].numpy().tolist()[-1] == [b"[[[" * 10, b'"[\\']
    for datatype in ("FP32", "BYTES"):
        with pytest.raises(SalverError) as refused:
            decode_json(nested(datatype, "[]"), MOST)
        assert refused.value.code == "WRONG_SHAPE"
