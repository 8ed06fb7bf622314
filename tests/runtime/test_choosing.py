"""Which format an artifact is registered as, and what is said where that cannot be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from salver.protocol.errors import SalverError
from salver.runtime.artifact import Artifact, read_artifact
from salver.runtime.declaration import DECLARATION_FILE

MODEL = """
import salver
class Model(salver.Model):
    inputs = [salver.TensorSpec("x", "FP32", (-1, 2))]
    outputs = [salver.TensorSpec("y", "FP32", (-1, 2))]
    def predict(self, inputs):
        return {"y": inputs["x"]}
"""
STEPS = "def before(arrays):\n    return arrays\n\nnumber = 3\n"


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    directory = tmp_path / "upload"
    directory.mkdir()
    return directory


@pytest.fixture
def graph(models) -> bytes:
    return (models / "times2.onnx").read_bytes()


def put(directory: Path, **files: bytes | str) -> None:
    for name, content in files.items():
        path = directory / name.replace("__", ".")
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def declare(directory: Path, text: str) -> None:
    (directory / DECLARATION_FILE).write_text(text)


def refused(path: Path, **options: object) -> SalverError:
    with pytest.raises(SalverError) as raised:
        read_artifact(path, **options)  # type: ignore[arg-type]
    return raised.value


@pytest.mark.parametrize(("name", "other"), [("rf.joblib", "sklearn"), ("net.onnx", "onnx"), ("a.skops", "sklearn")])
def test_a_class_beside_a_model_file_is_ambiguous_and_nothing_is_opened(upload, name, other) -> None:
    put(upload, model__py=MODEL)
    (upload / name).write_bytes(b"what the class loads")
    error = refused(upload, trust_code=True)
    assert error.code == "INVALID_ARTIFACT"
    assert error.message == f"'upload' could be {other} ({name}) or python (model.py)"
    assert "--format" in error.remedy
    assert DECLARATION_FILE in error.remedy
    assert read_artifact(upload, format="python").format == "python"


def test_two_kinds_of_model_files_are_ambiguous_too(upload, graph) -> None:
    put(upload, net__onnx=graph, rf__joblib=b"x")
    assert refused(upload).message == "'upload' could be onnx (net.onnx) or sklearn (rf.joblib)"
    assert read_artifact(upload, format="onnx").format == "onnx"


@pytest.mark.parametrize("declared", ['format = "python"', 'entry = "model:Model"'])
def test_a_declaration_that_decides_is_not_ambiguous(upload, declared) -> None:
    put(upload, model__py=MODEL, rf__joblib=b"x", net__onnx=b"x")
    declare(upload, declared)
    assert read_artifact(upload).format == "python"


def chosen(directory: Path) -> Artifact:
    return read_artifact(directory)


@pytest.mark.parametrize("module", ["steps", "model"])
def test_python_files_for_processing_do_not_make_a_model_file_ambiguous(upload, graph, module) -> None:
    put(upload, net__onnx=graph, tools__py="")
    (upload / f"{module}.py").write_text(STEPS)
    declare(upload, f'preprocess = "{module}:before"')
    assert chosen(upload).format == "onnx"


def test_a_model_py_that_does_no_processing_is_still_a_second_meaning(upload, graph) -> None:
    put(upload, net__onnx=graph, steps__py=STEPS, model__py=MODEL)
    declare(upload, 'preprocess = "steps:before"')
    assert "onnx (net.onnx) or python (model.py)" in refused(upload).message


def test_a_class_with_processing_functions_beside_it_is_python(upload) -> None:
    put(upload, model__py=MODEL, steps__py=STEPS)
    declare(upload, 'postprocess = "steps:before"')
    assert chosen(upload).format == "python"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ('preprocess = "steps:none"', "has no 'none'"),
        ('postprocess = "steps:none"', "has no 'none'"),
        ('preprocess = "stages:before"', "'stages'"),
        ('preprocess = "steps:number"', "'steps:number' of the artifact is no function"),
        ('preprocess = "broken:before"', r"SyntaxError: .*\(broken.py, line 2\)"),
        ('preprocess = "raising:before"', r"KeyError: 'k' \(raising.py:1 in <module>\)"),
    ],
)
def test_a_processing_function_that_is_not_there_is_missed_at_registration(upload, graph, setting, says) -> None:
    put(upload, net__onnx=graph, steps__py=STEPS, broken__py="x = 1\ndef (", raising__py="{}['k']\n")
    declare(upload, setting)
    with pytest.raises(SalverError, match=says) as raised:
        read_artifact(upload)
    assert raised.value.code == "INVALID_ARTIFACT"
    assert str(upload) not in raised.value.message
