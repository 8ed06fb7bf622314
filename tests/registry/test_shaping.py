"""A changed tokenizer, vocabulary or scaler is more than new weights; new weights and papers are not."""

from __future__ import annotations

import pytest

from salver.protocol.tables import FileEntry, VersionManifest
from salver.registry.compatibility import Level, changes, level_of
from salver.testing import make_manifest


def manifest(format: str, paths: list[str], content: str, changed: str = "", **settings: str) -> VersionManifest:
    files = tuple(FileEntry(path, (content if path == changed else "a") * 64, 9) for path in paths)
    return make_manifest(format=format, files=files, **settings)


def level_of_changed(format: str, paths: list[str], changed: str, **settings: str) -> Level:
    before, after = (manifest(format, paths, content, changed, **settings) for content in "ab")
    found = changes(before, after)
    assert all(changed in change.what for change in found)
    return level_of(found)


CODE = {"preprocess": "text:tokens"}


@pytest.mark.parametrize(
    ("format", "beside", "settings"),
    [
        ("onnx", "tokenizer.json", {}),
        ("onnx", "vocab.txt", {}),
        ("onnx", "spiece.model", {}),
        ("onnx", "words.txt", CODE),
        ("onnx", "scaler.npz", CODE),
        ("onnx", "text/stems.json", {"postprocess": "text:names"}),
        ("python", "words.json", {}),
        ("python", "scaler.pkl", {}),
        ("python", "labels.txt", {}),
        ("xgboost", "vocab.json", CODE),
        ("lightgbm", "vocab.txt", {}),
        ("sklearn", "means.npy", CODE),
        ("torch", "bpe.vocab", CODE),
    ],
)
def test_a_changed_file_that_shapes_the_input_is_minor_and_named(format: str, beside: str, settings) -> None:
    main = {"onnx": "model.onnx", "python": "model.py", "xgboost": "booster.json", "lightgbm": "booster.txt"}
    paths = [main.get(format) or {"sklearn": "forest.joblib", "torch": "model.pt2"}[format], beside]
    assert level_of_changed(format, paths, beside, **settings) is Level.MINOR


@pytest.mark.parametrize(
    ("format", "paths", "changed", "settings"),
    [
        ("onnx", ["model.onnx", "vocab.txt"], "model.onnx", CODE),
        ("onnx", ["model.onnx", "model.onnx.data", "vocab.txt"], "model.onnx.data", CODE),
        ("onnx", ["model.onnx", "model.onnx_data"], "model.onnx_data", CODE),
        ("onnx", ["model.onnx", "onnx__MatMul_215"], "onnx__MatMul_215", CODE),
        ("onnx", ["model.onnx", "layer.0.weight"], "layer.0.weight", CODE),
        ("onnx", ["model.onnx", "config.json"], "config.json", {}),
        ("xgboost", ["model.json", "vocab.json"], "model.json", CODE),
        ("xgboost", ["booster.json", "vocab.json"], "booster.json", CODE),
        ("xgboost", ["vocabulary.json"], "vocabulary.json", {}),
        ("lightgbm", ["booster.txt", "words.json"], "booster.txt", CODE),
        ("sklearn", ["scaler.joblib"], "scaler.joblib", {}),
        ("torch", ["model.pt2", "vocab.txt"], "model.pt2", CODE),
        ("python", ["model.py", "model.json"], "model.json", {}),
        ("python", ["model.py", "net/weights.npz"], "net/weights.npz", {}),
        ("python", ["model.py", "forest.pkl"], "forest.pkl", {}),
        ("python", ["model.py", "net.safetensors"], "net.safetensors", {}),
        *(
            ("python", ["model.py", paper], paper, {})
            for paper in (
                "README.md",
                "README.txt",
                "card.html",
                "LICENSE.txt",
                "requirements.txt",
                "MAR-INF/MANIFEST.json",
            )
        ),
        ("python", ["model.py", "salver-model.toml"], "salver-model.toml", {}),
        ("python", ["model.py", "suite.toml"], "suite.toml", {}),
    ],
)
def test_new_weights_and_papers_are_a_patch(format: str, paths: list[str], changed: str, settings) -> None:
    assert level_of_changed(format, paths, changed, **settings) is Level.PATCH


def test_what_comes_and_goes_beside_a_model_is_named() -> None:
    before = manifest("python", ["model.py", "words.json"], "a")
    after = manifest("python", ["model.py", "stems.json"], "a")
    assert [change.what for change in changes(before, after)] == [
        "the file stems.json beside the model is new",
        "the file words.json beside the model is gone",
    ]
