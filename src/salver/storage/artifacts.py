"""Artifacts between a directory and the blob store: a file or a tree in, the same files out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from salver.protocol.errors import SalverError
from salver.protocol.formats import MAX_FILES
from salver.protocol.tables import FileEntry
from salver.storage.blobs import BlobStore

__all__ = ["lay_out", "put_artifact"]


def put_artifact(blobs: BlobStore, path: Path) -> tuple[FileEntry, ...]:
    """Store the file or directory tree at `path` and return its entries, sorted by path.

    A single file is one entry under its own name. Raises INVALID_ARTIFACT for symbolic
    links anywhere in the tree, for anything but regular files and directories, for an empty
    tree and for more than `MAX_FILES` files; blobs stored until then stay, unreferenced.
    """
    if path.is_symlink() or not path.is_dir():
        blob = blobs.put_file(path)
        return (FileEntry(path.name, blob.sha256, blob.size_bytes),)
    files = sorted(_walk(path), key=lambda file: file.relative_to(path).as_posix())
    if not files:
        raise SalverError("INVALID_ARTIFACT", f"directory {path.name!r} holds no file", "name the model's directory")
    entries = []
    for file in files:
        blob = blobs.put_file(file)
        entries.append(FileEntry(file.relative_to(path).as_posix(), blob.sha256, blob.size_bytes))
    return tuple(entries)


def _walk(top: Path) -> Iterator[Path]:
    count, directories = 0, [top]
    while directories:
        for entry in list(directories.pop().iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                directories.append(entry)
                continue
            count += 1
            if count > MAX_FILES:
                raise SalverError(
                    "INVALID_ARTIFACT",
                    f"directory {top.name!r} holds more than {MAX_FILES} files",
                    "name the model's own directory, not one above it",
                )
            yield entry


def lay_out(blobs: BlobStore, files: Iterable[FileEntry], destination: Path) -> None:
    """Copy `files`, each verified, below the existing directory `destination`.

    REQUIRES entries that the catalog has accepted: relative paths without "..". Raises
    CORRUPT_ARTIFACT, STORAGE_FULL or FileExistsError; the files copied until then stay, so
    give a directory of its own and remove it on failure.
    """
    for entry in files:
        target = destination / entry.path
        if not target.is_relative_to(destination) or ".." in target.parts:
            raise SalverError("CORRUPT_ARTIFACT", f"the manifest names the path {entry.path!r} outside the artifact")
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        size_bytes = blobs.copy_verified(entry.sha256, target)
        if size_bytes != entry.size_bytes:
            raise SalverError(
                "CORRUPT_ARTIFACT",
                f"blob {entry.sha256} has {size_bytes} bytes; the manifest says {entry.size_bytes}",
                "restore the home from a backup",
            )
