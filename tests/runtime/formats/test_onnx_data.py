"""Data that a graph wants from elsewhere is its own, or the graph is refused: when registered and when loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import RuntimeOptions
from salver.runtime.artifact import read_artifact
from salver.runtime.formats.onnx_data import external_paths
from salver.runtime.loader import load_version

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))
WEIGHTS = np.array([3.0, 4.0], np.float32).tobytes()


def tensor(location: str) -> TensorProto:
    made = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    made.external_data.add(key="location", value=location)
    return made


def graph(location: str, place: str = "initializer") -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])
    nodes, initializers, functions = [helper.make_node("Add", ["x", "w"], ["y"])], [], []
    if place == "initializer":
        initializers = [tensor(location)]
    elif place == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor(location)))
    elif place == "branch":
        inner = helper.make_graph(
            [helper.make_node("Constant", [], ["v"], value=tensor(location))],
            "inner",
            [],
            [helper.make_tensor_value_info("v", TensorProto.FLOAT, [2])],
        )
        condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
        nodes.insert(0, helper.make_node("If", ["c"], ["w"], then_branch=inner, else_branch=inner))
        initializers = [condition]
    else:
        body = [helper.make_node("Constant", [], ["w"], value=tensor(location))]
        functions = [helper.make_function("own", "Weights", [], ["w"], body, [helper.make_opsetid("", 17)])]
        nodes.insert(0, helper.make_node("Weights", [], ["w"], domain="own"))
    made = helper.make_graph(nodes, "g", [x], [y], initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9, functions=functions).SerializeToString()


@pytest.fixture
def upload(tmp_path) -> Path:
    (tmp_path / "secret.bin").write_bytes(WEIGHTS)
    directory = tmp_path / "upload"
    (directory / "sub").mkdir(parents=True)
    for name in ("weights.bin", "sub/weights.bin"):
        (directory / name).write_bytes(WEIGHTS)
    return directory


PLACES = ["initializer", "constant", "branch", "function"]


@pytest.mark.parametrize("place", PLACES)
def test_every_place_that_may_hold_a_tensor_is_looked_into(place) -> None:
    content = graph("../secret.bin", place)
    assert external_paths(content) == {"../secret.bin"}
    assert onnx.load_model_from_string(content).SerializeToString() == content


@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin", "./weights.bin"])
def test_data_of_the_artifact_is_read(upload, store, location) -> None:
    (upload / "model.onnx").write_bytes(graph(location))
    artifact = read_artifact(upload)
    assert artifact.signature == SIGNATURE
    files = {name: path.read_bytes() for name, path in artifact.files.items()}
    manifest = store.version(files, format="onnx", signature=SIGNATURE, trusts_code=False)
    loaded = load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
    assert loaded.run({"x": np.zeros((1, 2), np.float32)})["y"].tolist() == [[3.0, 4.0]]
    loaded.unload()


OUTSIDE = [
    "../secret.bin",
    "sub/../../secret.bin",
    "{root}/secret.bin",
    "/proc/self/environ",
    "..",
    "",
    "sub",
    "gone",
    "a\\b",
]


@pytest.mark.parametrize("location", OUTSIDE)
@pytest.mark.parametrize("place", PLACES)
def test_data_from_outside_is_refused_when_it_is_registered(upload, tmp_path, location, place) -> None:
    (upload / "model.onnx").write_bytes(graph(location.format(root=tmp_path), place))
    with pytest.raises(SalverError, match="wants data from") as raised:
        read_artifact(upload)
    assert raised.value.code == "INVALID_ARTIFACT"


def test_data_through_a_link_is_refused(upload, tmp_path) -> None:
    """Registration takes no links at all; what loads looks for itself."""
    from salver.runtime.declaration import Declaration
    from salver.runtime.formats import Source, format_named

    (upload / "link.bin").symlink_to(tmp_path / "secret.bin")
    (upload / "way").symlink_to(tmp_path)
    for location in ("link.bin", "way/secret.bin"):
        (upload / "model.onnx").write_bytes(graph(location))
        with pytest.raises(SalverError, match="which is a link"):
            format_named("onnx").load(Source(upload, upload / "model.onnx"), Declaration(), RuntimeOptions())
        with pytest.raises(SalverError, match="no regular file"):
            read_artifact(upload)


@pytest.mark.parametrize("location", ["../secret.bin", "weights.bin", "{root}/secret.bin", "0", "fdinfo/0"])
def test_a_model_alone_has_no_data_elsewhere(upload, store, tmp_path, monkeypatch, location) -> None:
    """Neither beside where it was, nor where the server stands, nor among what the server has open."""
    monkeypatch.chdir(upload)
    path = upload / "model.onnx"
    for padding in (b"", bytes(2 << 20)):
        content = onnx.load_model_from_string(graph(location.format(root=tmp_path)))
        content.doc_string = padding.decode()
        path.write_bytes(content.SerializeToString())
        with pytest.raises(SalverError, match="registered alone") as raised:
            read_artifact(path)
        assert raised.value.code == "INVALID_ARTIFACT"
        manifest = store.version({"m.onnx": path.read_bytes()}, format="onnx", signature=SIGNATURE, trusts_code=False)
        with pytest.raises(SalverError, match="registered alone"):
            load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)


def test_what_other_parsers_might_read_differently_is_refused(upload) -> None:
    honest = graph("weights.bin")
    group = b"\xab\x06\xac\x06"  # an unknown field 101 that begins and ends a group
    large_tag = b"\xba\x80\x80\x80\x10" + bytes([3]) + b"abc"  # field 7, as far as 32 bits hold the tag
    for content in (group + honest, large_tag + honest, honest[:-1], honest + b"\x07"):
        with pytest.raises(SalverError, match="no message of protobuf"):
            external_paths(content)
