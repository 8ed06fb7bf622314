"""A pickle is a pickle, whatever it is called: nobody unpickles it, and registering it says what it is."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import RuntimeOptions
from salver.runtime.artifact import read_artifact
from salver.runtime.loader import load_version
from salver.runtime.recognition import content_of
from salver.storage.tabular import read_table

SIGNATURE = Signature((TensorSpec("X", "FP32", (-1, 1)),), (TensorSpec("value", "FP32", (-1,)),))
SUFFIXES = {
    ".onnx": "onnx",
    ".json": "xgboost",
    ".ubj": "xgboost",
    ".xgb": "xgboost",
    ".txt": "lightgbm",
    ".lgb": "lightgbm",
}


class Bomb:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> object:
        return os.open, (str(self.canary), os.O_CREAT | os.O_WRONLY)


def zipped(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(name, content)
    return made.getvalue()


def objects(canary: Path) -> bytes:
    made = io.BytesIO()
    np.savez(made, weights=np.array([Bomb(canary)], dtype=object))
    return made.getvalue()


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "a pickle was opened"


def disguises(canary: Path) -> dict[str, bytes]:
    bomb = Bomb(canary)
    made = {f"a pickle of protocol {version}": pickle.dumps(bomb, version) for version in range(6)}
    made["a zip archive around a pickle"] = zipped("model/data.pkl", pickle.dumps(bomb))
    made["an npz of objects"] = objects(canary)
    made["a pickle behind a sign of XGBoost"] = b'{"learner":' + pickle.dumps(bomb)
    made["a pickle behind a sign of LightGBM"] = b"tree\nversion=v4\n" + pickle.dumps(bomb)
    return made


def test_pickles_of_all_protocols_are_told(canary, tmp_path) -> None:
    for version in range(6):
        (tmp_path / "x").write_bytes(pickle.dumps(Bomb(canary), version))
        assert content_of(tmp_path / "x") == "a pickle"
        (tmp_path / "x").write_bytes(pickle.dumps({"a": list(range(5000))}, version))
        assert content_of(tmp_path / "x") == "a pickle" or version < 2


@pytest.mark.parametrize(("suffix", "format"), SUFFIXES.items(), ids=SUFFIXES)
def test_no_disguise_is_registered_and_none_is_opened(tmp_path, canary, suffix, format) -> None:
    path = tmp_path / f"model{suffix}"
    for what, content in disguises(canary).items():
        path.write_bytes(content)
        sign = what.startswith("a pickle behind")
        if sign and suffix not in (".json", ".txt"):
            continue  # a child process reads each of these
        for named in (None,) if sign else (None, format):
            with pytest.raises(SalverError) as raised:
                read_artifact(path, format=named, trust_code=True)
            assert raised.value.code == "INVALID_ARTIFACT", what
            if named and what.startswith("a pickle of"):
                assert "and is a pickle" in raised.value.message, what
                assert ".pkl" in raised.value.remedy
            if named and ("zip" in what or "npz" in what):
                assert "and is a zip archive" in raised.value.message, what


@pytest.mark.parametrize(("suffix", "format"), SUFFIXES.items(), ids=SUFFIXES)
def test_no_disguise_that_was_slipped_in_is_opened_when_it_is_loaded(canary, store, suffix, format) -> None:
    """As by somebody who writes into the registry, past the command that registers."""
    for what, content in disguises(canary).items():
        if what.startswith("a pickle behind"):
            continue  # the libraries' own parsers meet these, and one ends the process
        name = f"model{suffix}"
        for files in ({name: content}, {name: content, "beside": b"x"}):
            manifest = store.version(files, format=format, signature=SIGNATURE, trusts_code=False)
            with pytest.raises(SalverError) as raised:
                load_version(manifest, RuntimeOptions(), store.blobs, store.scratch)
            assert raised.value.code == "INVALID_ARTIFACT", what
            assert list(store.scratch.iterdir()) == []


def test_a_skops_file_that_is_a_pickle_is_refused(tmp_path, canary) -> None:
    (tmp_path / "model.skops").write_bytes(pickle.dumps(Bomb(canary)))
    with pytest.raises(SalverError, match="no skops file") as raised:
        read_artifact(tmp_path / "model.skops", trust_code=True)
    assert raised.value.code == "INVALID_ARTIFACT"


def test_a_pickle_called_a_pickle_is_refused_without_trust_and_not_opened(tmp_path, canary) -> None:
    for suffix in (".pkl", ".joblib", ".pickle"):
        path = tmp_path / f"model{suffix}"
        path.write_bytes(pickle.dumps(Bomb(canary)))
        with pytest.raises(SalverError) as raised:
            read_artifact(path)
        assert raised.value.code == "REFUSED_BY_POLICY"


def test_tables_of_objects_are_refused(tmp_path, canary) -> None:
    np.save(tmp_path / "t.npy", np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    with pytest.raises(SalverError) as raised:
        read_table(tmp_path / "t.npy")
    assert raised.value.code == "INVALID_ARTIFACT"
