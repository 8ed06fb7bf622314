"""Formats: each adapts one kind of artifact, in one file, to `Format` and `Loaded`.

To add one: write `formats/NAME.py` with a class that satisfies `Format`, give it a row in
`salver.protocol.formats`, and pass the shared list of checks in `tests/checks/runtime_checks.py`.
A format's libraries are imported in its own file only, so a server that serves ONNX never
imports scikit-learn.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator
from pathlib import Path
from typing import Protocol

from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS
from salver.protocol.signature import Signature
from salver.protocol.tables import RuntimeOptions
from salver.runtime.declaration import Declaration
from salver.runtime.model import Arrays

__all__ = ["Format", "Loaded", "Source", "Streaming", "format_named"]


class Source:
    """The bytes of one artifact, verified: where a format loads from.

    `main` is the file the format recognised. `alone` says that it is the whole artifact: what lies beside it is
    somebody else's. `content` is set when it is, and the format loads from memory: then these very bytes were
    hashed and must be what is loaded.
    """

    __slots__ = ("alone", "content", "directory", "main")

    def __init__(self, directory: Path, main: Path, content: bytes | None = None, *, alone: bool = False) -> None:
        self.directory = directory
        self.main = main
        self.content = content
        self.alone = alone or content is not None


class Loaded(Protocol):
    """A loaded version. Used by one thread at a time."""

    def run(self, inputs: Arrays) -> Arrays:
        """Answer a batch: read-only arrays in, arrays by output name out. May raise anything."""

    def unload(self) -> None:
        """Free what `load` took; called once, after the last `run`."""


class Streaming(Loaded, Protocol):
    """A loaded version whose manifest says that it streams."""

    predicts: bool
    """Whether it has a `run`, too; False for one that only streams."""

    def stream(self, inputs: Arrays) -> Generator[Arrays, None, None]:
        """Answer one request bit by bit; runs between two chunks only. Closed when nobody wants the rest."""


class Format(Protocol):
    """One kind of artifact."""

    name: str

    def main_file(self, directory: Path) -> Path | None:
        """The file in `directory` that this format would load, or None if it recognises none."""

    def code_in(self, source: Source) -> str:
        """What in `source` may execute code when it is loaded, in words; empty if nothing. Never executes any."""

    def signature(self, source: Source, declaration: Declaration) -> Signature:
        """The signature of an artifact; executes its code if it has any, so call it in a child process then.

        Raises INVALID_ARTIFACT when the file is none of this format or its signature cannot be had.
        """

    def load(self, source: Source, declaration: Declaration, options: RuntimeOptions) -> Loaded:
        """Load a version; may take long and may raise anything."""


def format_named(name: str) -> Format:
    """The format called `name`; raises INVALID_SETTING for an unknown one."""
    try:
        module, _, cls = FORMATS[name].adapter.partition(":")
    except KeyError:
        raise SalverError(
            "INVALID_SETTING", f"there is no format {name[:40]!r}", f"use one of {', '.join(FORMATS)}"
        ) from None
    found: Format = getattr(importlib.import_module(module), cls)()
    return found
