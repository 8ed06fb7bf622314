from __future__ import annotations

import os
from pathlib import Path

import pytest

from salver.protocol.errors import SalverError
from salver.protocol.tables import FileEntry
from salver.storage import artifacts
from salver.storage.artifacts import lay_out, put_artifact
from salver.storage.blobs import BlobStore


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree" / "code").mkdir(parents=True)
    (tmp_path / "tree" / "weights.bin").write_bytes(b"w" * 1000)
    (tmp_path / "tree" / "code" / "model.py").write_text("class Model: ...")
    (tmp_path / "tree" / "salver-model.toml").write_text('entry = "model:Model"')
    return tmp_path / "tree"


def test_a_file_is_an_artifact_of_one_entry(store: BlobStore, tree: Path) -> None:
    (entry,) = put_artifact(store, tree / "weights.bin")
    assert (entry.path, entry.size_bytes) == ("weights.bin", 1000)
    store.verify(entry.sha256)


def test_a_tree_comes_back_as_it_was(store: BlobStore, tree: Path, tmp_path: Path) -> None:
    files = put_artifact(store, tree)
    assert [entry.path for entry in files] == ["code/model.py", "salver-model.toml", "weights.bin"]
    (tmp_path / "out").mkdir()
    lay_out(store, files, tmp_path / "out")
    for entry in files:
        assert (tmp_path / "out" / entry.path).read_bytes() == (tree / entry.path).read_bytes()


@pytest.mark.parametrize("place", ["top", "file", "directory", "dangling"])
def test_symbolic_links_are_refused_wherever_they_stand(
    store: BlobStore, tree: Path, tmp_path: Path, place: str
) -> None:
    link = tmp_path / "link" if place == "top" else tree / "code" / "link"
    target = {"top": tree, "file": tree / "weights.bin", "directory": tmp_path, "dangling": tmp_path / "absent"}[place]
    link.symlink_to(target)
    with pytest.raises(SalverError, match="'link'") as raised:
        put_artifact(store, link if place == "top" else tree)
    assert raised.value.code == "INVALID_ARTIFACT"


def test_pipes_in_a_tree_and_trees_without_files_are_refused(store: BlobStore, tree: Path, tmp_path: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(SalverError, match="'pipe' is not a regular file"):
        put_artifact(store, tree)
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    with pytest.raises(SalverError, match="'empty' holds no file"):
        put_artifact(store, tmp_path / "empty")


def test_a_directory_of_too_many_files_is_refused_before_anything_is_stored(
    store: BlobStore, tree: Path, monkeypatch
) -> None:
    monkeypatch.setattr(artifacts, "MAX_FILES", 2)
    with pytest.raises(SalverError, match="more than 2 files"):
        put_artifact(store, tree)
    assert store.usage_bytes() == 0


@pytest.mark.parametrize("path", ["../escape", "/tmp/escape", "code/../../escape"])
def test_an_entry_outside_the_artifact_is_not_laid_out(store: BlobStore, tree: Path, tmp_path: Path, path: str) -> None:
    (entry,) = put_artifact(store, tree / "weights.bin")
    (tmp_path / "out").mkdir()
    with pytest.raises(SalverError, match="outside the artifact"):
        lay_out(store, [FileEntry(path, entry.sha256, entry.size_bytes)], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_size_that_differs_from_the_manifest_is_refused(store: BlobStore, tree: Path, tmp_path: Path) -> None:
    (entry,) = put_artifact(store, tree / "weights.bin")
    (tmp_path / "out").mkdir()
    with pytest.raises(SalverError, match="has 1000 bytes; the manifest says 999"):
        lay_out(store, [FileEntry("weights.bin", entry.sha256, 999)], tmp_path / "out")
