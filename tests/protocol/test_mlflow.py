"""MLflow's bodies as tensors of a signature."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from salver.protocol.codecs.mlflow import decode_csv, decode_scoring, is_open_inference
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec

OUT = (TensorSpec("y", "FP32", (-1,)),)
WIDE = Signature((TensorSpec("X", "FP64", (-1, 3)),), OUT)
FREE = Signature((TensorSpec("X", "FP32", (-1, -1)),), OUT)
NAMED = Signature(
    (
        TensorSpec("age", "INT64", (-1,)),
        TensorSpec("name", "BYTES", (-1, 1)),
        TensorSpec("weight", "FP32", (-1,), optional=True),
    ),
    OUT,
)
TEXT = Signature((TensorSpec("text", "BYTES", (-1,)),), OUT)
IMAGE = Signature((TensorSpec("image", "UINT8", (-1, 2, 2)),), OUT)
SETTINGS = Signature((*TEXT.inputs, TensorSpec("scale", "FP32", (-1, 2), optional=True)), OUT)
WHOLE = Signature(
    (TensorSpec("table", "FP32", (-1, 2)), TensorSpec("k", "INT64", (1,), optional=True)),
    (TensorSpec("y", "FP32", (2,)),),
)


def tensors(signature: Signature, **body: Any) -> dict[str, Any]:
    found = decode_scoring(body, signature, 1000)
    return {name: tensor.numpy().tolist() for name, tensor in found.items()}


def of_csv(signature: Signature, text: str) -> dict[str, Any]:
    return {name: tensor.numpy().tolist() for name, tensor in decode_csv(text.encode(), signature, 1000).items()}


SPLIT = {"columns": ["a", "b", "c"], "index": [7, 8], "data": [[1, 2.5, 3], [4, 5, 6]]}
RECORDS = [{"a": 1, "b": 2.5, "c": 3}, {"a": 4, "b": 5, "c": 6}]
ROWS = [[1, 2.5, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": SPLIT},
        {"dataframe_split": {"data": ROWS}},
        {"dataframe_split": {**SPLIT, "columns": [0, 1, 2]}},
        {"dataframe_records": RECORDS},
        {"instances": ROWS},
        {"instances": [{"X": row} for row in ROWS]},
        {"instances": RECORDS},
        {"inputs": ROWS},
        {"inputs": {"X": ROWS}},
        {"inputs": {"a": [1, 4], "b": [2.5, 5], "c": [3, 6]}},
        {"inputs": {"X": ROWS, "unknown": [1, 2]}},
        {"dataframe_split": {"columns": ["X"], "data": [[row] for row in ROWS]}},
        {"dataframe_split": {"columns": ["any"], "data": [[row] for row in ROWS]}},
    ],
)
@pytest.mark.parametrize("signature", [WIDE, FREE])
def test_all_forms_say_the_same(body: dict[str, Any], signature: Signature) -> None:
    assert tensors(signature, **body) == {"X": ROWS}


def test_a_csv_says_the_same() -> None:
    assert of_csv(WIDE, "a,b,c\n1,2.5,3\r\n4,5,6\n") == {"X": ROWS}
    # As pandas writes it, with its index.
    assert of_csv(WIDE, "\ufeff,a,b,c\n0,1,2.5,3\n1,4,5,6\n\n") == {"X": ROWS}


def test_columns_with_the_names_of_the_inputs_are_those_inputs_in_any_order_and_others_are_ignored() -> None:
    wanted = {"age": [30, 40], "name": [[b"Ada"], ["\u00d6".encode()]]}
    frame = {"columns": ["id", "name", "age"], "data": [[1, "Ada", 30], [2, "\u00d6", 40.0]]}
    assert tensors(NAMED, dataframe_split=frame) == wanted
    assert tensors(NAMED, inputs={"name": ["Ada", "\u00d6"], "age": [30, 40], "id": [1, 2]}) == wanted
    assert of_csv(NAMED, 'id,name,age\n1,Ada,30\n2,"\u00d6",40\n') == wanted
    assert tensors(NAMED, dataframe_records=[{"age": 1, "name": "a", "weight": 2}])["weight"] == [2.0]


def test_missing_numbers_are_nan_for_floats_only() -> None:
    (row,) = tensors(WIDE, dataframe_records=[{"a": 1, "b": None, "c": 3}])["X"]
    assert math.isnan(row[1])
    second = tensors(WIDE, dataframe_records=[{"a": 1, "b": 2, "c": 3}, {"a": 1, "c": 3}])["X"][1]
    assert math.isnan(second[1])
    for field in ("", "NaN", "NA", "null"):
        assert math.isnan(of_csv(WIDE, f"a,b,c\n1,{field},3\n")["X"][0][1])
    assert of_csv(WIDE, "a,b,c\n1,-inf,3\n")["X"][0][1] == -math.inf
    assert of_csv(TEXT, 'text\n"NA"\n') == {"text": [b"NA"]}


def test_texts_and_images_come_as_tensors() -> None:
    for body in (
        {"instances": ["a", "b"]},
        {"inputs": ["a", "b"]},
        {"dataframe_split": {"columns": ["t"], "data": [["a"], ["b"]]}},
    ):
        assert tensors(TEXT, **body) == {"text": [b"a", b"b"]}
    image = [[[1, 2], [3, 4]]]
    assert tensors(IMAGE, instances=image) == {"image": image}
    assert tensors(IMAGE, dataframe_records=[{"image": image[0]}]) == {"image": image}
    assert of_csv(TEXT, 'text\n"a, ""b""\nc"\n') == {"text": [b'a, "b"\nc']}


def test_params_are_inputs_given_once_for_all_rows() -> None:
    found = tensors(SETTINGS, inputs=["a", "b"], params={"scale": [1, 2], "unknown": {"x": 1}})
    assert found == {"text": [b"a", b"b"], "scale": [[1, 2], [1, 2]]}
    assert tensors(SETTINGS, inputs=["a"], params={}) == {"text": [b"a"]}
    assert tensors(WHOLE, inputs=[[1, 2], [3, 4]], params={"k": [3]}) == {"table": [[1, 2], [3, 4]], "k": [3]}


def test_params_do_not_multiply_beyond_the_limit() -> None:
    with pytest.raises(SalverError) as refused:
        tensors(SETTINGS, inputs=["a"] * 900, params={"scale": [1, 2]})
    assert refused.value.code == "INVALID_TENSOR"


def test_booleans_are_words_in_csv() -> None:
    signature = Signature((TensorSpec("flag", "BOOL", (-1,)),), OUT)
    assert of_csv(signature, "flag\nTrue\nfalse\n") == {"flag": [True, False]}


def test_integers_in_csv_may_be_written_as_pandas_writes_a_column_that_had_gaps() -> None:
    assert of_csv(NAMED, "age,name\n9007199254740993,a\n3.0,b\n")["age"] == [9007199254740993, 3]


BAD: list[tuple[Signature, Any, str]] = [
    (WIDE, {}, "INVALID_JSON"),
    (WIDE, {"data": ROWS}, "INVALID_JSON"),
    (WIDE, {"inputs": ROWS, "instances": ROWS}, "INVALID_JSON"),
    (WIDE, {"inputs": ROWS, "params": [1]}, "INVALID_JSON"),
    (WIDE, {"dataframe_split": ROWS}, "INVALID_JSON"),
    (WIDE, {"dataframe_split": {"columns": ["a"]}}, "INVALID_JSON"),
    (WIDE, {"dataframe_split": {**SPLIT, "dtypes": []}}, "INVALID_JSON"),
    (WIDE, {"dataframe_split": {"data": {"a": 1}}}, "INVALID_JSON"),
    (WIDE, {"dataframe_split": {"data": [1, 2, 3]}}, "INVALID_JSON"),
    (WIDE, {"dataframe_split": {**SPLIT, "columns": "abc"}}, "INVALID_JSON"),
    (WIDE, {"dataframe_split": {**SPLIT, "columns": [["a", "b"], "c", "d"]}}, "INVALID_JSON"),
    (WIDE, {"dataframe_split": {**SPLIT, "columns": ["a", "b"]}}, "INVALID_TENSOR"),
    (WIDE, {"dataframe_split": {**SPLIT, "columns": ["a", "b", "b"]}}, "INVALID_TENSOR"),
    (WIDE, {"dataframe_split": {**SPLIT, "data": []}}, "WRONG_SHAPE"),
    (WIDE, {"dataframe_records": SPLIT}, "INVALID_JSON"),
    (WIDE, {"dataframe_records": ROWS}, "INVALID_JSON"),
    (WIDE, {"dataframe_records": [{"a": 1}, 2]}, "INVALID_JSON"),
    (WIDE, {"dataframe_records": []}, "WRONG_SHAPE"),
    (WIDE, {"dataframe_records": [{"a": 1, "b": 2}]}, "MISSING_INPUT"),
    (WIDE, {"dataframe_records": [{"a": 1, "b": 2, "c": 3, "d": 4}]}, "MISSING_INPUT"),
    (WIDE, {"dataframe_records": [{"a": 1, "b": "2", "c": 3}]}, "WRONG_DATATYPE"),
    (WIDE, {"dataframe_records": [{"a": 1, "b": True, "c": 3}]}, "WRONG_DATATYPE"),
    (WIDE, {"dataframe_records": [{"a": 1, "b": [2], "c": 3}]}, "MISSING_INPUT"),
    (WIDE, {"instances": 3}, "INVALID_JSON"),
    (WIDE, {"instances": [[1, 2], [3]]}, "WRONG_SHAPE"),
    (WIDE, {"instances": None}, "INVALID_JSON"),
    (WIDE, {"inputs": None}, "WRONG_DATATYPE"),
    (WIDE, {"inputs": {}}, "MISSING_INPUT"),
    (WIDE, {"inputs": {"Y": ROWS}}, "MISSING_INPUT"),
    (WIDE, {"inputs": {"a": [1, 2], "b": [1], "c": [1]}}, "MISSING_INPUT"),
    (WIDE, {"inputs": {"X": {"b64": "AA=="}}}, "WRONG_DATATYPE"),
    (WIDE, {"inputs": {"X": [{"b64": "AA=="}]}}, "WRONG_DATATYPE"),
    (NAMED, {"inputs": ROWS}, "MISSING_INPUT"),
    (NAMED, {"dataframe_records": [{"age": 3}]}, "MISSING_INPUT"),
    (NAMED, {"dataframe_records": [{"age": None, "name": "a"}]}, "WRONG_DATATYPE"),
    (NAMED, {"dataframe_records": [{"age": 1.5, "name": "a"}]}, "INVALID_VALUE"),
    (NAMED, {"dataframe_records": [{"age": 10**30, "name": "a"}]}, "INVALID_VALUE"),
    (NAMED, {"dataframe_records": [{"age": 1, "name": None}]}, "WRONG_DATATYPE"),
    (TEXT, {"inputs": [1]}, "WRONG_DATATYPE"),
    (TEXT, {"inputs": ["a"] * 2000}, "INVALID_TENSOR"),
]


@pytest.mark.parametrize(("signature", "body", "code"), BAD)
def test_what_contradicts_the_protocol_or_the_signature_is_refused(signature: Signature, body: Any, code: str) -> None:
    with pytest.raises(SalverError) as refused:
        decode_scoring(json.loads(json.dumps(body)), signature, 1000)
    assert refused.value.code == code, refused.value


@pytest.mark.parametrize(
    ("signature", "body", "code"),
    [
        (WIDE, b"", "INVALID_TENSOR"),
        (WIDE, b"\n,,\n1,2,3", "INVALID_TENSOR"),
        (WIDE, b"\n1,2,3", "WRONG_SHAPE"),
        (WIDE, b"a,b,c\n", "WRONG_SHAPE"),
        (WIDE, b"a,b,c\n1,2\n", "INVALID_TENSOR"),
        (WIDE, b"a,b,b\n1,2,3\n", "INVALID_TENSOR"),
        (WIDE, b'a,b,c\n1,2,"3\n', "INVALID_TENSOR"),
        (WIDE, b'a,b,c\n1,2,"3"4\n', "INVALID_TENSOR"),
        (WIDE, b"a,b,c\n1,2,\xff\n", "INVALID_VALUE"),
        (WIDE, b"a,b,c\n1,2,x\n", "INVALID_VALUE"),
        (WIDE, b"a,b,c\n1,2,1_0\n", "INVALID_VALUE"),
        (WIDE, b"a,b,c\n1,2,1e999\n", "INVALID_VALUE"),
        (WIDE, b"a,b,c\n1,2,-" + b"9" * 400, "INVALID_VALUE"),
        (WIDE, b"a,b,c\n" + b"1,2,3\n" * 334, "INVALID_TENSOR"),
        (WIDE, b"," * 1001, "INVALID_TENSOR"),
        (WIDE, b"a,b\n1,2\n", "MISSING_INPUT"),
        (WIDE, b"a,b,c\n1,2," + b"9" * 200_000, "INVALID_TENSOR"),
        (NAMED, b"age,name\n,a\n", "INVALID_VALUE"),
        (NAMED, b"age,name\n1.5,a\n", "INVALID_VALUE"),
        (NAMED, b"age,name\ninf,a\n", "INVALID_VALUE"),
        (NAMED, b"age\n1\n", "MISSING_INPUT"),
    ],
)
def test_bad_csv_is_refused(signature: Signature, body: bytes, code: str) -> None:
    with pytest.raises(SalverError) as refused:
        decode_csv(body, signature, 1000)
    assert refused.value.code == code, refused.value


def test_infinity_in_csv_is_what_says_so() -> None:
    assert of_csv(WIDE, "a,b,c\ninf,-Infinity,1e308\n\n") == {"X": [[math.inf, -math.inf, 1e308]]}


def test_a_body_of_the_open_inference_protocol_is_recognised() -> None:
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    assert is_open_inference({"inputs": [tensor]})
    for inputs in ([], [tensor, 1], [{"name": "X"}], {"X": 1}, None, [{"name": "X", "shape": 1}]):
        assert not is_open_inference({"inputs": inputs})


def test_decoded_numbers_have_the_declared_datatype() -> None:
    (tensor,) = decode_scoring({"inputs": ROWS}, WIDE, 1000).values()
    assert (tensor.datatype, tensor.shape) == ("FP64", (2, 3))
    assert np.array_equal(tensor.numpy(), np.array(ROWS))
