"""A directory whose artifacts may be registered by naming their path, for protocols that load models so.

Whoever may name a path may have it read: nothing outside the directory is looked at, whatever
links and dots a name is made of, and nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from salver.control.registration import draft_version
from salver.protocol.errors import SalverError
from salver.registry.draft import VersionDraft
from salver.storage.blob_store import Blobs

__all__ = ["URL", "ModelStore", "free_memory_bytes", "refuse_archive"]

URL: Final = "url"
"""The key of a version's metadata under which stands the path it was registered by."""
_LONGEST_URL: Final = 1024
_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")


class ModelStore:
    """The artifacts below one directory."""

    def __init__(self, root: Path, blobs: Blobs) -> None:
        self._root = root
        self._blobs = blobs

    def has(self, url: str) -> bool:
        """Whether `url`, relative to the directory or in full, is something inside it."""
        return self._find(url) is not None

    def draft(self, name: str, url: str) -> VersionDraft:
        """The version of model `name` that the artifact at `url` makes, its bytes stored. Blocks.

        Raises NOT_FOUND, OUT_OF_MEMORY for what is larger than the memory that is free, and what
        `draft_version` raises: a pickle is never vouched for here.
        """
        path = self._find(url)
        if path is None:
            raise SalverError("NOT_FOUND", f"there is no artifact {url[:140]!r}", "name one in the model store")
        refuse_archive(path.name)
        size_bytes = sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")))
        free_bytes = free_memory_bytes()
        if free_bytes is not None and size_bytes > free_bytes:
            raise SalverError(
                "OUT_OF_MEMORY",
                f"artifact {url[:140]!r} has {size_bytes} bytes; {free_bytes} are free",
                "unload others",
            )
        draft = draft_version(self._blobs, name, path)
        return msgspec.structs.replace(draft, metadata=draft.metadata | {URL: url})

    def _find(self, url: str) -> Path | None:
        if not url or len(url) > _LONGEST_URL or "\0" in url:
            return None
        try:
            root = self._root.resolve(strict=True)
            path = (root / url.removeprefix("file://")).resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return path if path != root and path.is_relative_to(root) else None


def refuse_archive(url: str) -> None:
    """Raise INVALID_ARTIFACT for an archive of TorchServe's, there or not."""
    if url.endswith(".mar"):
        raise SalverError(
            "INVALID_ARTIFACT",
            f"{url.rpartition('/')[2][:140]!r} is an archive with a handler of TorchServe",
            "export the model to ONNX, or make its handler a salver.Model",
        )


def free_memory_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int | None:
    """Memory that could still be had by this machine and by this container; None where nobody says."""
    found = []
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        pass
    try:
        limit, used = (cgroup / "memory.max").read_text().strip(), int((cgroup / "memory.current").read_text())
        statistics = _numbers((cgroup / "memory.stat").read_text())
        if limit != "max":
            # Pages of files are given up when memory is needed.
            found.append(max(0, int(limit) - used + statistics.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass
    return min(found, default=None)


def _numbers(text: str) -> Mapping[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in text.splitlines()) if value}
