"""Single files of other tools: joblib and pickle, skops, ONNX, XGBoost, LightGBM, exported programs of PyTorch.

What a file is, its content says; a name decides nothing but between what looks alike.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Final

from salver.imports.imported import Imported, copy_file, inside
from salver.protocol.errors import SalverError
from salver.runtime.declaration import DECLARATION_FILE
from salver.runtime.formats.onnx_data import external_paths, has_graph
from salver.runtime.recognition import content_of, looks_like

__all__ = ["convert", "kind_of_file"]

_LARGEST_LISTED: Final = 100_000
_SUFFIXES: Final = {
    "joblib": ".joblib",
    "skops": ".skops",
    "onnx": ".onnx",
    "xgboost": ".ubj",
    "lightgbm": ".txt",
    "torch": ".pt2",
}
_FORMATS: Final = {"joblib": "sklearn", "skops": "sklearn"}
_COMPRESSED: Final = ("compressed with gzip", "compressed with bzip2", "compressed with xz")
_PICKLED: Final = (".joblib", ".pkl", ".pickle", ".z", ".gz", ".bz2", ".xz")
_REFUSED: Final = {
    "torch pickle": "is a pickle of PyTorch, which holds weights or a module but no program; "
    "write it with torch.export.save",
    "torchscript": "is TorchScript, which PyTorch has given up; write it with torch.export.save",
    "keras": "is a model of Keras; write it with model.export(), and import that directory",
    "npz": "is an archive of numpy's arrays, which is no model; make a salver.Model that reads it",
}
_TAKEN: Final = (
    "files are taken of joblib, pickle, skops, ONNX, XGBoost, LightGBM, torch.export and TorchServe "
    "(a zip archive with MAR-INF/MANIFEST.json)"
)


def kind_of_file(path: Path) -> str:
    """What a file is: one of the kinds that `convert` takes, "mar", what is refused by name, or ""."""
    content = content_of(path)
    if content == "a pickle":
        return "joblib"
    if content in _COMPRESSED and path.suffix in _PICKLED and not path.name.endswith(".tar.gz"):
        return "joblib"
    if content == "a zip archive":
        return _kind_of_zip(path)
    for kind in ("xgboost", "lightgbm"):
        if looks_like(kind, path):
            return kind
    return "onnx" if not content and has_graph(path.read_bytes()) else ""


def convert(source: Path, into: Path) -> Imported:
    """Copy the file at `source`, and those that it names, into the directory `into` under a name of its format.

    Raises INVALID_ARTIFACT, saying what the file is, for what cannot be served.
    """
    kind = kind_of_file(source)
    if kind not in _SUFFIXES:
        why = _REFUSED.get(kind, f"is {content_of(source) or 'nothing that is known'}")
        what, _, remedy = why.partition("; ")
        raise SalverError("INVALID_ARTIFACT", f"{source.name!r} {what}", remedy or _TAKEN)
    suffix = ".json" if kind == "xgboost" and not _is_binary(source) else _SUFFIXES[kind]
    copy_file(source, into / f"model{suffix}")
    if kind == "onnx":
        for relative in external_paths(source.read_bytes()):
            _require_data(relative)
            copy_file(inside(source.parent, relative), into / relative)
    return Imported(into, _FORMATS.get(kind, kind), {"flavor": kind, "imported_from": source.name})


def _require_data(relative: str) -> None:
    """Raise INVALID_ARTIFACT for data that beside a model would be read as its declaration, or run as its code."""
    if relative.casefold().endswith((DECLARATION_FILE, ".py")):
        raise SalverError(
            "INVALID_ARTIFACT", f"the graph calls a file of its data {relative[:200]!r}", "rename that file"
        )


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:_LARGEST_LISTED]
    except (zipfile.BadZipFile, OSError, ValueError, EOFError):
        return ""
    last = {name.rpartition("/")[2] for name in names}
    if "MAR-INF/MANIFEST.json" in names:
        return "mar"
    if "archive_format" in last and any(name.endswith("models/model.json") for name in names):
        return "torch"
    if "schema.json" in names:
        return "skops"
    if "data.pkl" in last:
        return "torchscript" if "constants.pkl" in last else "torch pickle"
    if "model.weights.h5" in names:
        return "keras"
    return "npz" if names and all(name.endswith(".npy") for name in names) else ""


def _is_binary(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\x07learner" in file.read(24)
