"""SavedModels become ONNX in a child process; `make test-engines` has TensorFlow itself write and convert them."""

from __future__ import annotations

import sys

import pytest

from salver.imports import convert_path, recognise
from salver.protocol.errors import SalverError


@pytest.fixture
def saved(tmp_path):
    (tmp_path / "sm" / "variables").mkdir(parents=True)
    (tmp_path / "sm" / "saved_model.pb").write_bytes(b"\x08\x01")
    return tmp_path / "sm"


def test_without_the_converter_it_is_said_how_to_have_it(saved, tmp_path) -> None:
    assert recognise(saved) == "savedmodel"
    with pytest.raises(SalverError) as raised:
        convert_path(saved, tmp_path / "into")
    assert raised.value.code == "UNSUPPORTED"
    assert "no tensorflow and no tf2onnx" in raised.value.message
    assert "--converter" in raised.value.remedy


def converter(path, code: str):
    path.write_text(f"#!{sys.executable}\nimport os, sys\narguments = sys.argv\n{code}")
    path.chmod(0o700)
    return path


def test_a_converter_that_fails_or_gives_nothing_is_told_with_its_last_words(saved, tmp_path) -> None:
    for name, code in (("fails", "sys.stderr.write('first\\nno such op\\n'); sys.exit(1)"), ("silent", "pass")):
        with pytest.raises(SalverError) as raised:
            convert_path(saved, tmp_path / f"into-{name}", python=converter(tmp_path / name, code))
        assert raised.value.code == "INVALID_ARTIFACT"
        assert ("no such op" if name == "fails" else "it ended with code 0") in raised.value.message


def test_what_a_converter_writes_is_a_graph_of_tensorflow(saved, tmp_path) -> None:
    code = "open(arguments[arguments.index('--output') + 1], 'w').write('graph')"
    made = convert_path(saved, tmp_path / "into", python=converter(tmp_path / "c", code))
    assert (made.directory / "model.onnx").read_text() == "graph"
    assert made.facts()["flavor"] == "tensorflow"


def test_a_python_that_is_none_is_said(saved, tmp_path) -> None:
    with pytest.raises(SalverError, match="does not start") as raised:
        convert_path(saved, tmp_path / "into", python=tmp_path / "gone")
    assert raised.value.code == "INVALID_SETTING"


def test_a_directory_that_is_none_is_refused(tmp_path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(SalverError, match=r"no saved_model\.pb"):
        convert_path(tmp_path / "x", tmp_path / "into", kind="savedmodel")
