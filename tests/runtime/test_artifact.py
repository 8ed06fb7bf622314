from __future__ import annotations

import contextlib
import os
import pickle
import sys
from pathlib import Path

import pytest

from salver.protocol.errors import SalverError
from salver.runtime.artifact import describe_in_child, read_artifact
from salver.runtime.declaration import DECLARATION_FILE
from salver.testing import SIGNATURE

MODEL = """
import salver
class Model(salver.Model):
    inputs = [salver.TensorSpec("x", "FP32", (-1, 2))]
    outputs = [salver.TensorSpec("y", "FP32", (-1, 2))]
    def predict(self, inputs):
        return {"y": inputs["x"]}
"""


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.open, (str(self.canary), os.O_CREAT | os.O_WRONLY, 0o600)


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    directory = tmp_path / "upload"
    directory.mkdir()
    return directory


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def refused(path: Path, **options: object) -> SalverError:
    with pytest.raises(SalverError) as raised:
        read_artifact(path, **options)  # type: ignore[arg-type]
    return raised.value


# Code.


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "joblib"])
def test_a_pickle_is_refused_without_trust_and_never_opened(upload, canary, suffix) -> None:
    path = upload / f"model.{suffix}"
    path.write_bytes(pickle.dumps(Bomb(canary)))
    error = refused(path)
    assert error.code == "REFUSED_BY_POLICY"
    assert "--trust-code" in error.remedy
    assert refused(upload).code == "REFUSED_BY_POLICY"
    assert not canary.exists()


def test_even_with_trust_a_pickle_is_opened_in_a_child_only(upload, canary) -> None:
    (upload / "model.pkl").write_bytes(pickle.dumps(Bomb(canary)))
    assert refused(upload / "model.pkl", trust_code=True).code == "INVALID_ARTIFACT"
    assert canary.exists(), "the child did open it"
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    assert str(canary) not in links, "this process did not"


def test_a_python_artifact_is_imported_in_a_child_only(upload, canary) -> None:
    mark = f"\nimport os\nopen({str(canary)!r}, 'w').write(str(os.getpid()))\n"
    (upload / "only_there.py").write_text(MODEL + mark)
    artifact = read_artifact(upload)
    assert (artifact.format, artifact.signature) == ("python", SIGNATURE)
    assert canary.read_text() != str(os.getpid())
    assert "only_there" not in sys.modules


NO_SIGNATURE = {
    "prints": ("print('{}' * 1000)\nraise ValueError('no model')", "ValueError: no model"),
    "exits with success": ("import sys; sys.exit(0)", "raised SystemExit: 0"),
    "exits": ("import sys; sys.exit('bad day')", "bad day"),
    "aborts": ("import os; os.abort()", "SIGABRT"),
    "lacks a module": ("import surely_not_installed", "'surely_not_installed'"),
    "has no class": ("x = 1", "0 subclasses"),
    "has two classes": (MODEL + MODEL.replace("class Model", "class Other"), "2 subclasses"),
    "declares nothing": (MODEL.replace("inputs =", "ins ="), "declares no signature"),
    "has no syntax": ("def (", "SyntaxError"),
}


@pytest.mark.parametrize(("source", "says"), NO_SIGNATURE.values(), ids=NO_SIGNATURE.keys())
def test_code_that_tells_no_signature_is_refused_with_a_reason(upload, source, says) -> None:
    (upload / "model.py").write_text(source)
    with pytest.raises(SalverError, match=says) as raised:
        describe_in_child(upload, "python")
    assert raised.value.code == "INVALID_ARTIFACT"


def test_what_code_prints_does_not_mix_with_its_signature(upload) -> None:
    (upload / "model.py").write_text("import os\nprint('hello')\nos.system('echo hello')\n" + MODEL)
    assert read_artifact(upload).signature == SIGNATURE


def test_a_declared_signature_is_read_in_the_child_without_the_code(upload, canary) -> None:
    (upload / "model.py").write_text(f"open({str(canary)!r}, 'w')")
    (upload / DECLARATION_FILE).write_text(
        '[[inputs]]\nname="x"\ndatatype="FP32"\nshape=[-1,2]\n[[outputs]]\nname="y"\ndatatype="FP32"\nshape=[-1,2]\n'
    )
    assert read_artifact(upload).signature == SIGNATURE
    assert not canary.exists()


def test_an_entry_makes_an_artifact_python_whatever_lies_beside_it(upload) -> None:
    (upload / "model.py").write_text(MODEL + MODEL.replace("class Model", "class Other"))
    (upload / "weights.onnx").write_bytes(b"data of the class")
    (upload / DECLARATION_FILE).write_text('entry = "model:Other"')
    artifact = read_artifact(upload)
    assert (artifact.format, artifact.signature) == ("python", SIGNATURE)
    assert set(artifact.files) == {"model.py", "weights.onnx", DECLARATION_FILE}


# Files.


def test_files_are_found_in_folders_and_rubbish_is_left_out(upload) -> None:
    (upload / "model.py").write_text(MODEL)
    for name in ("data/deep/table.csv", "__pycache__/model.pyc", ".git/config", ".DS_Store"):
        (upload / name).parent.mkdir(parents=True, exist_ok=True)
        (upload / name).write_text("x")
    assert set(read_artifact(upload).files) == {"model.py", "data/deep/table.csv"}


def test_links_to_files_and_to_directories_are_refused_by_name(upload, tmp_path) -> None:
    (upload / "model.py").write_text(MODEL)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("x")
    for target in (tmp_path / "elsewhere" / "secret", tmp_path / "elsewhere", tmp_path / "nowhere"):
        (upload / "link").symlink_to(target)
        error = refused(upload)
        assert error.code == "INVALID_ARTIFACT"
        assert "'link' is no regular file" in error.message
        (upload / "link").unlink()


def test_pipes_are_refused_without_being_opened(upload) -> None:
    (upload / "model.py").write_text(MODEL)
    os.mkfifo(upload / "pipe")
    assert "'pipe' is no regular file" in refused(upload).message
    assert refused(upload / "pipe").code == "INVALID_ARTIFACT"


def test_there_must_be_something(upload) -> None:
    assert "no file or directory" in refused(upload / "missing").message
    assert "is empty" in refused(upload).message
    (upload / "empty").mkdir()
    assert "is empty" in refused(upload).message


def test_what_no_format_recognises_is_answered_with_the_formats(upload) -> None:
    (upload / "model.txt").write_text("x")
    for path in (upload, upload / "model.txt"):
        assert "onnx, sklearn, python" in refused(path).remedy
    error = refused(upload / "model.txt", format="caffe")
    assert error.code == "INVALID_SETTING"


def test_several_model_files_are_refused(upload) -> None:
    for name in ("a.py", "b.py"):
        (upload / name).write_text(MODEL)
    error = refused(upload)
    assert "no file, or several" in error.message


def test_the_named_format_and_the_declared_one_count_more_than_suffixes(upload) -> None:
    (upload / "model.py").write_text(MODEL)
    (upload / "weights.onnx").write_bytes(b"x")
    assert read_artifact(upload, format="python").format == "python"
    (upload / DECLARATION_FILE).write_text('format = "python"')
    assert read_artifact(upload).format == "python"
