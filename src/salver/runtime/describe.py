"""`python -m salver.runtime.describe`: the child in which an artifact's code runs to tell its signature."""

from __future__ import annotations

from pathlib import Path

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature
from salver.runtime.artifact import DescribeOrder, source_of
from salver.runtime.asking import answer_once
from salver.runtime.declaration import Declaration, read_declaration
from salver.runtime.environment import allow_users_code
from salver.runtime.formats import format_named
from salver.runtime.formats.python import import_attribute

__all__ = ["main"]


def main() -> None:
    """Describe one artifact."""
    allow_users_code()
    answer_once(DescribeOrder, _signature)


def _signature(asked: DescribeOrder) -> Signature:
    path, chosen = Path(asked.path), format_named(asked.format)
    declaration = read_declaration(path) if path.is_dir() else Declaration()
    source = source_of(path, chosen, declaration)
    signature = chosen.signature(source, declaration)
    for reference in filter(None, (declaration.preprocess, declaration.postprocess)):
        _require_function(source.directory, reference)
    return signature


def _require_function(directory: Path, reference: str) -> None:
    """What would be missed when the version is loaded, said when it is registered."""
    if not callable(import_attribute(directory, reference)):
        raise SalverError("INVALID_ARTIFACT", f"{reference!r} of the artifact is no function", "name a function")


if __name__ == "__main__":
    main()
