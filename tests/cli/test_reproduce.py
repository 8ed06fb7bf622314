from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def line(path: Path, slope: float) -> Path:
    """y = slope * (a + b), as a graph."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "line",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(np.full((2, 1), slope, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(model)
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """Forty rows whose truth is a + b and half a unit more."""
    path = tmp_path / "rows.csv"
    path.write_text("a,b,sum\n" + "".join(f"{n},{2 * n},{3 * n + 0.5}\n" for n in range(40)))
    return path


@pytest.fixture
def registered(salver, rows: Path, tmp_path: Path) -> Path:
    """A line whose description says the truth about it; returns its file."""
    file = line(tmp_path / "line.onnx", 1.0)
    digest = hashlib.sha256(rows.read_bytes()).hexdigest()
    said = ("--set", f"evaluation_data.digest={digest}", "--metric", "mae=0.5", "--metric", "revenue=7")
    assert salver("register", "line", file, *said).code == 0
    return file


def copying(source: Path) -> str:
    program = f"import os, shutil; shutil.copyfile('{source}', os.environ['SALVER_ARTIFACT'])"
    return f'{sys.executable} -c "{program}"'


def test_what_was_recorded_comes_out_again_and_can_be_recorded(registered, salver, rows) -> None:
    done = salver("--json", "reproduce", "line", "--data", rows, "--target", "sum", "--record")
    assert (done.code, done.json["verdict"], done.json["data"]) == (0, "successful", "same")
    assert {each["name"]: each["agrees"] for each in done.json["metrics"]} == {"mae": True, "revenue": None}
    (kept,) = salver("--json", "evaluations", "line").json
    assert (kept["suite"], kept["verdict"], kept["id"]) == ("reproduction", "successful", done.json["id"])


def test_a_number_that_does_not_come_out_again_is_told(registered, salver, rows) -> None:
    salver("describe", "line", "--metric", "mae=0.25")
    done = salver("reproduce", "line", "--data", rows, "--target", "sum")
    assert done.code == 1
    assert "mae is 0.5; recorded is 0.25 (description)" in done.out
    assert salver("reproduce", "line", "--data", rows, "--target", "sum", "--tolerance", "0.3").code == 0


def test_other_data_prove_nothing(registered, salver, rows) -> None:
    rows.write_text(rows.read_text() + "1,1,2.5\n")
    done = salver("reproduce", "line", "--data", rows, "--target", "sum")
    assert done.code == 2
    assert "others than those that were recorded" in done.out


def test_what_training_makes_again_is_compared(registered, salver, rows, tmp_path: Path) -> None:
    again = ("reproduce", "line", "--data", rows, "--target", "sum", "--command")
    same = salver("--json", *again, copying(registered))
    assert (same.code, same.json["remade"]["outcome"]) == (0, "same bytes")
    other = salver("--json", *again, copying(line(tmp_path / "other.onnx", 2.0)))
    assert (other.code, other.json["remade"]["outcome"]) == (1, "different")
    near = salver("--json", *again, copying(line(tmp_path / "near.onnx", 1.0 + 1e-6)), "--tolerance", "0.001")
    assert (near.code, near.json["remade"]["outcome"]) == (0, "same metrics")


def test_an_artifact_under_another_name_has_the_same_bytes(registered, salver, rows, tmp_path: Path) -> None:
    made = tmp_path / "elsewhere.onnx"
    program = f"import shutil; shutil.copyfile('{registered}', '{made}')"
    words = ("--command", f'{sys.executable} -c "{program}"', "--artifact", made)
    done = salver("--json", "reproduce", "line", "--data", rows, "--target", "sum", *words)
    assert done.json["remade"]["outcome"] == "same bytes"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--target", "nothing"),
        ("--target", "sum", "--tolerance", "-1"),
        ("--target", "sum", "--artifact", "x"),
        ("--target", "sum", "--command", "/nowhere/program"),
        ("--target", "sum", "--timeout", "0", "--command", "true"),
    ],
)
def test_what_cannot_be_judged_ends_with_3(registered, salver, rows, words) -> None:
    done = salver("reproduce", "line", "--data", rows, *words)
    assert done.code == 3
    assert "error: " in done.err
