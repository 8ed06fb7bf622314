"""Triton's own HTTP client, unmodified, in an environment of its own, against `salver serve`."""

import asyncio
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import salver
from salver.cli import main

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venvs" / "tritonclient" / "bin" / "python"
TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def echo_model() -> bytes:
    """A graph that gives every input back, one of each datatype."""
    nodes = [helper.make_node("Identity", [name], [f"{name}_OUT"]) for name in TYPES]
    inputs = [helper.make_tensor_value_info(name, kind, ["batch", 2]) for name, kind in TYPES.items()]
    outputs = [helper.make_tensor_value_info(f"{name}_OUT", kind, ["batch", 2]) for name, kind in TYPES.items()]
    graph = helper.make_graph(nodes, "echo", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


SUMS = """
kind = "sequence"
[[states]]
input = "before"
output = "after"
datatype = "FP32"
shape = [-1, 2]
"""


def write_sums(folder: Path) -> Path:
    """A graph that keeps the sum of each sequence."""
    tensors = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2])
        for name in ("x", "before", "y", "after")
    }
    nodes = [helper.make_node("Add", ["x", "before"], ["after"]), helper.make_node("Identity", ["after"], ["y"])]
    graph = helper.make_graph(nodes, "sums", [tensors["x"], tensors["before"]], [tensors["y"], tensors["after"]])
    folder.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (folder / "salver-model.toml").write_text(SUMS)
    return folder


def digits_model() -> bytes:
    rows, labels = load_digits(return_X_y=True)
    rows = rows.astype(np.float32)
    model = LogisticRegression(max_iter=20).fit(rows / 16, labels)
    return to_onnx(model, rows[:1], options={"zipmap": False}).SerializeToString()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_tritons_http_client_works_unmodified(tmp_path):
    assert PYTHON.exists(), "make venv-tritonclient makes the environment this test drives"
    home = tmp_path / "home"
    for name, content in (("digits", digits_model()), ("echo", echo_model())):
        (tmp_path / f"{name}.onnx").write_bytes(content)
        assert main(["--home", str(home), "register", name, str(tmp_path / f"{name}.onnx")]) == 0
        assert main(["--home", str(home), "deploy", name]) == 0
    assert main(["--home", str(home), "deploy", "digits", "--endpoint", "numbers"]) == 0
    assert main(["--home", str(home), "register", "sums", str(write_sums(tmp_path / "sums"))]) == 0
    assert main(["--home", str(home), "deploy", "sums"]) == 0

    async def drive():
        async with salver.Server(home=home) as server:
            token = (home / "admin.token").read_text().strip()
            return await asyncio.to_thread(
                subprocess.run,
                [PYTHON, Path(__file__).parent / "triton_http_client.py", server.http, server.control, token],
                capture_output=True,
                text=True,
                timeout=100,
            )

    done = asyncio.run(drive())

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 13, done.stdout
