"""Requests in the JSON of TensorFlow Serving become the tensors that the signature declares."""

from __future__ import annotations

from typing import Any

import pytest

from salver.protocol.codecs.tfs_request import read_examples, read_predict
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, SignatureCheck, TensorSpec
from salver.protocol.tensor import Tensor

OUT = (TensorSpec("y", "FP32", (-1,)),)
TWO = Signature((TensorSpec("tag", "BYTES", (-1,)), TensorSpec("signal", "FP32", (-1, 2))), OUT)
TEXT = Signature((TensorSpec("text", "BYTES", (-1,)),), OUT)
GRID = Signature((TensorSpec("grid", "INT32", (-1, 2, 2)), TensorSpec("scale", "FP64", (-1,), optional=True)), OUT)
FIXED = Signature((TensorSpec("x", "FP32", (4,)),), (TensorSpec("y", "FP32", ()),))


def values(inputs: dict[str, Tensor]) -> dict[str, Any]:
    return {name: tensor.numpy().tolist() for name, tensor in inputs.items()}


def predict(document: dict[str, Any], signature: Signature) -> dict[str, Any]:
    inputs = read_predict(document, signature, 10_000).inputs
    SignatureCheck(signature).rows(inputs)
    return values(inputs)


def test_rows_of_objects_and_columns_by_name_are_the_same_request() -> None:
    rows = {"instances": [{"tag": "foo", "signal": [1, 2]}, {"signal": [3, 4.5], "tag": "bär"}]}
    columns = {"inputs": {"tag": ["foo", "bär"], "signal": [[1, 2], [3, 4.5]]}}
    assert predict(rows, TWO) == {"tag": [b"foo", "bär".encode()], "signal": [[1, 2], [3, 4.5]]}
    assert predict(rows, TWO) == predict(columns, TWO)


def test_a_sole_input_needs_no_name_and_an_optional_one_no_value() -> None:
    assert predict({"instances": ["a", "b"]}, TEXT) == predict({"inputs": ["a", "b"]}, TEXT) == {"text": [b"a", b"b"]}
    assert predict({"instances": [[[1, 2], [3, 4]]]}, GRID) == {"grid": [[[1, 2], [3, 4]]]}
    with_scale = {"instances": [{"grid": [[1, 2], [3, 4]], "scale": 0.5}]}
    assert predict(with_scale, GRID) == {"grid": [[[1, 2], [3, 4]]], "scale": [0.5]}


def test_a_signature_without_a_batch_takes_its_tensor_as_it_is() -> None:
    assert predict({"inputs": [1, 2, 3, 4]}, FIXED) == {"x": [1, 2, 3, 4]}


@pytest.mark.parametrize("encoded", ["AP9h", " AP\n9h "])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda item: {"instances": [item, "b"]},
        lambda item: {"instances": [{"text": item}, {"text": "b"}]},
        lambda item: {"inputs": [item, "b"]},
        lambda item: {"inputs": {"text": [item, "b"]}},
    ],
)
def test_base64_objects_are_bytes_wherever_a_text_may_stand(encoded: str, wrap: Any) -> None:
    assert predict(wrap({"b64": encoded}), TEXT) == {"text": [b"\x00\xffa", b"b"]}


def test_base64_may_lack_its_padding() -> None:
    assert predict({"instances": [{"b64": "YQ"}, {"b64": "YQ=="}, {"b64": ""}]}, TEXT) == {"text": [b"a", b"a", b""]}


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ({"b64": "?"}, "INVALID_VALUE"),
        ({"b64": "A"}, "INVALID_VALUE"),
        ({"b64": "ä"}, "INVALID_VALUE"),
        ({"b64": 5}, "UNKNOWN_INPUT"),
        ({"b64": "AA", "more": 1}, "UNKNOWN_INPUT"),
        (5, "WRONG_DATATYPE"),
        ("\ud800", "INVALID_VALUE"),
    ],
)
def test_what_is_no_text_is_refused(item: object, code: str) -> None:
    with pytest.raises(SalverError) as raised:
        predict({"instances": [item]}, TEXT)
    assert raised.value.code == code


def test_an_object_inside_a_tensor_of_text_is_refused() -> None:
    with pytest.raises(SalverError, match="not formatted correctly for base64"):
        predict({"inputs": {"text": [{"b64": 5}]}}, TEXT)


def test_lists_beyond_any_rank_are_refused_before_they_are_followed() -> None:
    deep: Any = "a"
    for _ in range(900):
        deep = [deep]
    with pytest.raises(SalverError, match="nested too deeply"):
        predict({"instances": [deep]}, TEXT)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({}, "Missing 'inputs' or 'instances' key"),
        ({"inputs": [], "instances": []}, "expecting only one of 'inputs' or 'instances'"),
        ({"instances": 1}, "Expecting 'instances' value to be an list/array"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": ["a"]}, "instances is a plain list, but expecting list of objects"),
        ({"inputs": ["a"]}, "inputs is a plain list, but expecting an object"),
        ({"instances": [{"tag": "a", "signal": [1, 2]}, "b"]}, "Expecting object but got value/list at item 1"),
        ({"instances": [{"tag": "a", "signal": [1, 2]}, {"tag": "b"}]}, "keys must be equal to: signal,tag"),
        ({"instances": [{"tag": "a"}]}, "input 'signal' is missing"),
        ({"inputs": {"tag": ["a"], "signal": [[1, 2]], "z": 1}}, "no input 'z'"),
        ({"inputs": {"tag": ["a", "b"], "signal": [[1, 2]]}}, "rows"),
        ({"signature_name": "x", "instances": [1]}, 'Serving signature name: "x" not found in signature def'),
        ({"signature_name": 1, "instances": [1]}, "'signature_name' key must be a string value."),
    ],
)
def test_a_refusal_says_what_is_wrong(document: dict[str, Any], words: str) -> None:
    with pytest.raises(SalverError, match=words) as raised:
        predict(document, TWO)
    assert raised.value.http == 400


def test_a_value_among_objects_and_an_object_among_values_are_named() -> None:
    with pytest.raises(SalverError, match="got object at item 1"):
        predict({"instances": ["a", {"text": "b"}]}, TEXT)


def test_integers_stay_what_they_are() -> None:
    assert predict({"instances": [[[1, 2.0], [3, 4]]]}, GRID) == {"grid": [[[1, 2], [3, 4]]]}
    for wrong in (1.5, 2**31, float("nan"), True):
        with pytest.raises(SalverError):
            predict({"instances": [[[wrong, 2], [3, 4]]]}, GRID)


def test_more_elements_than_allowed_are_refused() -> None:
    with pytest.raises(SalverError) as raised:
        read_predict({"inputs": [0] * 11}, FIXED, 10)
    assert raised.value.code == "INVALID_TENSOR"


def test_features_are_flat_and_take_the_shape_of_their_input() -> None:
    document = {
        "context": {"scale": 2.5},
        "examples": [{"grid": [1, 2, 3, 4]}, {"grid": [5, 6, 7, 8]}],
        "signature_name": "",
    }
    inputs = read_examples(document, GRID, 1000)
    assert values(inputs) == {"grid": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], "scale": [2.5, 2.5]}
    assert SignatureCheck(GRID).rows(inputs) == 2
    texts = read_examples({"examples": [{"text": {"b64": "/w=="}}, {"text": ["b"]}]}, TEXT, 1000)
    assert values(texts) == {"text": [b"\xff", b"b"]}


def test_a_feature_of_another_size_keeps_its_shape_and_is_refused_for_it() -> None:
    inputs = read_examples({"examples": [{"grid": [1, 2, 3]}]}, GRID, 1000)
    assert inputs["grid"].shape == (1, 3)
    with pytest.raises(SalverError, match="has shape"):
        SignatureCheck(GRID).rows(inputs)
