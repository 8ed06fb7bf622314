"""The installed Salver as a wheel, made without a build back end or a network.

See https://packaging.python.org/specifications/binary-distribution-format.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["write_wheel"]

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def write_wheel(directory: Path) -> str:
    """Write the installed Salver as a wheel, byte for byte the same each time; return its name."""
    distribution = importlib.metadata.distribution("salver")
    version = distribution.version
    record = f"salver-{version}.dist-info"
    files = dict(_sources())
    files[f"{record}/METADATA"] = (distribution.read_text("METADATA") or "").encode()
    files[f"{record}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: salver\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{record}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    lines = [f"{name},{_digest(content)},{len(content)}" for name, content in files.items()]
    files[f"{record}/RECORD"] = "".join(f"{line}\n" for line in [*lines, f"{record}/RECORD,,"]).encode()
    name = f"salver-{version}-py3-none-any.whl"
    with zipfile.ZipFile(directory / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, content)
    return name


def _sources() -> Iterator[tuple[str, bytes]]:
    """The files of the installed package, by their path in a wheel."""
    package = Path(__file__).parent.parent
    for folder, directories, names in os.walk(package):
        directories[:] = sorted(name for name in directories if name != "__pycache__" and not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and not name.endswith((".pyc", ".pyo", "~")):
                path = Path(folder, name)
                yield f"salver/{path.relative_to(package).as_posix()}", path.read_bytes()


def _digest(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
