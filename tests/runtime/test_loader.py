from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import RuntimeOptions
from salver.runtime.loader import load_version
from salver.testing import SIGNATURE

PLAIN = """
import salver
class Plain(salver.Model):
    def load(self, path):
        self.offset = float((path / "data" / "offset.txt").read_text())
    def predict(self, inputs):
        return {"y": inputs["x"] + self.offset}
"""


@pytest.fixture(autouse=True)
def _imports_are_undone(users_code) -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("artifact_"):
            del sys.modules[name]


def left(store) -> list[Path]:
    return list(store.scratch.iterdir())


def test_a_directory_is_laid_out_as_it_was_and_removed_with_the_version(store) -> None:
    manifest = store.version({"artifact_plain.py": PLAIN, "data/offset.txt": "0.5"})
    loaded = load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
    (room,) = left(store)
    assert sorted(
        path.relative_to(room).as_posix() for path in room.rglob("*.*") if "__pycache__" not in path.parts
    ) == [
        "artifact_plain.py",
        "data/offset.txt",
    ]
    assert oct(room.stat().st_mode & 0o777) == "0o700"
    assert loaded.run({"x": np.zeros((1, 2), np.float32)})["y"].tolist() == [[0.5, 0.5]]
    loaded.unload()
    assert left(store) == []


def test_pre_and_postprocessing_of_the_artifact_surround_the_model(store) -> None:
    functions = """
def before(arrays):
    return {"x": arrays["raw"] * 10}
def after(arrays):
    return {"z": arrays["y"] + 1}
"""
    toml = (
        'entry = "artifact_model:Plain"\npreprocess = "artifact_steps:before"\npostprocess = "artifact_steps:after"\n'
    )
    manifest = store.version(
        {
            "artifact_model.py": PLAIN,
            "data/offset.txt": "0.5",
            "artifact_steps.py": functions,
            "salver-model.toml": toml,
        },
        preprocess="artifact_steps:before",
        postprocess="artifact_steps:after",
    )
    loaded = load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
    assert loaded.run({"raw": np.ones((1, 2), np.float32)})["z"].tolist() == [[11.5, 11.5]]
    loaded.unload()


FAILURES = {
    "raises": ("raise OSError('/etc/secret')", OSError),
    "has no model": ("", SalverError),
    "needs a module": ("import surely_not_installed", SalverError),
}


@pytest.mark.parametrize(("source", "kind"), FAILURES.values(), ids=FAILURES.keys())
def test_a_load_that_fails_leaves_nothing(store, source, kind) -> None:
    manifest = store.version({f"artifact_{abs(hash(source))}.py": source, "more/data.bin": b"x"})
    with pytest.raises(kind):
        load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
    assert left(store) == []


def test_one_corrupt_file_among_several_is_refused_before_anything_runs(store, tmp_path) -> None:
    canary = tmp_path / "canary"
    manifest = store.version({"artifact_a.py": f"open({str(canary)!r}, 'w')", "weights.bin": b"x" * 100})
    path = store.blobs_path / manifest.files[1].sha256
    path.chmod(0o644)
    path.write_bytes(b"x" * 99 + b"y")
    with pytest.raises(SalverError) as raised:
        load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
    assert raised.value.code == "CORRUPT_ARTIFACT"
    assert not canary.exists()
    assert left(store) == []


def test_a_missing_file_is_refused(store) -> None:
    manifest = store.version({"artifact_a.py": PLAIN})
    (store.blobs_path / manifest.files[0].sha256).unlink()
    with pytest.raises(SalverError) as raised:
        load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
    assert raised.value.code == "CORRUPT_ARTIFACT"


@pytest.mark.parametrize("path", ["../outside.py", "/tmp/outside.py", "a/../../outside.py"])
def test_a_manifest_cannot_write_outside(store, path) -> None:
    import msgspec

    manifest = store.version({"artifact_a.py": PLAIN, "b": b"x"})
    entry = msgspec.structs.replace(manifest.files[1], path=path)
    manifest = msgspec.structs.replace(manifest, files=(manifest.files[0], entry))
    with pytest.raises(SalverError, match="outside the artifact"):
        load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
    assert left(store) == []
    assert not (store.scratch.parent / "outside.py").exists()


def test_a_pickle_that_nobody_vouched_for_is_not_opened_however_it_got_here(store, tmp_path) -> None:
    import pickle

    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self) -> object:
            return os.open, (str(canary), os.O_CREAT | os.O_WRONLY)

    for changes in ({}, {"preprocess": "m:f"}):
        manifest = store.version({"m.pkl": pickle.dumps(Bomb())}, format="sklearn", trusts_code=False, **changes)
        with pytest.raises(SalverError) as raised:
            load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
        assert raised.value.code == "REFUSED_BY_POLICY"
    assert not canary.exists()
    assert left(store) == []


# ONNX.


def graph(datatype: int, *, initializer: object = None, text: bool = False) -> bytes:
    from onnx import TensorProto, helper

    kind = TensorProto.STRING if text else datatype
    x = helper.make_tensor_value_info("x", kind, ["n", 2])
    y = helper.make_tensor_value_info("y", kind, ["n", 2])
    if initializer is not None:
        nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
        made = helper.make_graph(nodes, "g", [x], [y], [initializer])
    else:
        made = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def onnx_types() -> dict[str, int]:
    from onnx import TensorProto

    names = {"FP16": "FLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE", "BYTES": "STRING", "BF16": "BFLOAT16"}
    return {
        name: getattr(TensorProto, names.get(name, name))
        for name in (
            "BOOL",
            "UINT8",
            "UINT16",
            "UINT32",
            "UINT64",
            "INT8",
            "INT16",
            "INT32",
            "INT64",
            "FP16",
            "FP32",
            "FP64",
            "BYTES",
        )
    }


@pytest.mark.parametrize("datatype", onnx_types())
def test_onnx_takes_and_gives_every_datatype(store, datatype) -> None:
    from salver.protocol.datatypes import DATATYPES
    from salver.runtime.batch import check_outputs

    signature = Signature((TensorSpec("x", datatype, (-1, 2)),), (TensorSpec("y", datatype, (-1, 2)),))
    content = graph(onnx_types()[datatype])
    manifest = store.version({"m.onnx": content}, format="onnx", trusts_code=False, signature=signature)
    loaded = load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
    if datatype == "BYTES":
        x = np.array([["ü".encode(), b""], [b"a", b"b"]], object)
    else:
        x = np.array([[0, 1], [1, 0]], DATATYPES[datatype].dtype)
    assert check_outputs(loaded.run({"x": x}), signature, 2)["y"].tolist() == x.tolist()
    assert left(store) == [], "one data file is loaded from memory"


def test_onnx_settings_that_do_not_exist_are_refused_with_those_that_do(store) -> None:
    manifest = store.version({"m.onnx": graph(1)}, format="onnx", trusts_code=False, signature=SIGNATURE)
    for options, says in (
        (RuntimeOptions(optimization="extreme"), "disabled, basic, extended, all"),
        (RuntimeOptions(providers=("QuantumExecutionProvider",)), "CPUExecutionProvider"),
    ):
        with pytest.raises(SalverError) as raised:
            load_version(manifest, options, store.blobs, store.scratch)
        assert raised.value.code == "INVALID_SETTING"
        assert says in raised.value.remedy
    loaded = load_version(manifest, RuntimeOptions(threads=2, pin=(0,)), store.blobs, store.scratch)
    assert loaded.run({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[1, 1]]


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "secret"])
def test_onnx_reads_no_data_from_outside_its_artifact(store, tmp_path, monkeypatch, location) -> None:
    from onnx import TensorProto

    (tmp_path / "secret").write_bytes(np.array([7, 7], np.float32).tobytes())
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "secret").write_bytes(np.array([7, 7], np.float32).tobytes())
    monkeypatch.chdir(tmp_path / "here")
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    entry = weights.external_data.add()
    entry.key, entry.value = "location", location
    content = graph(TensorProto.FLOAT, initializer=weights)
    for files in ({"m.onnx": content}, {"m.onnx": content, "salver-model.toml": ""}):
        manifest = store.version(files, format="onnx", trusts_code=False, signature=SIGNATURE)
        with pytest.raises(SalverError) as raised:
            load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
        assert raised.value.code == "INVALID_ARTIFACT"
    assert left(store) == []


def test_onnx_reads_data_that_came_with_it(store) -> None:
    from onnx import TensorProto

    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    files = {
        "m.onnx": graph(TensorProto.FLOAT, initializer=weights),
        "weights.bin": np.array([7, 8], np.float32).tobytes(),
    }
    manifest = store.version(files, format="onnx", trusts_code=False, signature=SIGNATURE)
    loaded = load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
    assert loaded.run({"x": np.zeros((1, 2), np.float32)})["y"].tolist() == [[7, 8]]
    loaded.unload()
    assert left(store) == []
