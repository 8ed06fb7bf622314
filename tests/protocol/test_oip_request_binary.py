from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from salver.protocol.codecs.oip_request import InferBody, decode_json, decode_raw_tensor, decode_with_binary
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tensor import pack_bytes_elements

MOST = 10**6
INTEGERS = [name for name in DATATYPES if "INT" in name]
IN_JSON = [name for name in DATATYPES if DATATYPES[name].json_type is not None]


def body(data: str = "[1]", *, shape: str = "[1]", datatype: str = "FP32", name: str = '"x"', more: str = "") -> bytes:
    return f'{{"inputs":[{{"name":{name},"shape":{shape},"datatype":"{datatype}","data":{data}}}]{more}}}'.encode()


def decoded(content: bytes) -> np.ndarray[Any, Any]:
    (tensor,) = decode_json(content, MOST).inputs.values()
    return tensor.numpy()


def refused(content: bytes, most: int = MOST, json_bytes: int | None = None) -> SalverError:
    with pytest.raises(SalverError) as raised:
        decode_json(content, most) if json_bytes is None else decode_with_binary(content, json_bytes, most)
    assert raised.value.http in (400, 501)
    assert len(str(raised.value)) < 1000
    return raised.value


# Binary tensors.


def binary(*tensors: tuple[str, str, list[int], bytes], tail: bytes = b"", **changes: Any) -> tuple[bytes, int]:
    inputs = [
        {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data), **changes}}
        for name, datatype, shape, data in tensors
    ]
    head = json.dumps({"inputs": inputs}).encode()
    return head + b"".join(data for *_, data in tensors) + tail, len(head)


NUMERIC = [name for name in DATATYPES if name not in ("BYTES", "BOOL")]


@given(st.data(), st.sampled_from(NUMERIC))
def test_binary_tensors_come_through_bit_for_bit(data: Any, datatype: str) -> None:
    dtype = DATATYPES[datatype].dtype
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=3, min_side=0)))
    content, json_bytes = binary(
        ("odd", "BOOL", [3], b"\x00\x01\x01"),
        ("x", datatype, list(array.shape), array.tobytes()),
        ("e", "INT8", [0], b""),
    )
    found = decode_with_binary(content, json_bytes, MOST).inputs
    assert found["x"].numpy().tobytes() == array.tobytes()
    assert found["x"].shape == array.shape
    assert found["odd"].numpy().tolist() == [False, True, True]


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_binary_byte_strings_come_through(elements: list[bytes]) -> None:
    content, json_bytes = binary(("x", "BYTES", [len(elements)], pack_bytes_elements(elements)))
    assert decode_with_binary(content, json_bytes, MOST).inputs["x"].numpy().tolist() == elements


@given(hnp.arrays(st.sampled_from(["<f4", "<f8", "<i4", "|b1"]), hnp.array_shapes(min_side=0)))
def test_numbers_in_json_come_through(array: np.ndarray[Any, Any]) -> None:
    if not np.isfinite(array).all():
        return
    datatype = {"f4": "FP32", "f8": "FP64", "i4": "INT32", "b1": "BOOL"}[array.dtype.str[1:]]
    content = body(json.dumps(array.reshape(-1).tolist()), shape=json.dumps(array.shape), datatype=datatype)
    assert decoded(content).tobytes() == array.tobytes()


def test_json_and_binary_tensors_mix_in_one_request() -> None:
    head = b'{"inputs":[{"name":"a","shape":[1],"datatype":"FP32","data":[1]},'
    head += b'{"name":"b","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}},'
    head += b'{"name":"c","shape":[1],"datatype":"BYTES","data":["x"]}]}'
    found = decode_with_binary(head + struct.pack("<2h", 5, -6), len(head), MOST).inputs
    assert [found[name].numpy().tolist() for name in "abc"] == [[1], [5, -6], [b"x"]]


def test_trailing_and_missing_bytes_are_refused() -> None:
    content, json_bytes = binary(("x", "FP32", [2], b"\0" * 8), tail=b"!")
    assert "1 bytes follow the last binary tensor" in refused(content, json_bytes=json_bytes).message
    content, json_bytes = binary(("x", "FP32", [2], b"\0" * 8))
    for cut in range(1, 9):
        assert "binary_data_size 8" in refused(content[:-cut], json_bytes=json_bytes).message
    assert "Inference-Header-Content-Length" in refused(content, json_bytes=len(content) + 1).message
    assert refused(content, json_bytes=json_bytes - 1).code == "INVALID_JSON"


@pytest.mark.parametrize("size", [-1, 4, 7, 9, 16, 2**63, True, 1.5, "8"])
def test_a_size_that_lies_is_refused(size: object) -> None:
    content, json_bytes = binary(("x", "FP32", [2], b"\0" * 8), binary_data_size=size)
    assert refused(content, json_bytes=json_bytes).code == "INVALID_TENSOR"


def test_a_shape_that_lies_is_refused_with_both_numbers() -> None:
    content, json_bytes = binary(("x", "FP64", [3], b"\0" * 8))
    assert "has 8 bytes; its shape and FP64 need 24" in refused(content, json_bytes=json_bytes).message


@pytest.mark.parametrize("value", [b"\x02", b"\xff", b"\x00\x80"])
def test_bool_bytes_are_zero_or_one(value: bytes) -> None:
    content, json_bytes = binary(("x", "BOOL", [len(value)], value))
    assert refused(content, json_bytes=json_bytes).code == "INVALID_VALUE"


@pytest.mark.parametrize(
    "data", [b"\x05\0\0\0abcd", b"\x01\0\0", b"\xff\xff\xff\xffa", b"", pack_bytes_elements([b"a", b"b"])]
)
def test_byte_string_lengths_that_lie_are_refused(data: bytes) -> None:
    content, json_bytes = binary(("x", "BYTES", [1], data))
    assert refused(content, json_bytes=json_bytes).code == "INVALID_TENSOR"


def test_data_twice_in_json_and_in_binary_is_refused() -> None:
    head = b'{"inputs":[{"name":"a","shape":[1],"datatype":"INT8","data":[1],"parameters":{"binary_data_size":1}}]}'
    assert "both data and binary_data_size" in refused(head + b"\1", json_bytes=len(head)).message


def test_a_binary_size_without_any_binary_part_is_refused() -> None:
    content, _ = binary(("x", "FP32", [2], b""), binary_data_size=8)
    assert "0 bytes of tensor data are left" in refused(content).message


# Raw bodies.


def one_input(datatype: str, *shape: int, batched: bool = True) -> Signature:
    return Signature((TensorSpec("x", datatype, shape),), (TensorSpec("y", "FP32", (-1,) if batched else (1,)),))


def raw(content: bytes, signature: Signature) -> InferBody:
    return decode_raw_tensor(content, signature, MOST)


@pytest.mark.parametrize(
    ("signature", "content", "shape"),
    [
        (one_input("FP32", -1, 2), b"\0" * 8, (1, 2)),
        (one_input("FP32", -1, -1), b"\0" * 12, (1, 3)),
        (one_input("FP32", -1, -1, 2), b"\0" * 16, (1, 2, 2)),
        (one_input("FP32", -1), b"\0" * 4, (1,)),
        (one_input("BYTES", -1, 1), b"any\xff", (1, 1)),
        (one_input("FP32", 2, 2, batched=False), b"\0" * 16, (2, 2)),
        (one_input("FP32", -1, batched=False), b"\0" * 12, (3,)),
    ],
)
def test_a_raw_body_is_one_row_of_the_only_input(signature, content, shape) -> None:
    found = raw(content, signature)
    assert found.inputs["x"].shape == shape
    assert found.parameters == {"binary_data_output": True}
    if signature.inputs[0].datatype == "BYTES":
        assert found.inputs["x"].numpy().tolist() == [[content]]


@pytest.mark.parametrize(
    ("signature", "content"),
    [
        (one_input("FP32", -1, 2), b"\0" * 7),
        (one_input("FP32", -1, 2), b"\0" * 16),
        (one_input("FP32", -1, -1), b"\0" * 6),
        (one_input("FP32", -1, -1, -1), b"\0" * 8),
        (one_input("FP32", -1, 2), b""),
        (one_input("BOOL", -1, 1), b"\x07"),
        (
            Signature(
                (TensorSpec("a", "FP32", (-1,)), TensorSpec("b", "FP32", (-1,))), (TensorSpec("y", "FP32", (-1,)),)
            ),
            b"",
        ),
    ],
)
def test_raw_bodies_that_do_not_fit_are_refused(signature, content) -> None:
    with pytest.raises(SalverError) as raised:
        raw(content, signature)
    assert raised.value.code in ("INVALID_TENSOR", "INVALID_VALUE")
