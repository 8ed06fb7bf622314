"""Archives of TorchServe, `.mar`: a handler, its model, and what else it was packed with.

The handler is taken as it is and runs in a worker, behind a model that calls its `initialize` and `handle`
with TorchServe's context. Refused are handlers that are not in the archive (TorchServe's own, such as
image_classifier) and those that import `ts` where that is not installed.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec

from salver.imports.imported import Imported, copy_file, declare, inside, read_small
from salver.protocol.errors import SalverError
from salver.protocol.signature import TensorSpec
from salver.storage.archives import extract

__all__ = ["convert"]

_MANIFEST: Final = "MAR-INF/MANIFEST.json"
_BESIDE: Final = "archive"
"""Where the generated model finds what was in the archive; `salver_torchserve_model.py` knows it too."""
_MODEL: Final = "salver_torchserve_model.py"
"""Called as nothing in an archive is: model.py is what many call their network."""
_HANDLER: Final = re.compile(r"[A-Za-z_]\w*(?:/[A-Za-z_]\w*)*(?:\.py)?", re.ASCII)
_INPUTS: Final = (TensorSpec("body", "BYTES", (-1,)),)
_OUTPUTS: Final = (TensorSpec("result", "BYTES", (-1,)),)


def convert(source: Path, into: Path) -> Imported:
    """Unpack the archive at `source`; a directory that was unpacked already will not do.

    Raises INVALID_ARTIFACT for what is no archive of TorchServe, UNSUPPORTED for handlers that need TorchServe.
    """
    unpacked = into / _BESIDE
    extract(source, unpacked)
    try:
        manifest = _manifest(unpacked)
        model = manifest["model"]
        handler, _, function = str(model.get("handler", "")).partition(":")
        _require_own(unpacked, handler)
    except BaseException:
        shutil.rmtree(unpacked, ignore_errors=True)
        raise
    copy_file(Path(__file__).with_name(_MODEL), into / _MODEL)
    declare(into, _INPUTS, _OUTPUTS, format="python", entry=f"{Path(_MODEL).stem}:Archived")
    notes = []
    requirements = _requirements(unpacked, model)
    if requirements:
        notes.append(f"the environment that serves it needs {', '.join(requirements)}"[:1000])
    facts = {
        "flavor": "torchserve",
        "imported_from": source.name,
        "version": str(model.get("modelVersion", "")),
        "model_name": str(model.get("modelName", "")),
        "entry": f"{handler}:{function}" if function else handler,
        "serialized_file": str(model.get("serializedFile", "")),
        "archiver_version": str(manifest.get("archiverVersion", "")),
        "created": str(manifest.get("createdOn", "")),
        "requirements": requirements,
    }
    return Imported(into, "python", facts, tuple(notes))


def _manifest(unpacked: Path) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(read_small(inside(unpacked, _MANIFEST)), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise SalverError("INVALID_ARTIFACT", f"{_MANIFEST} cannot be read: {error}") from None
    if not isinstance(found.get("model"), dict):
        raise SalverError("INVALID_ARTIFACT", f"{_MANIFEST} names no model")
    runtime = str(found.get("runtime", "python"))
    if not runtime.startswith("python"):
        raise SalverError(
            "INVALID_ARTIFACT", f"{_MANIFEST} asks for the runtime {runtime[:80]!r}; only Python is there"
        )
    return found


def _require_own(unpacked: Path, handler: str) -> None:
    """Raise UNSUPPORTED unless the handler is in the archive and, with all modules beside it, needs no TorchServe."""
    plain = _HANDLER.fullmatch(handler) is not None
    if not plain or not ((unpacked / handler).is_file() or (unpacked / f"{handler}.py").is_file()):
        raise SalverError(
            "UNSUPPORTED",
            f"the handler {handler[:80]!r} is one of TorchServe's own and not in the archive",
            "export the model to ONNX or with torch.export, or write its handler as a salver.Model",
        )
    if importlib.util.find_spec("ts") is not None:
        return
    for path in sorted(unpacked.rglob("*.py")):
        if "ts" in _imported(path):
            raise SalverError(
                "UNSUPPORTED",
                f"{path.relative_to(unpacked).as_posix()} imports ts, TorchServe's own package, which is not installed",
                "write its initialize and handle without the base class, or install torchserve beside Salver",
            )


def _imported(path: Path) -> set[str]:
    """The packages that a module imports; nothing is run."""
    try:
        tree = ast.parse(read_small(path))
    except (SyntaxError, ValueError, RecursionError):
        raise SalverError("INVALID_ARTIFACT", f"{path.name!r} is no Python that this version understands") from None
    names = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in names}


def _requirements(unpacked: Path, model: dict[str, Any]) -> list[str]:
    named = model.get("requirementsFile")
    if not named:
        return []
    lines = [line.partition("#")[0].strip() for line in read_small(inside(unpacked, named)).splitlines()]
    return [line for line in lines if line]
