"""Files and forms as the inputs of a signature."""

from __future__ import annotations

import os
from typing import Any

import pytest

from salver.protocol.codecs.files import decode_upload
from salver.protocol.codecs.forms import read_form
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec

OUT = (TensorSpec("label", "BYTES", (-1,)),)
FILE = Signature((TensorSpec("file", "BYTES", (-1,)),), OUT)
COLUMN = Signature((TensorSpec("file", "BYTES", (-1, 1)),), OUT)
ALONE = Signature((TensorSpec("file", "BYTES", (1,)),), (TensorSpec("label", "BYTES", (1,)),))
IMAGE = Signature(
    (
        TensorSpec("image", "BYTES", (-1,)),
        TensorSpec("threshold", "FP32", (-1,), optional=True),
        TensorSpec("box", "INT32", (-1, 4), optional=True),
        TensorSpec("flip", "BOOL", (-1, 1), optional=True),
    ),
    OUT,
)
PAIR = Signature((TensorSpec("left", "BYTES", (-1,)), TensorSpec("right", "BYTES", (-1,))), OUT)
NUMBERS = Signature((TensorSpec("X", "FP32", (-1, 2)),), OUT)
KIND = b"multipart/form-data; boundary=AaB03x"


def form(*parts: tuple[str, bytes], end: bytes = b"--AaB03x--\r\n") -> bytes:
    """A form of (header parameters, content) pairs."""
    written = [
        b"--AaB03x\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (head.encode(), data) for head, data in parts
    ]
    return b"".join(written) + end


def a_file(name: str, data: bytes) -> tuple[str, bytes]:
    return f'name="{name}"; filename="x.bin"\r\nContent-Type: application/octet-stream', data


def field(name: str, text: str) -> tuple[str, bytes]:
    return f'name="{name}"', text.encode()


def read(signature: Signature, *parts: tuple[str, bytes], limit: int = 1000) -> dict[str, Any]:
    found = decode_upload(KIND, form(*parts), signature, limit)
    return {name: tensor.numpy().tolist() for name, tensor in found.items()}


@pytest.mark.parametrize(
    "content_type",
    [None, b"image/png", b"application/octet-stream", b"application/json", b"application/x-www-form-urlencoded", b"?"],
)
@pytest.mark.parametrize("body", [b"\0", b"\x89PNG\r\n", b'{"a":1}'])
def test_a_body_of_any_type_is_one_file(content_type: bytes | None, body: bytes) -> None:
    for signature, wanted in ((FILE, [body]), (COLUMN, [[body]]), (ALONE, [body]), (IMAGE, [body])):
        (tensor,) = decode_upload(content_type, body, signature, 10).values()
        assert tensor.numpy().tolist() == wanted


def test_nothing_at_all_is_no_file() -> None:
    with pytest.raises(SalverError, match="the body is empty") as raised:
        decode_upload(None, b"", FILE, 10)
    assert raised.value.code == "MISSING_INPUT"


def test_files_of_one_field_are_rows_in_their_order() -> None:
    files = [b"", b"a\r\n--AaB03", bytes(range(256)), b"\r\n"]
    assert read(FILE, *(a_file("file", data) for data in files)) == {"file": files}


def test_a_large_file_comes_whole() -> None:
    data = os.urandom(3 * 2**20) + b"\r\n--AaB03y\r\n" + os.urandom(1000)
    assert read(FILE, a_file("file", data)) == {"file": [data]}


def test_a_field_of_any_name_will_do_where_only_one_input_can_be_meant() -> None:
    assert read(FILE, a_file("data", b"1"), a_file("data", b"2")) == {"file": [b"1", b"2"]}
    assert read(IMAGE, a_file("data", b"1"), field("threshold", "0.5")) == {"image": [b"1"], "threshold": [0.5]}


def test_text_without_a_filename_is_bytes_too() -> None:
    assert read(FILE, field("file", "\u00e9")) == {"file": ["\u00e9".encode()]}


def test_fields_are_numbers_or_lists_and_one_holds_for_all_files() -> None:
    parts = [field("threshold", "0.25"), field("box", "[1, 2, 3, 4]"), field("flip", "true")]
    assert read(IMAGE, a_file("image", b"1"), a_file("image", b"2"), *parts) == {
        "image": [b"1", b"2"],
        "threshold": [0.25, 0.25],
        "box": [[1, 2, 3, 4], [1, 2, 3, 4]],
        "flip": [[True], [True]],
    }
    two = read(IMAGE, a_file("image", b"1"), field("threshold", "1"), a_file("image", b"2"), field("threshold", "2"))
    assert two["threshold"] == [1, 2]
    assert read(NUMBERS, field("X", "[1, 2]"), field("X", "[3, 4]")) == {"X": [[1, 2], [3, 4]]}


def test_several_files_of_several_fields() -> None:
    assert read(PAIR, a_file("left", b"1"), a_file("right", b"2")) == {"left": [b"1"], "right": [b"2"]}


@pytest.mark.parametrize(
    ("signature", "parts", "code"),
    [
        (FILE, [], "MISSING_INPUT"),
        (FILE, [field("name", "x")], "UNKNOWN_INPUT"),
        (FILE, [a_file("a", b""), a_file("b", b"")], "UNKNOWN_INPUT"),
        (FILE, [a_file("file", b""), a_file("b", b"")], "UNKNOWN_INPUT"),
        (PAIR, [a_file("data", b"")], "UNKNOWN_INPUT"),
        (NUMBERS, [a_file("X", b"[1, 2]")], "WRONG_DATATYPE"),
        (NUMBERS, [a_file("data", b"")], "UNKNOWN_INPUT"),
        (NUMBERS, [field("X", "one")], "INVALID_VALUE"),
        (NUMBERS, [field("X", "")], "INVALID_VALUE"),
        (NUMBERS, [field("X", '["1", "2"]')], "WRONG_DATATYPE"),
        (NUMBERS, [field("X", '{"a": 1}')], "WRONG_DATATYPE"),
        (NUMBERS, [field("X", "[" * 5000)], "INVALID_VALUE"),
        (NUMBERS, [field("X", "[1, 2]"), field("X", "[1]")], "WRONG_SHAPE"),
        (IMAGE, [a_file("image", b"")] * 900 + [field("box", "[1, 2, 3, 4]")], "INVALID_TENSOR"),
        (FILE, [a_file("file", b"")] * 1001, "INVALID_TENSOR"),
        (Signature((TensorSpec("f", "BYTES", (-1, 2)),), OUT), [a_file("f", b"")], "WRONG_SHAPE"),
        (Signature((TensorSpec("k", "INT32", (1,)),), ALONE.outputs), [field("k", "[1]")] * 2, "WRONG_SHAPE"),
    ],
)
def test_a_form_that_does_not_suit_the_signature_is_refused(
    signature: Signature, parts: list[tuple[str, bytes]], code: str
) -> None:
    with pytest.raises(SalverError) as refused:
        read(signature, *parts)
    assert refused.value.code == code, refused.value


@pytest.mark.parametrize("signature", [NUMBERS, PAIR])
def test_a_file_alone_needs_a_model_that_takes_one(signature: Signature) -> None:
    with pytest.raises(SalverError) as refused:
        decode_upload(b"image/png", b"x", signature, 10)
    assert refused.value.code == "WRONG_DATATYPE"
    assert repr(signature.inputs[0].name) in refused.value.message


GOOD = form(a_file("file", b"data"))
HEAD = b'--AaB03x\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n'
BROKEN = {
    "empty": b"",
    "no boundary at all": b"data",
    "only an opening": b"--AaB03x\r\n",
    "another boundary": GOOD.replace(b"AaB03x", b"BaB03x"),
    "no end": form(a_file("file", b"data"), end=b""),
    "half an end": form(a_file("file", b"data"), end=b"--AaB03x-"),
    "cut inside the headers": HEAD,
    "cut inside the data": HEAD + b"\r\nda",
    "no disposition": b"--AaB03x\r\nContent-Type: text/plain\r\n\r\nx\r\n--AaB03x--\r\n",
    "no headers": b"--AaB03x\r\n\r\nx\r\n--AaB03x--\r\n",
    "another disposition": GOOD.replace(b"form-data", b"attachment"),
    "no name": GOOD.replace(b'name="file"; ', b""),
    "a header without a colon": GOOD.replace(b"Content-Type: ", b"Content-Type "),
    "a header with a bad name": GOOD.replace(b"Content-Type: ", b"Content Type: "),
    "a header that goes on": GOOD.replace(b"Content-Type: ", b"Content-Type:\r\n "),
    "a header that is no text": GOOD.replace(b'"file"', b'"\xff"'),
    "a header without end": HEAD + b"X: " + b"x" * 5000 + b"\r\n\r\nd\r\n--AaB03x--\r\n",
    "headers without end": HEAD + b"X: x\r\n" * 9 + b"\r\nd\r\n--AaB03x--\r\n",
    "bare line feeds": GOOD.replace(b"\r\n", b"\n"),
    "parts without end": form(*[field("file", "")] * 4097),
    "base64": GOOD.replace(b"Content-Type:", b"Content-Transfer-Encoding: base64\r\nContent-Type:"),
    "a length that lies": GOOD.replace(b"Content-Type:", b"Content-Length: 2\r\nContent-Type:"),
    "a length that is none": GOOD.replace(b"Content-Type:", b"Content-Length: -1\r\nContent-Type:"),
    "zeros": bytes(1000),
    "delimiters": b"--AaB03x\r\n" * 100,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_form_is_refused(name: str) -> None:
    with pytest.raises(SalverError) as refused:
        decode_upload(KIND, BROKEN[name], FILE, 10_000)
    assert refused.value.code == "BAD_MESSAGE"
    assert decode_upload(KIND, GOOD, FILE, 10)["file"].numpy().tolist() == [b"data"]


@pytest.mark.parametrize(
    "kind",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=""',
        b"multipart/form-data; boundary=" + b"x" * 71,
        b'multipart/form-data; boundary="a\\r\\nb"',
        b'multipart/form-data; boundary="x "',
        b"multipart/form-data; boundary=\xff",
        b"multipart/form-data; boundary*=UTF-8''AaB03x",
    ],
)
def test_a_boundary_must_be_one(kind: bytes) -> None:
    with pytest.raises(SalverError) as refused:
        read_form(kind, GOOD)
    assert refused.value.code == "BAD_MESSAGE"


@pytest.mark.parametrize(
    "kind", [KIND, b'Multipart/Form-Data;boundary="AaB03x"', b"multipart/form-data; charset=utf-8; boundary=AaB03x"]
)
def test_the_type_is_read_as_http_has_it(kind: bytes) -> None:
    assert decode_upload(kind, GOOD, FILE, 10)["file"].numpy().tolist() == [b"data"]


def test_what_is_cut_short_anywhere_is_refused_and_never_half_taken() -> None:
    whole = form(a_file("file", b"one"), field("file", "two"))
    for end in range(len(whole) - 2):  # without the last line end it is whole
        with pytest.raises(SalverError):
            decode_upload(KIND, whole[:end], FILE, 10)


def test_what_stands_behind_the_end_is_ignored() -> None:
    for end in (b"--AaB03x--", b"--AaB03x--\r\nmore\r\n--AaB03x\r\n"):
        assert decode_upload(KIND, form(a_file("file", b"data"), end=end), FILE, 10)["file"].numpy().tolist() == [
            b"data"
        ]
