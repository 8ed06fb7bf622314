"""What every import gives: a directory that can be registered, and what its source says of itself."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.signature import TensorSpec
from salver.runtime.declaration import DECLARATION_FILE

__all__ = ["Imported", "copy_file", "copy_tree", "declare", "inside", "read_small"]

_LONGEST_FACT: Final = 4096
_TAG: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?")
_LONGEST_TAG: Final = 1000
_LARGEST_TEXT_BYTES: Final = 1 << 20
_DESCRIBED: Final = frozenset(
    (
        *("description", "publisher", "run_id", "utc_time_created", "code_commit"),
        *("requirements", "training_data", "parameters", "metrics", "tags"),
    )
)
"""Metadata that has a place of its own in a version's description, or among its tags."""
_LEFT_OUT: Final = frozenset({"__pycache__", ".git", ".DS_Store"})


class Imported(msgspec.Struct, frozen=True):
    """A foreign artifact in the form that `salver register` takes."""

    directory: Path
    format: str
    metadata: dict[str, Any] = {}
    """What the source says of itself, as far as it does: flavor, version, run_id, signature, metrics, tags, ..."""
    notes: tuple[str, ...] = ()
    """What whoever imports it should know."""

    def described(self) -> dict[str, Any]:
        """What of the metadata a version's description has a field for, as changes of that."""
        given, data = self.metadata, self.metadata.get("training_data")
        numbers = given.get("metrics") or {}
        found = {
            "description": given.get("description"),
            "publisher": given.get("publisher"),
            "run_id": given.get("run_id"),
            "trained_at": given.get("utc_time_created"),
            "code_commit": given.get("code_commit"),
            "environment": "\n".join(given.get("requirements") or ()),
            # MLflow's digest of a data set is a short one of its own, and no SHA-256 of anything.
            "training_data": {"name": data[0].get("name", ""), "version": data[0].get("digest", "")} if data else None,
            "hyperparameters": given.get("parameters"),
            "metrics": {
                name: value
                for name, value in numbers.items()
                if isinstance(value, int | float) and math.isfinite(value)
            },
        }
        return {name: value for name, value in found.items() if value}

    def facts(self) -> dict[str, str]:
        """The rest of the metadata as texts: what is none is JSON, and what is very long is cut."""
        rest = {name: value for name, value in self.metadata.items() if name not in _DESCRIBED and value}
        odd = {name: value for name, value in dict(self.metadata.get("tags") or {}).items() if not _is_tag(name, value)}
        rest |= {"other_tags": odd} if odd else {}
        return {
            name: (value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str))[:_LONGEST_FACT]
            for name, value in rest.items()
        }

    def tags(self) -> dict[str, str]:
        """The free tags that the source has, as far as they may be tags here."""
        given = dict(self.metadata.get("tags") or {})
        return {name: value for name, value in given.items() if _is_tag(name, value)}


def _is_tag(name: str, value: str) -> bool:
    return _TAG.fullmatch(name) is not None and len(value) <= _LONGEST_TAG and value.isprintable()


def inside(root: Path, relative: object) -> Path:
    """The file or directory at a path that a foreign file names; INVALID_ARTIFACT for one that leads out of `root`."""
    parts = PurePosixPath(str(relative)).parts
    path = root
    if not parts or str(relative).startswith("/") or ".." in parts or "\0" in str(relative):
        raise _refused(relative, "leads out of what is imported")
    for part in parts:
        path /= part
        if path.is_symlink():
            raise _refused(relative, "is a link")
    if not path.exists():
        raise _refused(relative, "is not there")
    return path


def _refused(relative: object, why: str) -> SalverError:
    return SalverError("INVALID_ARTIFACT", f"the path {str(relative)[:200]!r}, which the artifact names, {why}")


def read_small(path: Path) -> str:
    """A text that somebody else wrote; INVALID_ARTIFACT where it is large, or no UTF-8."""
    if path.stat().st_size > _LARGEST_TEXT_BYTES:
        raise SalverError("INVALID_ARTIFACT", f"{path.name!r} is larger than {_LARGEST_TEXT_BYTES} bytes")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise SalverError("INVALID_ARTIFACT", f"{path.name!r} is no UTF-8") from None


def copy_file(source: Path, target: Path) -> None:
    """Copy one plain file, and none that a link points to."""
    if not stat.S_ISREG(source.lstat().st_mode):
        raise SalverError("INVALID_ARTIFACT", f"{source.name!r} is no regular file", "copy what a link points to")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target, follow_symlinks=False)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory of plain files."""
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(set(folders) - _LEFT_OUT)
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in (*links, *sorted(set(names) - _LEFT_OUT)):
            file = Path(folder, name)
            copy_file(file, target / file.relative_to(source))


def declare(
    directory: Path, inputs: Sequence[TensorSpec] = (), outputs: Sequence[TensorSpec] = (), **settings: str
) -> None:
    """Write the declaration of an imported artifact."""
    lines = [f"{name} = {_text(value)}" for name, value in settings.items()]
    for side, specs in (("inputs", inputs), ("outputs", outputs)):
        for spec in specs:
            lines += ["", f"[[{side}]]", *_described(spec)]
    (directory / DECLARATION_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _described(spec: TensorSpec) -> list[str]:
    fields: Mapping[str, object] = msgspec.to_builtins(spec)
    return [
        f"{name} = {_text(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in fields.items()
    ]


def _text(value: str) -> str:
    """A string of TOML, which escapes as JSON does, and wants this one escaped too."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
