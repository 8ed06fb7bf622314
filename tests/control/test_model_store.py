"""Artifacts registered by a path: only those inside the directory, and only those that there is memory for."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from salver.control import model_store
from salver.control.model_store import ModelStore, free_memory_bytes
from salver.protocol.errors import SalverError
from salver.storage.blobs import BlobStore


@pytest.fixture
def root(tmp_path: Path, models: Path) -> Path:
    root = tmp_path / "store"
    (root / "deep" / "model").mkdir(parents=True)
    shutil.copy(models / "times2.onnx", root / "double.onnx")
    shutil.copy(models / "times2.onnx", root / "deep" / "model" / "model.onnx")
    shutil.copy(models / "times2.onnx", tmp_path / "outside.onnx")
    (root / "link.onnx").symlink_to(tmp_path / "outside.onnx")
    (root / "inner.onnx").symlink_to(root / "double.onnx")
    (root / "handler.mar").write_bytes(b"PK")
    return root


@pytest.fixture
def store(root: Path, tmp_path: Path) -> ModelStore:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    return ModelStore(root, BlobStore(blobs))


@pytest.mark.parametrize(
    "url", ["double.onnx", "{root}/double.onnx", "file://{root}/double.onnx", "deep/model", "inner.onnx"]
)
def test_what_is_inside_is_read_and_remembers_its_path(store: ModelStore, root: Path, url: str) -> None:
    url = url.format(root=root)
    assert store.has(url)
    draft = store.draft("double", url)
    assert (draft.model, draft.format, draft.metadata) == ("double", "onnx", {"url": url})


@pytest.mark.parametrize(
    "url",
    [
        "",
        ".",
        "..",
        "{root}",
        "../outside.onnx",
        "deep/../../outside.onnx",
        "{root}/../outside.onnx",
        "link.onnx",
        "/etc/passwd",
        "file:///etc/passwd",
        "nothing.onnx",
        "a\0b",
        "x" * 5000,
        "http://example.org/double.onnx",
    ],
)
def test_what_is_outside_is_not_there(store: ModelStore, root: Path, url: str) -> None:
    url = url.format(root=root)
    assert not store.has(url)
    with pytest.raises(SalverError) as raised:
        store.draft("double", url)
    assert raised.value.code == "NOT_FOUND"


def test_a_store_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert not ModelStore(tmp_path / "none", BlobStore(tmp_path)).has("a")


def test_an_archive_of_torchserve_is_told_from_a_model(store: ModelStore) -> None:
    with pytest.raises(SalverError, match=r"a handler of TorchServe; export the model to ONNX"):
        store.draft("x", "handler.mar")


def test_what_is_larger_than_the_free_memory_is_not_begun(store: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_store, "free_memory_bytes", lambda: 10)
    with pytest.raises(SalverError, match="10 are free") as raised:
        store.draft("double", "deep/model")
    assert (raised.value.code, raised.value.http) == ("OUT_OF_MEMORY", 507)


def test_free_memory_is_the_least_that_the_machine_and_the_container_have(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable:   50 kB\n")
    assert free_memory_bytes(meminfo, tmp_path) == 50 * 1024
    (tmp_path / "memory.current").write_text("9000\n")
    (tmp_path / "memory.stat").write_text("anon 5000\ninactive_file 1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory_bytes(meminfo, tmp_path) == 50 * 1024
    (tmp_path / "memory.max").write_text("10000\n")
    assert free_memory_bytes(meminfo, tmp_path) == 2000
    assert free_memory_bytes(tmp_path / "none", tmp_path / "none") is None


def test_this_machine_says_what_is_free() -> None:
    found = free_memory_bytes()
    assert found is None or 0 <= found < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
