"""Answers as plain JSON values."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from salver.protocol.codecs.plain_answers import PlainAnswers
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.request import BatchOutputs, Response
from salver.protocol.signature import TensorSpec
from salver.protocol.tables import Nonfinite


def answer(nonfinite: Nonfinite = Nonfinite.ERROR, *, batched: bool = True, **arrays: tuple[str, np.ndarray]) -> bytes:
    specs = {name: TensorSpec(name, datatype, (-1,)) for name, (datatype, _) in arrays.items()}
    batch = BatchOutputs({name: array for name, (_, array) in arrays.items()})
    rows = len(next(iter(batch.arrays.values())))
    response = Response("m", "1.0.0", batch, 1, rows) if batched else Response("m", "1.0.0", batch)
    return PlainAnswers(specs, nonfinite, batched=batched).encode(response)


def test_one_output_is_bare_values_of_the_request_s_own_rows() -> None:
    assert json.loads(answer(y=("FP64", np.array([1.5, 2.5, 3.5])))) == [2.5, 3.5]
    assert json.loads(answer(y=("INT64", np.arange(6).reshape(3, 2)))) == [[2, 3], [4, 5]]


def test_several_outputs_are_objects_by_name() -> None:
    arrays = {
        "label": ("BYTES", np.array([b"x", "\u00e9".encode(), "z"], object)),
        "p": ("FP32", np.eye(3, dtype="f4")),
    }
    assert json.loads(answer(**arrays)) == [{"label": "\u00e9", "p": [0, 1, 0]}, {"label": "z", "p": [0, 0, 1]}]
    whole = json.loads(answer(batched=False, **arrays))
    assert whole == {"label": ["x", "\u00e9", "z"], "p": np.eye(3).tolist()}


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "BYTES"])
def test_every_datatype_can_be_a_plain_value(datatype: str) -> None:
    array = np.array([0, 1, 1], DATATYPES[datatype].dtype)
    if datatype == "BF16":
        array = np.array([0, 0x3F80, 0x3F80], np.uint16)
    assert json.loads(answer(y=(datatype, array))) == [1, 1]


def test_the_policy_for_values_that_are_not_finite_is_kept() -> None:
    values = ("FP32", np.array([np.nan, 1.0, np.inf], np.float32))
    with pytest.raises(SalverError) as refused:
        answer(y=values)
    assert refused.value.code == "NONFINITE_OUTPUT"
    assert json.loads(answer(Nonfinite.NULL, y=values)) == [1.0, None]
    assert json.loads(answer(Nonfinite.PASS, y=values)) == [1.0, math.inf]
    # Those of another request in the batch do no harm.
    assert json.loads(answer(y=("FP32", np.array([np.nan, 1.0], np.float32)))) == [1.0]


def test_text_that_is_none_is_the_model_s_fault() -> None:
    with pytest.raises(SalverError) as refused:
        answer(y=("BYTES", np.array([b"a", b"\xff"], object)))
    assert refused.value.code == "BAD_MODEL_OUTPUT"
