"""Files are taken for what they hold, whatever they are called."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile

import numpy as np
import pytest

from salver.imports import convert_path, recognise
from salver.protocol.errors import SalverError
from salver.runtime.artifact import read_artifact

KINDS = {
    "joblib": ("sklearn", "model.joblib", True),
    "compressed.joblib": ("sklearn", "model.joblib", True),
    "skops": ("sklearn", "model.skops", False),
    "onnx": ("onnx", "model.onnx", False),
    "xgboost-json": ("xgboost", "model.json", False),
    "xgboost-ubj": ("xgboost", "model.ubj", False),
    "lightgbm": ("lightgbm", "model.txt", False),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_recognised_by_content_and_can_be_registered(models, tmp_path, name) -> None:
    source = tmp_path / ("odd.joblib" if name.startswith("compressed") else "odd.name")
    shutil.copyfile(models[name], source)
    assert recognise(source) == "file"
    made = convert_path(source, tmp_path / "into")
    kind, file, trusted = KINDS[name]
    assert (made.format, [path.name for path in made.directory.iterdir()]) == (kind, [file])
    assert (made.directory / file).read_bytes() == source.read_bytes()
    assert made.facts()["imported_from"] == source.name
    if name not in ("compressed.joblib", "xgboost-json"):  # read as those above and below are
        artifact = read_artifact(made.directory, format=made.format, trust_code=trusted)
        assert artifact.signature.outputs[0].name == "label"


def test_a_wrong_suffix_does_not_make_a_kind(models, tmp_path) -> None:
    shutil.copyfile(models["joblib"], tmp_path / "model.onnx")
    made = convert_path(tmp_path / "model.onnx", tmp_path / "into")
    assert made.format == "sklearn"
    with pytest.raises(SalverError, match="can execute code"):
        read_artifact(made.directory, format=made.format)


def test_data_beside_a_graph_comes_along_and_data_elsewhere_does_not(tmp_path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def graph(location: str):
        weights = numpy_helper.from_array(np.ones(1000, np.float32), "w")
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1000])
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1000])
        made = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weights])
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.external_data_helper.set_external_data(weights, location)
        model.graph.initializer[0].CopyFrom(weights)
        model.graph.initializer[0].ClearField("raw_data")
        return model.SerializeToString()

    (tmp_path / "up").mkdir()
    for place in (tmp_path / "up" / "w.bin", tmp_path / "secret"):
        place.write_bytes(np.ones(1000, np.float32).tobytes())
    (tmp_path / "up" / "m").write_bytes(graph("w.bin"))
    made = convert_path(tmp_path / "up" / "m", tmp_path / "into")
    assert sorted(path.name for path in made.directory.iterdir()) == ["model.onnx", "w.bin"]
    assert read_artifact(made.directory).format == "onnx"
    for name in ("salver-model.toml", "Salver-Model.TOML", "model.py", "sub/steps.py"):
        (tmp_path / "up" / "m").write_bytes(graph(name))
        with pytest.raises(SalverError, match="calls a file of its data"):
            convert_path(tmp_path / "up" / "m", tmp_path / name.replace("/", "-"))
    (tmp_path / "up" / "m").write_bytes(graph("../secret"))
    with pytest.raises(SalverError, match="leads out of what is imported"):
        convert_path(tmp_path / "up" / "m", tmp_path / "other")
    (tmp_path / "up" / "w.bin").unlink()
    (tmp_path / "up" / "w.bin").symlink_to(tmp_path / "secret")
    (tmp_path / "up" / "m").write_bytes(graph("w.bin"))
    with pytest.raises(SalverError, match="is a link"):
        convert_path(tmp_path / "up" / "m", tmp_path / "third")


def zipped(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in names:
            archive.writestr(name, pickle.dumps(name))
    return made.getvalue()


REFUSED = {
    "torch.save of weights": (zipped("m/data.pkl", "m/version", "m/data/0"), "torch.export.save"),
    "TorchScript": (zipped("m/data.pkl", "m/constants.pkl", "m/code/x.py"), "TorchScript"),
    "Keras": (zipped("config.json", "model.weights.h5"), "model.export"),
    "an npz": (zipped("a.npy", "b.npy"), "numpy's arrays"),
    "another zip": (zipped("readme.md"), "is a zip archive"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
    "a program": (b"\x7fELF" + bytes(100), "a program"),
    "old XGBoost": (b"binf" + bytes(100), "old binary format"),
    "text": (b"hello", "nothing that is known"),
    "nothing": (b"", "nothing that is known"),
    "half a zip": (zipped("m/data.pkl")[:40], "is a zip archive"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_served_is_refused_by_name(tmp_path, what) -> None:
    content, says = REFUSED[what]
    (tmp_path / "odd").write_bytes(content)
    with pytest.raises(SalverError) as raised:
        convert_path(tmp_path / "odd", tmp_path / "into")
    assert raised.value.code == "INVALID_ARTIFACT"
    assert says in str(raised.value)


def test_a_link_is_not_followed(models, tmp_path) -> None:
    (tmp_path / "link").symlink_to(models["onnx"])
    with pytest.raises(SalverError, match="no regular file"):
        convert_path(tmp_path / "link", tmp_path / "into")


def test_what_is_not_there_and_what_is_no_source_is_said(tmp_path) -> None:
    with pytest.raises(SalverError, match="there is no file or directory"):
        recognise(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SalverError, match="neither a model of MLflow nor a SavedModel"):
        recognise(tmp_path / "empty")
    with pytest.raises(SalverError, match="use one of mlflow, savedmodel, mar, file") as raised:
        convert_path(tmp_path / "empty", tmp_path / "into", kind="caffe")
    assert raised.value.code == "INVALID_SETTING"
