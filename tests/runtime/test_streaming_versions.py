"""What a version says of its streams, from the file beside it to the worker that loads it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.streaming import PREDICTING, SIGNATURE, streaming

from salver.protocol.errors import SalverError
from salver.protocol.tables import RuntimeOptions
from salver.runtime.artifact import read_artifact
from salver.runtime.loader import load_version

TENSOR = '[[{side}]]\nname = "{name}"\ndatatype = "FP32"\nshape = [-1, 2]\n'
DECLARED = "streams = true\n" + TENSOR.format(side="inputs", name="x") + TENSOR.format(side="outputs", name="y")
STREAM = "    def stream(self, inputs):\n        yield {'y': inputs['x']}\n"
PREDICT = "    def predict(self, inputs):\n        return {'y': inputs['x']}\n"


def folder(path: Path, methods: str, declared: str = DECLARED) -> Path:
    path.mkdir()
    (path / "model.py").write_text(f"import salver\n\n\nclass One(salver.Model):\n{methods}")
    (path / "salver-model.toml").write_text(declared)
    return path


@pytest.mark.parametrize("methods", [STREAM, STREAM + PREDICT])
def test_a_class_that_streams_is_registered_as_one(tmp_path, methods):
    assert read_artifact(folder(tmp_path / "m", methods)).declaration.streams


@pytest.mark.parametrize(
    ("methods", "declared", "problem"),
    [
        (PREDICT, DECLARED, "One has no stream"),
        ("    pass\n", DECLARED, "answers nothing"),
        ("    inputs = outputs = (salver.TensorSpec('x', 'FP32', (-1,)),)\n" + STREAM, "", "One has a stream"),
        (STREAM, DECLARED.replace("true", '"yes"'), "streams"),
    ],
)
def test_a_class_and_its_declaration_must_agree(tmp_path, methods, declared, problem):
    with pytest.raises(SalverError, match=problem) as raised:
        read_artifact(folder(tmp_path / "m", methods, declared))
    assert raised.value.code == "INVALID_ARTIFACT"


def test_what_runs_no_class_streams_nothing(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"")
    (tmp_path / "salver-model.toml").write_text("streams = true\n")
    with pytest.raises(SalverError, match="runs no class of yours"):
        read_artifact(tmp_path)


@pytest.fixture
def imports(users_code, monkeypatch):
    """Modules of artifacts are imported as in a worker of their own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("model", None)
    yield
    sys.modules.pop("model", None)


def load(store, manifest):
    return load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)


@pytest.mark.usefixtures("imports")
def test_a_manifest_that_its_artifact_contradicts_is_not_loaded(store):
    with pytest.raises(SalverError, match="streams False"):
        load(store, streaming(store, streams=False))


@pytest.mark.usefixtures("imports")
@pytest.mark.parametrize(("more", "predicts"), [("", False), (PREDICTING, True)])
def test_what_is_loaded_says_whether_it_predicts(store, more, predicts):
    loaded = load(store, streaming(store, more=more))
    assert loaded.predicts is predicts
    loaded.unload()


@pytest.mark.usefixtures("imports")
def test_processing_functions_stand_around_a_stream(store):
    code = """
import salver

def before(inputs):
    return {"x": inputs["x"] + 1}

def after(outputs):
    return {"y": outputs["y"] * 10}

class One(salver.Model):
    def preprocess(self, inputs):
        return {"x": inputs["x"] * 2}

    def postprocess(self, outputs):
        return {"y": outputs["y"] + 0.5}

    def stream(self, inputs):
        for n in range(2):
            yield {"y": inputs["x"] + n}
"""
    functions = {"preprocess": "model:before", "postprocess": "model:after"}
    declared = "streams = true\n" + "".join(f'{name} = "{value}"\n' for name, value in functions.items())
    manifest = store.version(
        {"model.py": code, "salver-model.toml": declared}, signature=SIGNATURE, streams=True, **functions
    )
    loaded = load(store, manifest)
    chunks = loaded.stream({"x": np.array([[1.0]])})
    # Twice one more, and n; then a half more, times ten.
    assert [chunk["y"].tolist() for chunk in chunks] == [[[45.0]], [[55.0]]]
    loaded.unload()
