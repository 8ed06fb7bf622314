"""What a foreign artifact is, and who converts it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from salver.imports import files, mlflow, savedmodel, torchserve
from salver.imports.imported import Imported
from salver.protocol.errors import SalverError

__all__ = ["SOURCES", "convert_path", "recognise"]

SOURCES: Final = ("mlflow", "savedmodel", "mar", "file")
"""What can be imported from a path."""


def recognise(source: Path) -> str:
    """Which of `SOURCES` the file or directory at `source` is; INVALID_ARTIFACT for none."""
    if not source.exists():
        raise SalverError("INVALID_ARTIFACT", f"there is no file or directory {str(source)!r}", "check the path")
    if source.is_dir():
        if mlflow.is_mlflow_model(source):
            return "mlflow"
        if savedmodel.is_saved_model(source):
            return "savedmodel"
        raise SalverError(
            "INVALID_ARTIFACT",
            f"the directory {source.resolve().name!r} is neither a model of MLflow nor a SavedModel",
            "name the file in it, or `salver register` it if it is meant for Salver",
        )
    return "mar" if files.kind_of_file(source) == "mar" else "file"


def convert_path(source: Path, into: Path, *, kind: str = "", python: Path | None = None) -> Imported:
    """Convert what is at `source`, as `kind` or as what it is recognised as, into the fresh directory `into`.

    `python` has TensorFlow and its converter, where the present one has not.
    """
    if kind and kind not in SOURCES:
        raise SalverError("INVALID_SETTING", f"--from is {kind[:40]!r}", f"use one of {', '.join(SOURCES)}")
    kind = kind or recognise(source)
    into.mkdir(mode=0o700)
    if kind == "savedmodel":
        return savedmodel.convert(source, into, python=python)
    convert = {"mlflow": mlflow.convert, "mar": torchserve.convert, "file": files.convert}[kind]
    return convert(source, into)
