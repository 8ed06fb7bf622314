"""The generate extension: members are tensors or parameters, and answers have bare values."""

from __future__ import annotations

import json

import numpy as np
import pytest

from salver.protocol.codecs.generate import GenerateAnswers, read_generate
from salver.protocol.errors import SalverError
from salver.protocol.request import BatchOutputs, Request, Response
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import Nonfinite

SIGNATURE = Signature(
    (
        TensorSpec("text_input", "BYTES", (-1, 1)),
        TensorSpec("count", "INT32", (-1, 1), optional=True),
        TensorSpec("weights", "FP32", (-1, 3), optional=True),
    ),
    (TensorSpec("text_output", "BYTES", (-1, 1)), TensorSpec("scores", "FP32", (-1, -1))),
)
FLAT = Signature((TensorSpec("t", "BYTES", (-1,)),), (TensorSpec("u", "BYTES", (-1,)),))


def read(body, signature=SIGNATURE):
    return read_generate(body if isinstance(body, bytes) else json.dumps(body).encode(), signature, 1000)


def test_members_with_the_names_of_inputs_are_tensors_of_one_row():
    body = read({"text_input": "hi", "count": 3, "weights": [1, 2, 3]})
    shapes = {name: (tensor.datatype, tensor.shape) for name, tensor in body.inputs.items()}
    assert shapes == {"text_input": ("BYTES", (1, 1)), "count": ("INT32", (1, 1)), "weights": ("FP32", (1, 3))}
    assert body.inputs["text_input"].numpy().tolist() == [[b"hi"]]
    assert (body.id, body.parameters, body.outputs) == (None, None, None)


def test_values_with_all_their_dimensions_are_several_rows():
    assert read({"text_input": [["a"], ["b"]]}).inputs["text_input"].shape == (2, 1)
    assert read({"t": ["a", "b"]}, FLAT).inputs["t"].shape == (2,)
    assert read({"t": "a"}, FLAT).inputs["t"].shape == (1,)


def test_other_members_are_parameters_beside_those_that_are_called_so():
    body = read({"text_input": "x", "id": "7", "stream": True, "temperature": 0.5, "parameters": {"timeout": 100}})
    assert body.id == "7"
    assert body.parameters == {"stream": True, "temperature": 0.5, "timeout": 100}


WRONG = [
    (b"", "INVALID_JSON"),
    (b"[]", "INVALID_JSON"),
    (b'{"text_input":"a","text_input":"b"}', "DUPLICATE_KEY"),
    ({"text_input": "a", "id": 7}, "INVALID_JSON"),
    ({"text_input": "a", "parameters": []}, "INVALID_JSON"),
    ({"text_input": "a", "parameters": {"x": [1]}}, "INVALID_PARAMETER"),
    ({"text_input": "a", "parameters": {"x": 1}, "x": 2}, "INVALID_PARAMETER"),
    ({"text_input": "a", "x": None}, "INVALID_PARAMETER"),
    ({"text_input": "a", "x": [1]}, "UNKNOWN_INPUT"),
    ({"text_input": "a", "x": {}}, "UNKNOWN_INPUT"),
    ({"text_input": None}, "WRONG_DATATYPE"),
    ({"text_input": 1}, "WRONG_DATATYPE"),
    ({"text_input": "\ud800"}, "INVALID_JSON"),
    ({"text_input": "a", "count": 1.5}, "INVALID_VALUE"),
    ({"text_input": "a", "count": 2**40}, "INVALID_VALUE"),
    ({"text_input": "a", "parameters": {"binary_data_output": 1}}, "INVALID_PARAMETER"),
]


@pytest.mark.parametrize(("body", "code"), [*WRONG, ({"text_input": ["a"] * 2000}, "INVALID_TENSOR")])
def test_what_is_none_is_refused(body, code):
    with pytest.raises(SalverError) as raised:
        read(body)
    assert raised.value.code == code


def answer(text, scores, *, nonfinite=Nonfinite.ERROR, **request):
    texts = np.array(text, dtype=object)
    batch = BatchOutputs({"text_output": texts, "scores": np.array(scores, np.float32)}, len(texts))
    answers = GenerateAnswers("words", "1.0.0", {spec.name: spec for spec in SIGNATURE.outputs}, nonfinite)
    return answers.encode(Request("words", {}, **request), Response("words", "1.0.0", batch, 0, len(texts)))


def test_a_lone_element_is_bare_and_others_are_lists():
    assert json.loads(answer([[b"hi"]], [[0.5, 1]], id="a")) == {
        "id": "a",
        "model_name": "words",
        "model_version": "1.0.0",
        "text_output": "hi",
        "scores": [[0.5, 1.0]],
    }


def test_several_rows_are_lists():
    assert json.loads(answer([[b"a"], [b"b"]], [[1], [2]]))["text_output"] == [["a"], ["b"]]


def test_what_json_cannot_carry_goes_by_the_deployments_word():
    for text, scores, code in (([[b"\xff"]], [[1]], "BAD_MODEL_OUTPUT"), ([[b"a"]], [[np.nan]], "NONFINITE_OUTPUT")):
        with pytest.raises(SalverError) as raised:
            answer(text, scores)
        assert raised.value.code == code
    assert b'"scores":null' in answer([[b"a"]], [[np.nan]], nonfinite=Nonfinite.NULL)
    assert b'"scores":NaN' in answer([[b"a"]], [[np.nan]], nonfinite=Nonfinite.PASS)
