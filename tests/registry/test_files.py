from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.protocol.errors import SalverError
from salver.protocol.tables import FileEntry
from salver.registry import files as files_module
from salver.registry.files import artifact_digest, check_files

ENTRIES = st.lists(
    st.builds(FileEntry, st.text('ab/",[]', max_size=6), st.text("01", max_size=4), st.integers(0, 20)), max_size=4
)


def entry(path: str, sha256: str = "0" * 64, size_bytes: int = 1) -> FileEntry:
    return FileEntry(path, sha256, size_bytes)


def test_the_digest_is_what_its_docstring_says() -> None:
    files = [entry("b/c.bin", "2" * 64, 7), entry("a.bin", "1" * 64, 3)]
    text = json.dumps([["a.bin", "1" * 64, 3], ["b/c.bin", "2" * 64, 7]], separators=(",", ":"))
    assert artifact_digest(files) == hashlib.sha256(text.encode()).hexdigest()


@given(ENTRIES, st.randoms(use_true_random=False))
def test_the_order_of_the_files_does_not_matter(files: list[FileEntry], random) -> None:
    shuffled = list(files)
    random.shuffle(shuffled)
    assert artifact_digest(shuffled) == artifact_digest(files)


@given(ENTRIES, ENTRIES)
def test_other_files_have_another_digest(one: list[FileEntry], other: list[FileEntry]) -> None:
    def key(file: FileEntry) -> tuple[str, str, int]:
        return (file.path, file.sha256, file.size_bytes)

    same = sorted(one, key=key) == sorted(other, key=key)
    assert (artifact_digest(one) == artifact_digest(other)) == same


@pytest.mark.parametrize("path", ["model.onnx", "a/b/c.bin", "..a/b..", ".hidden", "größe.bin", "a b", "x" * 255])
def test_relative_paths_are_accepted(path: str) -> None:
    check_files([entry(path)])


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "..",
        "../x",
        "a/../x",
        "a/..",
        ".",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        "a\\b",
        "..\\x",
        "a\x00b",
        "a\nb",
        "a\x7fb",
        "\ud800",
        "x" * 256,
        "é" * 128,
        "a/" * 600 + "b",
    ],
)
def test_paths_that_could_leave_the_artifact_or_break_a_file_system_are_refused(path: str) -> None:
    with pytest.raises(SalverError) as raised:
        check_files([entry("fine"), entry(path)])
    assert raised.value.code == "INVALID_ARTIFACT"
    assert raised.value.remedy
    str(raised.value).encode()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "an artifact of 0 files"),
        ([entry("a"), entry("a")], "two files at 'a'"),
        ([entry("a"), entry("a/b")], "file 'a/b' below the file 'a'"),
        ([entry("a/b/c"), entry("a/b")], "file 'a/b/c' below the file 'a/b'"),
        ([entry("a", sha256="0" * 63)], "without a SHA-256"),
        ([entry("a", sha256="G" * 64)], "without a SHA-256"),
        ([entry("a", size_bytes=-1)], "without a SHA-256"),
    ],
)
def test_entries_that_cannot_be_laid_out_are_refused(files: list[FileEntry], message: str) -> None:
    with pytest.raises(SalverError, match=message):
        check_files(files)


def test_too_many_files_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(files_module, "MAX_FILES", 2)
    with pytest.raises(SalverError, match="an artifact of 3 files; give 1 to 2"):
        check_files([entry("a"), entry("b"), entry("c")])
