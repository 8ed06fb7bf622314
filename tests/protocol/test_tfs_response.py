"""Answers in the JSON of TensorFlow Serving."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from salver.protocol.codecs.tfs_response import DATA_TYPES, TfsAnswers, score_output, signature_def, value_output
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.request import BatchOutputs, Response
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import Nonfinite


def answers(*specs: TensorSpec, nonfinite: Nonfinite = Nonfinite.ERROR) -> TfsAnswers:
    return TfsAnswers({spec.name: spec for spec in specs}, nonfinite)


def response(start: int = 0, stop: int | None = 2, **arrays: Any) -> Response:
    made = {name: np.array(array) if isinstance(array, list) else array for name, array in arrays.items()}
    return Response("m", "1.0.0", BatchOutputs(made), start, stop)


def texts(*items: Any) -> np.ndarray[Any, Any]:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


ONE = answers(TensorSpec("y", "FP32", (-1, -1)))
TWO = answers(TensorSpec("a%b", "INT64", (-1,)), TensorSpec("y", "FP32", (-1, 2)))


def test_one_output_is_bare_values_and_several_are_objects() -> None:
    y = [[1.0, 2.0], [3.0, 4.5]]
    assert ONE.rows(response(y=y)) == b'{"predictions":[[1.0,2.0],[3.0,4.5]]}'
    assert ONE.columns(response(y=y)) == b'{"outputs":[[1.0,2.0],[3.0,4.5]]}'
    both = response(y=y, **{"a%b": [7, 8]})
    assert TWO.rows(both) == b'{"predictions":[{"a%b":7,"y":[1.0,2.0]},{"a%b":8,"y":[3.0,4.5]}]}'
    assert TWO.columns(both) == b'{"outputs":{"a%b":[7,8],"y":[[1.0,2.0],[3.0,4.5]]}}'


@pytest.mark.parametrize("write", [TfsAnswers.rows, TfsAnswers.columns])
def test_requests_of_one_batch_get_their_own_rows(write: Callable[[TfsAnswers, Response], bytes]) -> None:
    batch = BatchOutputs({"y": np.arange(6, dtype=np.float32).reshape(3, 2)}, 3)
    parts = [Response("m", "1", batch, start, stop) for start, stop in ((0, 1), (1, 3))]
    found = [next(iter(json.loads(write(ONE, part)).values())) for part in parts]
    assert found == [[[0, 1]], [[2, 3], [4, 5]]]


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("BOOL", [True, False]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("FP64", [1e300, 0.1]),
        ("FP32", [[[1.0], [2.0]], [[3.0], [4.0]]]),
        ("FP32", [[1.0], [2.0]]),
        ("FP32", [[], []]),
    ],
)
def test_every_shape_and_type_is_read_back_as_it_was(datatype: str, array: list[Any]) -> None:
    numpy_type = DATATYPES[datatype].dtype
    written = answers(TensorSpec("y", datatype, (-1,)))
    told = response(y=np.array(array, numpy_type))
    assert json.loads(written.rows(told)) == {"predictions": array}
    assert json.loads(written.columns(told)) == {"outputs": array}


def test_half_precision_is_written_as_numbers() -> None:
    assert answers(TensorSpec("y", "FP16", (-1,))).rows(response(y=np.array([0.5, 2], np.float16))) == (
        b'{"predictions":[0.5,2.0]}'
    )
    bits = (np.array([0.5, -2], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    bf16 = TensorSpec("y", "BF16", (-1,))
    assert answers(bf16).columns(response(y=bits)) == b'{"outputs":[0.5,-2.0]}'
    assert answers(bf16).values(response(y=bits), bf16) == b'{"results":[0.5,-2.0]}'


def test_text_is_text_and_outputs_called_bytes_are_base64() -> None:
    told = response(word=texts(b"caf\xc3\xa9", "b"), image_bytes=texts(b"\xff\x00", b""))
    written = answers(TensorSpec("word", "BYTES", (-1,)), TensorSpec("image_bytes", "BYTES", (-1,)))
    assert json.loads(written.rows(told)) == {
        "predictions": [{"word": "café", "image_bytes": {"b64": "/wA="}}, {"word": "b", "image_bytes": {"b64": ""}}]
    }
    assert json.loads(written.columns(told))["outputs"]["image_bytes"] == [{"b64": "/wA="}, {"b64": ""}]
    nested = texts(b"a", b"b", b"c", b"d").reshape(2, 2)
    assert json.loads(answers(TensorSpec("t", "BYTES", (-1, 2))).rows(response(t=nested))) == {
        "predictions": [["a", "b"], ["c", "d"]]
    }


def test_a_row_that_is_no_text_is_the_failure_of_its_request_alone() -> None:
    batch = BatchOutputs({"word": texts(b"\xff", b"fine")}, 2)
    written = answers(TensorSpec("word", "BYTES", (-1,)))
    for write in (written.rows, written.columns):
        assert b'["fine"]' in write(Response("m", "1", batch, 1, 2))
        with pytest.raises(SalverError, match="'word' is not UTF-8") as raised:
            write(Response("m", "1", batch, 0, 1))
        assert raised.value.code == "BAD_MODEL_OUTPUT"


@pytest.mark.parametrize("nonfinite", [Nonfinite.ERROR, Nonfinite.PASS])
def test_nan_and_infinity_are_tokens(nonfinite: Nonfinite) -> None:
    y = TensorSpec("y", "FP32", (-1, 2))
    told = response(y=np.array([[np.nan, np.inf], [-np.inf, 1]], np.float32))
    written = answers(y, nonfinite=nonfinite)
    assert written.rows(told) == b'{"predictions":[[NaN,Infinity],[-Infinity,1.0]]}'
    assert written.columns(told) == b'{"outputs":[[NaN,Infinity],[-Infinity,1.0]]}'
    assert written.classes(told, y) == b'{"results":[[["",NaN],["",Infinity]],[["",-Infinity],["",1.0]]]}'


def test_nan_and_infinity_are_null_where_the_deployment_says_so() -> None:
    y = TensorSpec("y", "FP32", (-1, 2))
    told = response(y=np.array([[np.nan, np.inf], [-np.inf, 1]], np.float32))
    written = answers(y, nonfinite=Nonfinite.NULL)
    assert written.rows(told) == b'{"predictions":[[null,null],[null,1.0]]}'
    assert written.classes(told, y) == b'{"results":[[["",null],["",null]],[["",null],["",1.0]]]}'


def test_without_a_batch_dimension_columns_are_whole_and_rows_need_a_common_length() -> None:
    scalar, vector = TensorSpec("s", "FP32", ()), TensorSpec("v", "FP32", (3,))
    told = response(stop=None, s=np.array(0.5, np.float32), v=np.arange(3, dtype=np.float32))
    assert answers(scalar, vector).columns(told) == b'{"outputs":{"s":0.5,"v":[0.0,1.0,2.0]}}'
    assert answers(scalar).columns(response(stop=None, s=np.array(0.5, np.float32))) == b'{"outputs":0.5}'
    assert answers(vector).rows(response(stop=None, v=[1.0, 2.0, 3.0])) == b'{"predictions":[1.0,2.0,3.0]}'
    for written, answer in (
        (answers(scalar, vector), told),
        (answers(vector, TensorSpec("w", "FP32", (2,))), response(stop=None, v=[1.0, 2.0, 3.0], w=[1.0, 2.0])),
    ):
        with pytest.raises(SalverError, match="no common rows"):
            written.rows(answer)


def test_an_empty_answer_is_an_empty_list() -> None:
    empty = response(stop=None, y=np.zeros((0, 2), np.float32))
    assert ONE.columns(empty) == b'{"outputs":[]}'
    assert ONE.rows(empty) == b'{"predictions":[]}'


def test_labels_come_from_the_signature_or_from_an_output_called_classes() -> None:
    scores = TensorSpec("scores", "FP32", (-1, 2), labels=("ant",))
    told = response(scores=[[0.25, 0.75], [1.0, 0.0]])
    assert json.loads(answers(scores).classes(told, scores)) == {
        "results": [[["ant", 0.25], ["", 0.75]], [["ant", 1.0], ["", 0.0]]]
    }
    classes = TensorSpec("classes", "BYTES", (-1, 2))
    named = response(scores=[[0.25, 0.75]], classes=texts(b"x", b"y").reshape(1, 2), stop=1)
    assert json.loads(answers(scores, classes).classes(named, scores)) == {"results": [[["x", 0.25], ["y", 0.75]]]}
    wrong = response(scores=[[0.25, 0.75]], classes=texts(b"\xff", b"y").reshape(1, 2), stop=1)
    with pytest.raises(SalverError, match="not UTF-8"):
        answers(scores, classes).classes(wrong, scores)


def test_a_regression_is_one_number_for_each_example() -> None:
    y = TensorSpec("y", "FP32", (-1, -1))
    assert answers(y).values(response(y=[[1.5], [2.5]]), y) == b'{"results":[1.5,2.5]}'
    with pytest.raises(SalverError, match="has shape"):
        answers(y).values(response(y=[[1.5, 1], [2.5, 1]]), y)


X = (TensorSpec("x", "FP32", (-1,)),)
A, B, L = (
    TensorSpec("a", "FP32", (-1, 3)),
    TensorSpec("b", "FP64", (-1, 3)),
    TensorSpec("l", "FP32", (-1, 3), labels=("q",)),
)
SCORES = TensorSpec("scores", "FP32", (-1, -1))
VALUE, OTHER, OUTPUTS = (
    TensorSpec("v", "FP32", (-1,)),
    TensorSpec("o", "FP64", (-1, 1)),
    TensorSpec("outputs", "FP32", (-1,)),
)
LABEL = TensorSpec("label", "INT64", (-1,))


@pytest.mark.parametrize(
    ("outputs", "scores", "value"),
    [
        ((LABEL, A), A, None),
        ((A, B), None, None),
        ((A, SCORES), SCORES, SCORES),
        ((A, L), L, None),
        ((VALUE,), None, VALUE),
        ((VALUE, OTHER), OTHER, None),
        ((VALUE, OUTPUTS), None, OUTPUTS),
        ((LABEL,), None, None),
        ((TensorSpec("v", "FP32", (3,)),), None, None),
    ],
)
def test_the_output_that_is_meant_is_found_or_none(
    outputs: tuple[TensorSpec, ...], scores: TensorSpec | None, value: TensorSpec | None
) -> None:
    assert score_output(Signature(X, outputs)) == scores
    assert value_output(Signature(X, outputs)) == value


def test_every_datatype_has_tensorflows_name() -> None:
    assert DATA_TYPES.keys() == DATATYPES.keys()
    described = signature_def(Signature(X, (TensorSpec("y", "BYTES", ()),)))["signature_def"]["serving_default"]
    assert described["outputs"]["y"] == {
        "dtype": "DT_STRING",
        "tensor_shape": {"dim": [], "unknown_rank": False},
        "name": "y",
    }
