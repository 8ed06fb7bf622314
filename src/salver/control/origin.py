"""Where a version comes from, taken from the world and typed by nobody: its training data, its lock file, its commit.

What somebody says of a version himself goes before what is found here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from salver.control.checkout import checkout_of
from salver.evaluation.subject.rows import read_rows
from salver.protocol.description import Description, merged
from salver.protocol.errors import SalverError
from salver.protocol.profile import ColumnProfiles

__all__ = ["Origin", "Sources", "origin_of"]

_MOST_TEXT_BYTES: Final = 512 * 2**10
"""Of a lock file that is kept as text; of a larger one the digest is."""
_MOST_TABLE_BYTES: Final = 2**30
"""Of training data that are read for a profile, and not only for their digest."""
_MOST_COLUMNS: Final = 10_000
_CODE: Final = ("code_commit", "code_repository", "code_dirty")


class Sources(NamedTuple):
    """Where to look."""

    training_data: Path | None = None
    target: str = ""
    """The column of the training data that is predicted."""
    lock: Path | None = None
    git: bool = True


class Origin(NamedTuple):
    """What was found."""

    description: Description | None
    """With all that was said; None where nothing was, and nothing found."""
    columns: ColumnProfiles | None = None
    """Of the training data, where they can be read as a table."""
    unread: str = ""
    """Why they cannot."""


def origin_of(artifact: Path, sources: Sources, said: Mapping[str, Any]) -> Origin:
    """The description of a version that is to be registered: `said`, and what `sources` add to it.

    The commit is that of the checkout that the artifact lies in, else of the one that is worked in. Raises
    INVALID_PARAMETER for a file that cannot be read, and for what `merged` raises it.
    """
    found: dict[str, Any] = {}
    columns, unread = None, ""
    if sources.training_data is not None:
        digest = _digest(sources.training_data)
        found["training_data"] = {"name": sources.training_data.name, "digest": digest}
        try:
            columns = _measured(sources.training_data, sources.target)
            found["training_data"]["rows"] = columns.rows
        except SalverError as error:
            if sources.target:
                raise
            unread = error.message
    elif sources.target:
        raise SalverError("INVALID_PARAMETER", "a target is given without training data", "name the file it is in")
    if sources.lock is not None and "environment" not in said:
        found |= _locked(sources.lock)
    if sources.git and not said.keys() & set(_CODE):
        found |= _code(artifact)
    if not found and not said:
        return Origin(None)
    return Origin(merged(merged(Description(), found), dict(said)), columns, unread)


def _code(artifact: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError):
        checkout = checkout_of(artifact.absolute()) or checkout_of(Path.cwd())
        if checkout is not None:
            return dict(zip(_CODE, checkout, strict=True))
    return {}


def _locked(lock: Path) -> dict[str, Any]:
    digest = _digest(lock)
    if lock.stat().st_size <= _MOST_TEXT_BYTES:
        with contextlib.suppress(UnicodeDecodeError):
            text = lock.read_bytes().decode()
            if text and "\0" not in text:
                return {"environment": text}
    return {"environment_digest": digest}


def _measured(path: Path, target: str) -> ColumnProfiles:
    """The columns but the target; raises what `read_rows` raises, and INVALID_ARTIFACT for too much."""
    if path.stat().st_size > _MOST_TABLE_BYTES:
        raise SalverError("INVALID_ARTIFACT", f"{path.name!r} has more than {_MOST_TABLE_BYTES} bytes", "take a sample")
    rows = read_rows(path)
    if target:
        rows.column(target)
    if len(rows.columns) > _MOST_COLUMNS:
        raise SalverError("INVALID_ARTIFACT", f"{path.name!r} has {len(rows.columns)} columns", "take a part of them")
    return ColumnProfiles.measure({name: each for name, each in rows.columns.items() if name != target})


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SalverError(
            "INVALID_PARAMETER",
            f"{path.name!r} cannot be read: {os.strerror(error.errno or 0)}",
            "name a file; of what is none, give the digest with the description",
        ) from None
