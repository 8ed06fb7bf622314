"""What a model takes is read without its weights, and what would not load is refused all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.runtime.declaration import Declaration
from salver.runtime.formats import Source
from salver.runtime.formats.onnx import OnnxFormat
from salver.runtime.formats.onnx_outline import outlined

WIDTH = 200
SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, WIDTH)),), (TensorSpec("y", "FP32", (-1, 2, WIDTH // 2)),))


def model(weights: np.ndarray, **tensor: object) -> onnx.ModelProto:
    """`y` is `x` times the weights, in a shape that a small tensor says."""
    shape = numpy_helper.from_array(np.array([-1, 2, WIDTH // 2], np.int64), "shape")
    large = numpy_helper.from_array(weights, "w")
    for name, value in tensor.items():
        setattr(large, name, value)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["flat"]), helper.make_node("Reshape", ["flat", "shape"], ["y"])],
        "flat",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, WIDTH // 2])],
        [large, shape],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def source(path: Path, made: onnx.ModelProto) -> Source:
    path.write_bytes(made.SerializeToString())
    return Source(path.parent, path, alone=True)


WEIGHTS = np.random.default_rng(0).random((WIDTH, WIDTH), np.float32)


def test_weights_are_not_read_for_the_signature(tmp_path: Path) -> None:
    given = source(tmp_path / "model.onnx", model(WEIGHTS))
    with outlined(given) as outline:
        assert given.main.stat().st_size > WEIGHTS.nbytes
        assert outline.main.stat().st_size < 500
        read = onnx.load(outline.main, load_external_data=False)
        assert [node.op_type for node in read.graph.node] == ["MatMul", "Reshape"]
        assert numpy_helper.to_array(read.graph.initializer[1]).tolist() == [-1, 2, WIDTH // 2]
        assert (outline.directory / "weights").stat().st_blocks == 0
    assert not outline.main.exists()
    assert OnnxFormat().signature(given, Declaration()) == SIGNATURE


def test_a_model_with_its_weights_in_other_files_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model(WEIGHTS), path, save_as_external_data=True, size_threshold=1024, location="w.bin")
    given = Source(tmp_path, path)
    with outlined(given) as outline:
        assert outline is given
    assert OnnxFormat().signature(given, Declaration()) == SIGNATURE


@pytest.mark.parametrize(
    "damage",
    [
        {"raw_data": WEIGHTS.tobytes()[:-4]},
        {"raw_data": WEIGHTS.tobytes() + bytes(4)},
        {"data_type": TensorProto.DOUBLE},
        {"data_type": 99},
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, damage: dict[str, object]) -> None:
    given = source(tmp_path / "model.onnx", model(WEIGHTS, **damage))
    with pytest.raises(SalverError) as raised:
        OnnxFormat().signature(given, Declaration())
    assert raised.value.code == "INVALID_ARTIFACT"
    assert "model.onnx" in raised.value.message
    assert str(tmp_path) not in raised.value.message


def test_a_model_whose_outline_does_not_load_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salver.runtime.formats.onnx_outline._LARGE_BYTES", 8)  # so that the shape goes as well
    given = source(tmp_path / "model.onnx", model(WEIGHTS))
    assert OnnxFormat().signature(given, Declaration()) == SIGNATURE
