"""The files of a version: the rule for their paths, and the digest over all of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Final

from salver.protocol.errors import SalverError
from salver.protocol.formats import MAX_FILES
from salver.protocol.tables import FileEntry

__all__ = ["artifact_digest", "check_files"]

_LONGEST_PATH_BYTES: Final = 1024
_LONGEST_PART_BYTES: Final = 255
"""NAME_MAX of the usual file systems."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\\]")


def artifact_digest(files: Sequence[FileEntry]) -> str:
    """SHA-256 over the entries sorted by path, as JSON: [[path, sha256, size_bytes], ...].

    The order given does not matter; two artifacts have one digest only if they are the same
    files under the same names.

    >>> artifact_digest([])
    '4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945'
    """
    entries = sorted([entry.path, entry.sha256, entry.size_bytes] for entry in files)
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def check_files(files: Sequence[FileEntry]) -> None:
    """Raise INVALID_ARTIFACT unless the entries can be laid out as files below one directory.

    Paths are relative, of forward slashes, without "." and "..", without backslashes and control
    characters; no path comes twice or lies below another one's file.
    """
    if not 1 <= len(files) <= MAX_FILES:
        raise _refused(f"an artifact of {len(files)} files", f"give 1 to {MAX_FILES}")
    paths: set[str] = set()
    for entry in files:
        _check_path(entry.path)
        if entry.path in paths:
            raise _refused(f"two files at {entry.path[:200]!r}", "name each file once")
        if _SHA256.fullmatch(entry.sha256) is None or entry.size_bytes < 0:
            raise _refused(f"file {entry.path[:200]!r} without a SHA-256 digest and size", "store the file first")
        paths.add(entry.path)
    for path in paths:
        parents = path.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            above = "/".join(parents[:depth])
            if above in paths:
                raise _refused(f"file {path[:200]!r} below the file {above[:200]!r}", "one of them must go")


def _check_path(path: str) -> None:
    parts = path.split("/")
    try:
        too_long = len(path.encode()) > _LONGEST_PATH_BYTES or any(
            len(part.encode()) > _LONGEST_PART_BYTES for part in parts
        )
    except UnicodeEncodeError:
        raise _refused(f"path {path[:200]!r}, which is not valid Unicode", "rename the file") from None
    if too_long:
        raise _refused(f"path {path[:80]!r}... of {len(path)} characters", "use shorter names")
    if any(part in ("", ".", "..") for part in parts) or _CONTROL.search(path):
        raise _refused(
            f"path {path[:200]!r}", "use relative paths of forward slashes without '.', '..' or control characters"
        )


def _refused(what: str, remedy: str) -> SalverError:
    return SalverError("INVALID_ARTIFACT", f"the artifact has {what}", remedy)
