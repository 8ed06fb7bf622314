"""What a handler of TorchServe would find in a body, as inputs of a signature."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from salver.protocol.codecs.torchserve import TorchServeError, read_prediction, torchserve_error
from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.signature import Signature, TensorSpec

OUT = (TensorSpec("y", "FP64", (-1,)),)
WIDE = Signature((TensorSpec("X", "FP64", (-1, 2)),), OUT)
TWO = Signature((TensorSpec("a", "FP64", (-1,)), TensorSpec("b", "INT64", (-1, 2))), OUT)
FILES = Signature((TensorSpec("file", "BYTES", (-1,)),), OUT)
FIXED = Signature((TensorSpec("X", "FP64", (2,)),), (TensorSpec("y", "FP64", (1,)),))
JSON = b"application/json"


def read(body: bytes, signature: Signature, kind: bytes | None = JSON) -> tuple[dict[str, Any], bool, bool]:
    asked = read_prediction(kind, body, signature, 1000)
    return {name: each.numpy().tolist() for name, each in asked.inputs.items()}, asked.alone, asked.in_envelope


@pytest.mark.parametrize(
    ("body", "signature", "inputs", "alone", "in_envelope"),
    [
        (b"[1,2]", WIDE, {"X": [[1, 2]]}, True, False),
        (b"[[1,2]]", WIDE, {"X": [[1, 2]]}, False, False),
        (b'{"X":[1,2]}', WIDE, {"X": [[1, 2]]}, True, False),
        (b'{"data":[1,2]}', WIDE, {"X": [[1, 2]]}, True, False),
        (b'{"body":[[1,2],[3,4]]}', WIDE, {"X": [[1, 2], [3, 4]]}, False, False),
        (b'{"instances":[[1,2]]}', WIDE, {"X": [[1, 2]]}, False, True),
        (b'{"instances":[{"X":[1,2]}]}', WIDE, {"X": [[1, 2]]}, False, True),
        (b'{"a":1,"b":[2,3]}', TWO, {"a": [1], "b": [[2, 3]]}, True, False),
        (b'{"a":[1],"b":[[2,3]]}', TWO, {"a": [1], "b": [[2, 3]]}, False, False),
        (b"[1,2]", FIXED, {"X": [1, 2]}, False, False),
        (b'"text"', FILES, {"file": [b"text"]}, True, False),
        (b'{"data":"text"}', FILES, {"file": [b"text"]}, True, False),
    ],
)
def test_json_is_a_row_or_rows_by_its_depth(
    body: bytes, signature: Signature, inputs: dict[str, Any], alone: bool, in_envelope: bool
) -> None:
    assert read(body, signature) == (inputs, alone, in_envelope)


@pytest.mark.parametrize("kind", [None, b"image/png", b"text/plain", b"application/x-www-form-urlencoded"])
def test_any_other_body_is_a_file_for_a_model_that_takes_files_and_json_for_others(kind: bytes | None) -> None:
    assert read(b"[1,2]", FILES, kind) == ({"file": [b"[1,2]"]}, True, False)
    assert read(b"[1,2]", WIDE, kind) == ({"X": [[1, 2]]}, True, False)


def test_a_body_is_json_for_a_model_whose_text_is_one_input_of_several() -> None:
    text, number = TensorSpec("plan", "BYTES", (-1,)), TensorSpec("age", "FP32", (-1,))
    outputs = FILES.outputs
    row = b'{"age":1,"plan":"basic"}'
    curl = b"application/x-www-form-urlencoded"
    assert read(row, Signature((number, text), outputs), curl) == ({"age": [1], "plan": [b"basic"]}, True, False)
    optional = msgspec.structs.replace(number, optional=True)
    assert read(row, Signature((optional, text), outputs), curl) == ({"plan": [row]}, True, False)


def test_the_part_data_of_a_form_is_the_file() -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="data"; filename="a.png"\r\n\r\n\x89PNG\r\n'
    kind = b"multipart/form-data; boundary=x"
    assert read(part + b"--x--\r\n", FILES, kind) == ({"file": [b"\x89PNG"]}, True, False)
    assert read(part * 2 + b"--x--\r\n", FILES, kind) == ({"file": [b"\x89PNG"] * 2}, False, False)


@pytest.mark.parametrize(
    ("body", "signature", "kind"),
    [
        (b"", WIDE, JSON),
        (b"{", WIDE, JSON),
        (b"[1,", WIDE, None),
        (b"\xff\xfe", WIDE, b"image/png"),
        (b'{"X":[1,2],"X":[1,2]}', WIDE, JSON),
        (b"[" * 100_000, WIDE, JSON),
        (b"null", WIDE, JSON),
        (b"[1,null]", WIDE, JSON),
        (b'["a","b"]', WIDE, JSON),
        (b"[1,1e999]", WIDE, JSON),
        (b'{"Z":[1,2]}', WIDE, JSON),
        (b'{"instances":[]}', WIDE, JSON),
        (b'{"instances":1}', WIDE, JSON),
        (b'{"instances":[{"a":1},{"b":1}]}', TWO, JSON),
        (b"[1,2]", TWO, JSON),
        (b"--x", FILES, b"multipart/form-data; boundary=x"),
        (b"--x", FILES, b"multipart/form-data"),
    ],
)
def test_what_no_handler_could_read_is_refused(body: bytes, signature: Signature, kind: bytes | None) -> None:
    with pytest.raises(SalverError) as raised:
        read(body, signature, kind)
    assert raised.value.http == 400


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_error_has_the_three_members_of_torchserve(code: str) -> None:
    told = torchserve_error(SalverError(code, "message", "remedy"))
    assert told["code"] == CATALOGUE[code].http
    assert told["message"] == "message; remedy"
    assert told["type"].endswith("Exception")
    named = TorchServeError(SalverError(code, "m"), "ModelNotFoundException")
    assert torchserve_error(named)["type"] == "ModelNotFoundException"
