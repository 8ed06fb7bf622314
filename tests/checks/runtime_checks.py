"""What every format must do, checked over all of them: add a format, add its example here.

An artifact is read, registered and loaded as the server does it, and its answers are compared
with those of the library it came from.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import FileEntry, RuntimeOptions, VersionManifest
from salver.runtime.artifact import read_artifact, source_of
from salver.runtime.batch import check_outputs
from salver.runtime.declaration import Declaration
from salver.runtime.formats import Loaded, format_named
from salver.runtime.loader import load_version
from salver.storage.blobs import BlobStore

Predict = Callable[[Any, np.ndarray[Any, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Example:
    """One artifact of a format: its file, its signature, and what it should answer."""

    format: str
    file: str
    signature: Signature
    dtype: str
    predict: Predict
    executes_code: bool = False

    @property
    def input(self) -> str:
        return self.signature.inputs[0].name


LABELS = ("setosa", "versicolor", "virginica")


def sklearn_signature(datatype: str, label: str, probabilities: str, labels: tuple[str, ...] = ()) -> Signature:
    return Signature(
        (TensorSpec("X", datatype, (-1, 4)),),
        (TensorSpec(label, "BYTES", (-1,)), TensorSpec(probabilities, datatype, (-1, 3), labels=labels)),
    )


def estimator_answers(label: str, probabilities: str) -> Predict:
    return lambda model, rows: {
        label: [text.encode() for text in model.predict(rows)],
        probabilities: model.predict_proba(rows),
    }


SKLEARN = sklearn_signature("FP64", "label", "probabilities", LABELS)


def classifier(input: str, datatype: str) -> Signature:
    return Signature(
        (TensorSpec(input, datatype, (-1, 4)),),
        (TensorSpec("label", "INT64", (-1,)), TensorSpec("probabilities", datatype, (-1, 3))),
    )


def tree_answers(model: Any, rows: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"label": model.predict(rows), "probabilities": model.predict_proba(rows)}


def network_answers(model: Any, rows: np.ndarray[Any, Any]) -> dict[str, Any]:
    import torch

    with torch.inference_mode():
        return {name: each.numpy() for name, each in model(torch.tensor(rows, dtype=torch.float32)).items()}


TREES, LIGHT, NETWORK = classifier("X", "FP32"), classifier("X", "FP64"), classifier("rows", "FP32")
DOUBLING = Signature((TensorSpec("x", "FP64", (-1, 4)),), (TensorSpec("y", "FP64", (-1, 4)),))
EXAMPLES = [
    Example(
        "onnx",
        "iris.onnx",
        sklearn_signature("FP32", "label", "probabilities"),
        "float32",
        estimator_answers("label", "probabilities"),
    ),
    Example("sklearn", "iris.skops", SKLEARN, "float64", estimator_answers("label", "probabilities")),
    Example("sklearn", "iris.joblib", SKLEARN, "float64", estimator_answers("label", "probabilities"), True),
    Example("xgboost", "iris.ubj", TREES, "float32", tree_answers),
    Example("xgboost", "iris.json", TREES, "float32", tree_answers),
    Example("lightgbm", "iris.txt", LIGHT, "float64", tree_answers),
    Example("torch", "iris.pt2", NETWORK, "float32", network_answers, True),
    Example("python", "doubling_model.py", DOUBLING, "float64", lambda _, rows: {"y": rows * 2}, True),
]


def test_every_format_has_an_example() -> None:
    assert {example.format for example in EXAMPLES} == set(FORMATS)


class Bench:
    """An example with everything needed to register and load it."""

    def __init__(self, example: Example, path: Path, estimator: Any, rows: np.ndarray[Any, Any], root: Path) -> None:
        self.example = example
        self.path = path
        self.estimator = estimator
        self.rows = rows.astype(example.dtype)
        self.blobs = BlobStore(root / "blobs")
        self.scratch = root / "scratch"
        self.scratch.mkdir()

    def manifest(self, *paths: Path) -> VersionManifest:
        entries = []
        for path in paths or (self.path,):
            blob = self.blobs.put_file(path)
            entries.append(FileEntry(path.name, blob.sha256, blob.size_bytes))
        example = self.example
        return VersionManifest(
            "iris",
            "1.0.0",
            1,
            "ab" * 32,
            example.format,
            tuple(entries),
            example.signature,
            trusts_code=example.executes_code,
        )

    def load(self) -> Loaded:
        return load_version(self.manifest(), RuntimeOptions(), self.blobs, self.scratch)

    def run(self, loaded: Loaded, rows: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        rows = rows.copy()
        rows.flags.writeable = False
        return check_outputs(loaded.run({self.example.input: rows}), self.example.signature, len(rows))


ENGINES = {"torch"}
"""Formats whose libraries are too large for every run: `make test-engines` checks them."""


@pytest.fixture(
    params=[
        pytest.param(example, id=example.file, marks=pytest.mark.engines if example.format in ENGINES else ())
        for example in EXAMPLES
    ]
)
def bench(request, artifacts, learnt, trained, tmp_path) -> Bench:
    path = artifacts[request.param.file]
    return Bench(request.param, path, learnt[path.suffix], trained[1], tmp_path)


def test_the_format_is_recognised_and_the_signature_derived(bench) -> None:
    artifact = read_artifact(bench.path, trust_code=True)
    assert artifact.format == bench.example.format
    assert artifact.signature == bench.example.signature
    assert artifact.signature.batched
    assert artifact.executes_code is bench.example.executes_code
    assert list(artifact.files) == [bench.path.name]


def test_answers_are_those_of_the_library(bench) -> None:
    found = bench.run(bench.load(), bench.rows)
    expected = bench.example.predict(bench.estimator, bench.rows.astype(np.float64))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if found[name].dtype == object:
            assert found[name].tolist() == values
        else:
            np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sizes", [(1,) * 75, (2, 73), (37, 38)])
def test_however_rows_are_split_into_batches_they_are_answered_alike(bench, sizes) -> None:
    loaded = bench.load()
    together = bench.run(loaded, bench.rows)
    parts = [bench.run(loaded, rows) for rows in np.split(bench.rows, np.cumsum(sizes)[:-1])]
    for name, whole in together.items():
        joined = np.concatenate([part[name] for part in parts])
        if whole.dtype == object:
            assert joined.tolist() == whole.tolist()
        else:
            np.testing.assert_allclose(joined, whole, rtol=1e-5, atol=1e-7)


def test_the_same_rows_get_the_same_bits(bench) -> None:
    loaded, again = bench.load(), bench.load()
    first = bench.run(loaded, bench.rows)
    for other in (bench.run(loaded, bench.rows), bench.run(again, bench.rows)):
        for name, values in first.items():
            assert values.tobytes() == other[name].tobytes() or values.tolist() == other[name].tolist()


def test_an_earlier_answer_is_not_overwritten_by_a_later_one(bench) -> None:
    loaded = bench.load()
    first = bench.run(loaded, bench.rows[:5])
    kept = {name: values.tolist() for name, values in first.items()}
    bench.run(loaded, bench.rows[5:10])
    assert {name: values.tolist() for name, values in first.items()} == kept


def test_unloading_frees_the_version(bench) -> None:
    loaded = bench.load()
    bench.run(loaded, bench.rows)
    watched = [weakref.ref(one) for one in (loaded, getattr(loaded, "_loaded", loaded))]
    loaded.unload()
    assert list(bench.scratch.iterdir()) == []
    del loaded
    gc.collect()
    assert [watch() for watch in watched] == [None, None]


@pytest.mark.parametrize("harm", ["flip", "truncate", "empty"])
def test_stored_bytes_that_changed_are_refused_and_leave_nothing(bench, harm) -> None:
    manifest = bench.manifest()
    path = bench.blobs._path(manifest.files[0].sha256)
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes({"flip": content, "truncate": content[:-1], "empty": b""}[harm])
    with pytest.raises(SalverError) as raised:
        load_version(manifest, RuntimeOptions(), bench.blobs, bench.scratch)
    assert raised.value.code == "CORRUPT_ARTIFACT"
    assert list(bench.scratch.iterdir()) == []


GARBAGE = [b"\xff garbage (", b"", b"\x00" * 100, b"PK\x03\x04 no archive"]


def test_a_file_that_only_has_the_right_name_is_refused(bench, tmp_path) -> None:
    impostor = tmp_path / "upload" / bench.path.name
    impostor.parent.mkdir()
    # Where reading means loading, a child process does it, and one is enough.
    for content in GARBAGE[:1] if bench.example.executes_code else GARBAGE:
        impostor.write_bytes(content)
        with pytest.raises(SalverError) as raised:
            read_artifact(impostor, trust_code=True)
        assert raised.value.code == "INVALID_ARTIFACT"
        assert str(tmp_path) not in str(raised.value)


def test_half_a_file_is_refused(bench, tmp_path) -> None:
    half = tmp_path / "upload" / bench.path.name
    half.parent.mkdir()
    content = bench.path.read_bytes()
    half.write_bytes(content[: len(content) // 2])
    with pytest.raises(SalverError) as raised:
        read_artifact(half, trust_code=True)
    assert raised.value.code == "INVALID_ARTIFACT"


def test_it_says_whether_loading_executes_code(bench) -> None:
    chosen = format_named(bench.example.format)
    assert bool(chosen.code_in(source_of(bench.path, chosen, Declaration()))) is bench.example.executes_code


def test_in_a_directory_the_one_model_file_is_found(bench, tmp_path) -> None:
    directory = tmp_path / "upload"
    directory.mkdir()
    target = directory / bench.path.name
    target.write_bytes(bench.path.read_bytes())
    (directory / "notes.txt").write_text("beside")
    chosen = format_named(bench.example.format)
    assert chosen.main_file(directory) == target
    target.with_stem("other").write_bytes(bench.path.read_bytes())
    assert chosen.main_file(directory) is None
    target.unlink()
    target.with_stem("other").unlink()
    assert chosen.main_file(directory) is None
