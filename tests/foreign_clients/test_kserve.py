"""KServe's own clients, unmodified, in an environment of its own, against `salver serve`."""

import asyncio
import hashlib
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

PYTHON = Path(__file__).parents[2] / ".venvs" / "kserve" / "bin" / "python"


def digits_model() -> bytes:
    rows, labels = load_digits(return_X_y=True)
    rows = rows.astype(np.float32)
    model = LogisticRegression(max_iter=20).fit(rows / 16, labels)
    return to_onnx(model, rows[:1], options={"zipmap": False}).SerializeToString()


def copy_model(name: str) -> bytes:
    """Bytes in, the same bytes out."""
    text = [helper.make_tensor_value_info(name, TensorProto.STRING, ["batch"]) for name in ("text", "same_bytes")]
    graph = helper.make_graph([helper.make_node("Identity", ["text"], ["same_bytes"])], name, text[:1], text[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_kserves_clients_work_unmodified(tmp_path):
    assert PYTHON.exists(), "make venv-kserve makes the environment this test drives"
    home = tmp_path / "home"
    for name, content in (("digits", digits_model()), ("copy", copy_model("copy")), ("broken", copy_model("broken"))):
        (tmp_path / f"{name}.onnx").write_bytes(content)
        assert main(["--home", str(home), "register", name, str(tmp_path / f"{name}.onnx")]) == 0
        assert main(["--home", str(home), "deploy", name, "--optional"]) == 0
    (lost,) = home.rglob(hashlib.sha256(copy_model("broken")).hexdigest())
    lost.unlink()

    async def drive():
        async with salver.Server(home=home, grpc=0) as server:
            return await asyncio.to_thread(
                subprocess.run,
                [PYTHON, Path(__file__).parent / "kserve_client.py", server.http, server.grpc],
                capture_output=True,
                text=True,
                timeout=100,
            )

    done = asyncio.run(drive())

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 7, done.stdout
