"""What `salver predict` says of input that cannot be sent: by the name it was given, with what to do."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

PYTHON = """
import salver
class Echo(salver.Model):
    inputs = [{inputs}]
    outputs = [salver.TensorSpec("n", "INT64", (-1,))]
    def predict(self, inputs):
        return {{"n": sum(1 for _ in inputs)}}
"""
TEXT = 'salver.TensorSpec("text", "BYTES", (-1,))'
TWO = 'salver.TensorSpec("a", "FP32", (-1, 2)), salver.TensorSpec("b", "INT64", (-1,))'


@pytest.fixture(scope="module")
def served(shared, tmp_path_factory):
    """Endpoints that take text, and two inputs, beside those of the shared server."""
    place = tmp_path_factory.mktemp("inputs")
    for name, inputs in (("takes-text", TEXT), ("takes-two", TWO)):
        (place / f"{name}.py").write_text(PYTHON.format(inputs=inputs))
        shared.salver("register", name, place / f"{name}.py")
        shared.salver("deploy", name, "--optional", "--wait")
    yield shared
    for name in ("takes-text", "takes-two"):
        shared.salver("undeploy", name)


@pytest.fixture
def ask(served, salver, monkeypatch):
    monkeypatch.setenv("SALVER_HOME", str(served.home))

    def run(endpoint: str, *arguments: object, stdin: bytes = b""):
        done = salver("--json", "predict", endpoint, *arguments, stdin=stdin)
        assert (done.code, done.out) == (1, "")
        return done.error

    return run


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_nothing_to_send_is_said_of_a_file_and_of_standard_input(ask, tmp_path, content) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    assert ask("double", stdin=content)["message"] == "standard input is empty"
    assert ask("double", "--input", tmp_path / "rows.csv")["message"] == f"'{tmp_path}/rows.csv' is empty"


@pytest.mark.parametrize("content", [b"a,b\n", b"1,2\n3\n", b"1,2\none,two\n"])
@pytest.mark.parametrize("suffix", ["csv", "txt", "parquet"])
def test_what_is_no_table_goes_by_the_name_it_was_given(ask, tmp_path, suffix, content) -> None:
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(content)
    error = ask("double", "--input", path)
    assert error["message"].startswith(f"'{path}' is no table of numbers")
    assert "input-" not in error["message"]
    assert ask("double", stdin=content)["message"].startswith("standard input is no table of numbers")


def test_a_damaged_npy_goes_by_its_name_too(ask, tmp_path) -> None:
    (tmp_path / "rows.npy").write_bytes(b"\x93NUMPY\x01")
    assert ask("double", "--input", tmp_path / "rows.npy")["message"].startswith(f"'{tmp_path}/rows.npy' is no npy")


def test_doubles_for_an_endpoint_of_floats_are_answered_with_what_to_write(ask, tmp_path) -> None:
    np.save(tmp_path / "rows.npy", np.array([[0.1, 0.2]]))
    error = ask("double", "--input", tmp_path / "rows.npy")
    assert error["code"] == "INVALID_VALUE"
    assert "rows.npy" in error["message"]
    assert "rows.astype(numpy.float32)" in error["remedy"]
    assert "numpy.save" in error["remedy"]


@pytest.mark.parametrize("stdin", [b"some words\n", b"1,2\n"])
def test_rows_for_an_endpoint_of_text_are_refused_with_a_request_that_would_do(ask, salver, stdin) -> None:
    error = ask("takes-text", stdin=stdin)
    assert error["code"] == "WRONG_DATATYPE"
    assert "takes text BYTES" in error["message"]
    request = error["remedy"].partition("such as ")[2]
    assert json.loads(request)["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["text"]}]


def test_rows_for_an_endpoint_of_two_inputs_are_refused_with_a_request_that_would_do(ask) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((1, 2), np.float32))
    error = ask("takes-two", stdin=buffer.getvalue())
    assert error["code"] == "MISSING_INPUT"
    assert "a FP32, b INT64" in error["message"]
    assert [tensor["name"] for tensor in json.loads(error["remedy"].partition("such as ")[2])["inputs"]] == ["a", "b"]


def test_a_request_too_long_to_copy_is_not_shown() -> None:
    from salver.cli.sample import sample_request
    from salver.protocol.signature import TensorSpec

    assert sample_request([TensorSpec("image", "FP32", (-1, 3, 224, 224))]) == ""
    assert sample_request([TensorSpec("half", "FP16", (-1,))]) == ""
    optional = [TensorSpec("x", "BOOL", (-1,)), TensorSpec("y", "FP64", (-1,), optional=True)]
    assert json.loads(sample_request(optional)) == {
        "inputs": [{"name": "x", "datatype": "BOOL", "shape": [1], "data": [False]}]
    }
