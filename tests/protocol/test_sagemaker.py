"""JSON by lines, features under names of their own, and CSV without names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from salver.protocol.codecs.mlflow import decode_csv, decode_scoring
from salver.protocol.codecs.sagemaker import decode_lines, has_features, unwrapped
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec

WIDE = Signature((TensorSpec("X", "FP64", (-1, 3)),), (TensorSpec("y", "FP64", (-1,)),))
NAMED = Signature((TensorSpec("a", "FP64", (-1,)), TensorSpec("b", "INT64", (-1,))), WIDE.outputs)
FEATURES = Signature((TensorSpec("features", "FP64", (-1, 3)),), WIDE.outputs)


def values(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor.numpy().tolist() for name, tensor in inputs.items()}


@pytest.mark.parametrize(
    "body",
    [
        b"[1,2,3]\n[4,5,6]\n",
        b"[1,2,3]\r\n\r\n  [4,5,6]",
        b'{"features":[1,2,3]}\n{"features":[4,5,6]}',
        b'{"data":{"features":{"values":[1,2,3]}}}\n{"data":{"features":{"values":[4,5,6]}}}',
        b'{"X":[1,2,3]}\n{"X":[4,5,6]}',
    ],
)
def test_each_line_is_a_row(body: bytes) -> None:
    assert values(decode_scoring(decode_lines(body), WIDE, 100)) == {"X": [[1, 2, 3], [4, 5, 6]]}


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        (b"", "INVALID_JSON", "no lines"),
        (b"\n \n", "INVALID_JSON", "no lines"),
        (b"[1,2,3]\n[4,5", "INVALID_JSON", "line 2: the body is not JSON"),
        (b'{"a":1,"a":2}', "DUPLICATE_KEY", "line 1"),
        (b"[" * 100_000, "INVALID_JSON", "line 1"),
    ],
)
def test_a_line_that_is_no_json_is_named(body: bytes, code: str, says: str) -> None:
    with pytest.raises(SalverError, match=says) as raised:
        decode_lines(body)
    assert raised.value.code == code


def test_features_are_not_unwrapped_for_a_model_that_has_an_input_of_that_name() -> None:
    rows = [{"features": [1, 2, 3]}]
    assert has_features(rows, WIDE)
    assert not has_features(rows, FEATURES)
    assert values(decode_scoring({"instances": rows}, FEATURES, 100)) == {"features": [[1, 2, 3]]}


@pytest.mark.parametrize("rows", [[], [1], [{}], [{"features": 1}], [{"data": 1}], [{"features": [1], "b": 2}], None])
def test_other_rows_are_left_alone(rows: Any) -> None:
    assert not has_features(rows, WIDE)


def test_rows_of_two_forms_are_refused() -> None:
    with pytest.raises(SalverError, match="not all rows"):
        unwrapped([{"features": [1]}, [2]])


def test_csv_without_names_is_the_inputs_in_their_order() -> None:
    assert values(decode_csv(b"1,2,3\n4,5,6", WIDE, 100, False)) == {"X": [[1, 2, 3], [4, 5, 6]]}
    assert values(decode_csv(b"1.5,2\n", NAMED, 100, False)) == {"a": [1.5], "b": [2]}


@pytest.mark.parametrize("body", [b"", b"\n", b"1,2,3\n4,5", b"1,2\n", b"a,b,c\n1,2,3", b'"1,2,3'])
def test_csv_without_names_that_is_no_table_of_the_inputs_is_refused(body: bytes) -> None:
    with pytest.raises(SalverError) as raised:
        decode_csv(body, WIDE, 100, False)
    assert raised.value.http == 400


def test_a_first_line_of_numbers_is_neither_lost_nor_invented() -> None:
    with pytest.raises(SalverError, match="header=absent"):
        decode_csv(b"1.5,2,3\n4,5,6", WIDE, 100, None)
    assert values(decode_csv(b"0,1,2\n4,5,6", WIDE, 100, None)) == {"X": [[4, 5, 6]]}
    assert values(decode_csv(b"7,8,9\n4,5,6", WIDE, 100, True)) == {"X": [[4, 5, 6]]}


def test_missing_numbers_of_csv_are_nan_without_names_too() -> None:
    (found,) = decode_csv(b"1,,3", WIDE, 100, False).values()
    assert np.isnan(found.numpy()).tolist() == [[False, True, False]]
