"""What a file is by its content. A name promises nothing: a pickle may be called model.onnx.

Only the first bytes are looked at, and nothing is parsed.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS

__all__ = ["content_of", "looks_like", "may_be", "require_content"]

_HEAD_BYTES: Final = 4096
_PICKLE: Final = "a pickle"
_MAGIC: Final = (
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "compressed with gzip"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ\x00", "compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x7fELF", "a program"),
    (b"#!", "a script"),
    (b"binf", "a model in XGBoost's old binary format"),
)
_TAR_AT: Final = 257
_XGBOOST_JSON: Final = re.compile(rb'\s*\{\s*"learner"\s*:')
_LIGHTGBM: Final = re.compile(rb"tree\r?\nversion=")


def content_of(path: Path) -> str:
    """What the first bytes of a file say that it is, in words; "" where they say nothing."""
    return _content(_head(path))


def looks_like(format: str, path: Path) -> bool:
    """Whether a file may be a model of `format`; of formats that show no sign, whatever is nothing else."""
    return _looks(format, _head(path))


def may_be(format: str, path: Path) -> bool:
    """Whether a file is called what models of `format` are, and looks like one where others are called so as well."""
    facts = FORMATS[format]
    if path.suffix not in facts.suffixes or not path.is_file():
        return False
    return path.suffix not in facts.shared_suffixes or looks_like(format, path)


def require_content(format: str, path: Path) -> None:
    """Raise INVALID_ARTIFACT, naming what the file is instead, if it cannot be a model of `format`.

    A pickle that is called something else gets nowhere near what could unpickle it.
    """
    head = _head(path)
    if _looks(format, head):
        return
    found = _content(head) or ("empty" if not head else f"none: it begins with {head[:8]!r}")
    remedy = "name the file and its format for what they are"
    if found == _PICKLE:
        remedy = "export the model in the format itself; a pickle is code, and is taken as .pkl with --trust-code only"
    raise SalverError("INVALID_ARTIFACT", f"{path.name!r} should be a model of format {format}, and is {found}", remedy)


def _looks(format: str, head: bytes) -> bool:
    sign = _LOOKS.get(format)
    return sign is None or sign(head)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise SalverError("INVALID_ARTIFACT", f"{path.name!r} cannot be read: {error.strerror}") from None


def _content(head: bytes) -> str:
    if _is_pickle(head):
        return _PICKLE
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return what
    return "a tar archive" if head[_TAR_AT : _TAR_AT + 5] == b"ustar" else ""


def _is_pickle(head: bytes) -> bool:
    """Pickles since protocol 2 say so; the older ones are told by what they are made of, up to where the head ends."""
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    if not head or head[:1] not in b"c(]}lditSVFILN":
        return False
    try:
        for _opcode, _argument, _position in pickletools.genops(head):
            pass
    except (ValueError, UnicodeDecodeError, IndexError):
        return False
    return True


def _is_xgboost(head: bytes) -> bool:
    # Universal Binary JSON has no blanks, and a length before the first name.
    return _XGBOOST_JSON.match(head) is not None or (head[:1] == b"{" and b"\x07learner" in head[:24])


def _is_onnx(head: bytes) -> bool:
    # A message of protobuf has no sign of its own, but is none of these.
    return bool(head) and not _content(head)


_LOOKS: Final[dict[str, Callable[[bytes], bool]]] = {
    "onnx": _is_onnx,
    "xgboost": _is_xgboost,
    "lightgbm": lambda head: _LIGHTGBM.match(head) is not None,
    "torch": lambda head: head.startswith(b"PK\x03\x04"),
}
