from __future__ import annotations

from pathlib import Path

import pytest

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.runtime.declaration import DECLARATION_FILE, Declaration, check_signature, read_declaration

FULL = """
format = "python"
kind = "embed"
entry = "pkg.module:Class"
cost = "x"
preprocess = "m:before"
postprocess = "m:after"
idempotent = false
[metadata]
by = "ü"
[[inputs]]
name = "x"
datatype = "FP32"
shape = [-1, 4]
optional = true
[[outputs]]
name = "y"
datatype = "BYTES"
shape = [-1]
labels = ["a", "b"]
"""


def declared(tmp_path: Path, text: str | bytes) -> Declaration:
    (tmp_path / DECLARATION_FILE).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_declaration(tmp_path)


def test_no_file_is_the_default_declaration(tmp_path) -> None:
    assert read_declaration(tmp_path) == Declaration()
    assert declared(tmp_path, "") == Declaration()


def test_everything_can_be_declared(tmp_path) -> None:
    found = declared(tmp_path, FULL)
    assert (found.format, found.kind, found.entry, found.cost) == ("python", "embed", "pkg.module:Class", "x")
    assert (found.preprocess, found.postprocess, found.idempotent) == ("m:before", "m:after", False)
    assert found.metadata == {"by": "ü"}
    assert found.inputs == (TensorSpec("x", "FP32", (-1, 4), optional=True),)
    assert found.outputs == (TensorSpec("y", "BYTES", (-1,), labels=("a", "b")),)


def test_a_version_that_generates_streams(tmp_path) -> None:
    assert declared(tmp_path, 'kind = "generate"').streams


INPUT = '[[inputs]]\nname = "x"\ndatatype = "FP32"\nshape = [-1]\n'
OUTPUT = '[[outputs]]\nname = "y"\ndatatype = "FP32"\nshape = [-1]\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "salver-model.toml"),
        (b"\xff\xfe", "salver-model.toml"),
        ("color = 1", "color"),
        ('idempotent = "yes"', "idempotent"),
        ('kind = "guess"', "kind is 'guess'"),
        ('entry = "module"', "entry is 'module'"),
        ('entry = "../evil:Class"', "entry is"),
        ('entry = "a..b:Class"', "entry is"),
        ('preprocess = "m:f()"', "preprocess is"),
        ('postprocess = ":f"', "postprocess is"),
        ('cost = "x"', "no declared input"),
        (INPUT, "no outputs"),
        (OUTPUT, "no inputs"),
        (INPUT + INPUT + OUTPUT, "'x' is declared twice"),
        (INPUT.replace("FP32", "FP33") + OUTPUT, "unknown datatype 'FP33'"),
        (INPUT.replace("[-1]", "[0]") + OUTPUT, "shape [0]"),
        (INPUT.replace("[-1]", "[-2]") + OUTPUT, "shape [-2]"),
        (INPUT.replace("[-1]", "[" + "1," * 17 + "]") + OUTPUT, "rank 17"),
        (INPUT.replace('"x"', '""') + OUTPUT, "printable name"),
        (INPUT.replace('"x"', '"a\\nb"') + OUTPUT, "printable name"),
        (INPUT.replace('"x"', '"' + "a" * 257 + '"') + OUTPUT, "1-256 characters"),
        (INPUT + 'unit = "m"\n' + OUTPUT, "unit"),
        ("# " + "x" * 2**20, "larger than"),
    ],
)
def test_mistakes_are_refused_by_name(tmp_path, text, says: str) -> None:
    with pytest.raises(SalverError) as raised:
        declared(tmp_path, text)
    assert raised.value.code == "INVALID_ARTIFACT"
    assert says in raised.value.message
    assert str(tmp_path) not in str(raised.value)


def test_a_signature_that_makes_sense_is_returned_as_it_is() -> None:
    good = Signature((TensorSpec("x", "FP32", ()),), (TensorSpec("y", "INT8", (-1, 2, -1)),))
    assert check_signature(good) is good
