"""Fields of a message: few in what is honest, however large, and counted before they become objects."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.protocol.codecs.oip_grpc import decode_infer
from salver.protocol.codecs.protobuf_fields import check_fields
from salver.protocol.errors import SalverError
from salver.protocol.proto import message

REQUEST = message("inference.ModelInferRequest")
PADDING = b"\x7a\xff\xff\x07" + bytes(2**17 - 1)
"""A field that nobody knows, large enough for the rest to be looked at."""


def honest(tensors: int, *, raw: bool) -> bytes:
    request = REQUEST(model_name="m", id="1")
    for n in range(tensors):
        tensor = request.inputs.add(name=f"x{n}", datatype="FP32", shape=[2, 2**13])
        tensor.parameters["a"].int64_param = n
        if raw:
            request.raw_input_contents.append(bytes(2**16))
        else:
            tensor.contents.fp32_contents.extend([0.5] * 2**14)
    encoded: bytes = request.SerializeToString()
    return encoded


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("tensors", [1, 50])
def test_large_messages_of_a_few_tensors_pass(tensors: int, raw: bool) -> None:
    data = honest(tensors, raw=raw)
    assert len(data) > tensors * 2**16
    assert len(decode_infer(data, 2**20).inputs) == tensors


def test_values_one_by_one_pass() -> None:
    values = b"\x35\0\0\0\x3f" * 30_000
    tensor = REQUEST(inputs=[{"name": "x", "datatype": "FP32", "shape": [30_000]}]).inputs[0].SerializeToString()
    contents = b"\x2a" + varint(len(values)) + values
    data = b"\x0a\x01m\x2a" + varint(len(tensor + contents)) + tensor + contents
    assert decode_infer(data, 2**20).inputs["x"].shape == (30_000,)


def varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def tensor(content: bytes) -> bytes:
    return b"\x2a" + varint(len(content)) + content


@pytest.mark.parametrize(
    "data",
    [
        b"\x2a\0" * 40_000,
        b"\x32\0" * 40_000,
        b"\x3a\0" * 40_000,
        b"\x22\0" * 40_000,
        b"\x78\x01" * 40_000,
        b"\x0b\x0c" * 40_000,
        tensor(b"\x22\0" * 40_000),
        tensor(b"\x22\0" * 9_000) + tensor(b"\x22\0" * 9_000) + PADDING,
        tensor(b"\x1a" + varint(1000) + b"\x01" * 1000) + PADDING,
    ],
)
def test_more_than_any_has_are_refused(data: bytes) -> None:
    with pytest.raises(SalverError) as refused:
        decode_infer(data, 2**20)
    assert refused.value.code == "BAD_MESSAGE"
    assert "no ModelInferRequest" not in str(refused.value)


@given(st.binary(max_size=300), st.integers(0, 3))
def test_whatever_comes_is_counted_or_left_to_protobuf(data: Any, at: int) -> None:
    for whole in (PADDING + data, PADDING + tensor(data), data[:at] + PADDING):
        with contextlib.suppress(SalverError):
            check_fields(whole)
