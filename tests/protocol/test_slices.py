"""Large arrays as JSON: the same bytes, in slices."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from salver.protocol.codecs import oip_response, plain_answers, slices, tfs_response
from salver.protocol.codecs.oip_response import ResponseEncoder
from salver.protocol.codecs.plain_answers import PlainAnswers
from salver.protocol.codecs.slices import SLICE, json_array, json_each
from salver.protocol.codecs.tfs_response import TfsAnswers
from salver.protocol.request import BatchOutputs, Request, Response
from salver.protocol.signature import TensorSpec
from salver.protocol.tables import Nonfinite

ARRAYS = hnp.arrays(np.int32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))


@given(ARRAYS, st.integers(1, 20))
def test_slices_joined_are_what_the_encoder_writes(array: np.ndarray[Any, Any], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "SLICE", size)
        assert json_array(array) == msgspec.json.encode(array.tolist())
        if array.ndim and array.size:
            assert json_each(array) == [msgspec.json.encode(row) for row in array.tolist()]


def test_no_more_is_written_in_one_go_than_a_slice() -> None:
    most = 0

    def encode(values: Any) -> bytes:
        nonlocal most
        most = max(most, np.size(values))
        return msgspec.json.encode(values)

    for shape in ((3 * SLICE,), (1, 2 * SLICE + 1), (SLICE, 2), (2, 1, SLICE + 1), (2, 3, SLICE // 2)):
        assert json_array(np.zeros(shape, np.int8), encode) == msgspec.json.encode(np.zeros(shape, int).tolist())
        json_each(np.zeros(shape, np.int8), encode)
    assert most == SLICE


@pytest.mark.parametrize("nonfinite", [Nonfinite.NULL, Nonfinite.PASS])
@pytest.mark.parametrize("value", [0.5, math.nan])
@pytest.mark.parametrize("shape", [(12,), (3, 7), (2, 30), (12, 1), (2, 3, 9)])
def test_every_protocol_writes_the_same_in_slices(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], value: float, nonfinite: Nonfinite
) -> None:
    y = np.arange(math.prod(shape), dtype=np.float64).reshape(shape)
    y.reshape(-1)[1] = value
    arrays = {"y": y, "n": np.arange(len(y)), "t": np.array([b"a", *[b"b"] * (len(y) - 1)], object)}
    specs = {
        "y": TensorSpec("y", "FP64", (-1,) * len(shape)),
        "n": TensorSpec("n", "INT64", (-1,)),
        "t": TensorSpec("t", "BYTES", (-1,)),
    }

    def written(names: list[str]) -> list[bytes]:
        response = Response("m", "1.0.0", BatchOutputs({name: arrays[name] for name in names}, len(y)), 0, len(y))
        outputs = {name: specs[name] for name in names}
        plain = PlainAnswers(outputs, nonfinite, batched=True)
        request = Request("m", {})
        return [
            ResponseEncoder("m", "m", "1.0.0", outputs, nonfinite).encode(request, response)[0],
            TfsAnswers(outputs, nonfinite).rows(response),
            TfsAnswers(outputs, nonfinite).columns(response),
            plain.encode(response),
            plain.encode_lines(response),
            plain.encode_csv(response),
        ]

    whole = [written(names) for names in (["y"], ["y", "n", "t"])]
    for module in (slices, oip_response, plain_answers, tfs_response):
        monkeypatch.setattr(module, "SLICE", 8)
    assert [written(names) for names in (["y"], ["y", "n", "t"])] == whole
    assert json.loads(whole[0][3])
