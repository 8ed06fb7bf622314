"""Model directories of MLflow: what `mlflow.FLAVOR.save_model` writes, with an MLmodel file.

Flavors that Salver knows are taken as what they are; any other runs behind MLflow's own `pyfunc`, as a
Python model in a worker, where MLflow is installed there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from salver.imports import files
from salver.imports.imported import Imported, copy_file, copy_tree, declare, inside, read_small
from salver.protocol.errors import SalverError
from salver.protocol.signature import TensorSpec

__all__ = ["convert", "is_mlflow_model"]

_MLMODEL: Final = "MLmodel"
_KNOWN: Final = (
    ("onnx", ("data", "onnx_data"), ("onnx",)),
    ("xgboost", ("data",), ("xgboost", "joblib", "skops")),
    ("lightgbm", ("data",), ("lightgbm", "joblib", "skops")),
    ("sklearn", ("pickled_model",), ("joblib", "skops")),
    ("pytorch", ("model_data",), ("torch",)),
)
"""Flavors, the keys that may name their file, and what that file may be."""
_PYFUNC: Final = "python_function"
_BESIDE: Final = "mlflow_model"
"""Where a generated model finds MLflow's directory; `mlflow_pyfunc.py` knows it too."""
_COLUMNS: Final = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
}
_TENSORS: Final = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
    "object": "BYTES",
    "str": "BYTES",
    "bytes": "BYTES",
}


def is_mlflow_model(source: Path) -> bool:
    """Whether a directory is one of MLflow's."""
    return (source / _MLMODEL).is_file()


def convert(source: Path, into: Path) -> Imported:
    """Make of the MLflow model at `source` what Salver serves.

    Raises INVALID_ARTIFACT, naming the flavors there are, for what cannot be served.
    """
    if not is_mlflow_model(source):
        raise SalverError("INVALID_ARTIFACT", f"{source.name!r} is no model of MLflow: it has no file {_MLMODEL}")
    described = _read_yaml(source / _MLMODEL)
    flavors = _table(described.get("flavors"))
    metadata = _metadata(source, described, flavors)
    for flavor, keys, kinds in _KNOWN:
        file = _file_of(source, _table(flavors.get(flavor)), keys) if flavor in flavors else None
        if file is not None and files.kind_of_file(file) in kinds:
            made = files.convert(file, into)
            return Imported(into, made.format, metadata | {"flavor": f"mlflow.{flavor}"})
    if _PYFUNC in flavors:
        return _behind_pyfunc(source, into, described, metadata)
    raise SalverError(
        "INVALID_ARTIFACT",
        f"none of the flavors of {source.name!r} can be served: {', '.join(map(str, flavors)) or 'it has none'}",
        "log it with mlflow.pyfunc, sklearn, xgboost, lightgbm or onnx, or pytorch with an exported program",
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml  # noqa: PLC0415 - of the extra
    except ImportError as missing:
        raise SalverError(
            "UNSUPPORTED", "MLflow's models are described in YAML", "pip install 'salver[mlflow]'"
        ) from missing
    try:
        found = yaml.safe_load(read_small(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = str(error).partition("\n")[0][:200]
        raise SalverError("INVALID_ARTIFACT", f"{path.name} cannot be read: {line}") from None
    if not isinstance(found, dict):
        raise SalverError("INVALID_ARTIFACT", f"{path.name} holds no table")
    return found


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _file_of(source: Path, flavor: Mapping[str, Any], keys: tuple[str, ...]) -> Path | None:
    """The one file that a flavor names: itself, or the only candidate in the directory that it names."""
    for key in keys:
        if key not in flavor:
            continue
        found = inside(source, flavor[key])
        if found.is_file():
            return found
        inner = [each for each in sorted(found.rglob("*")) if each.is_file() and not each.is_symlink()]
        known = [each for each in inner if files.kind_of_file(each) in ("torch", "onnx")]
        return known[0] if len(known) == 1 else None
    return None


def _metadata(source: Path, described: Mapping[str, Any], flavors: Mapping[str, Any]) -> dict[str, Any]:
    python = _table(flavors.get(_PYFUNC))
    requirements = source / "requirements.txt"
    names = ("run_id", "model_id", "model_uuid", "artifact_path", "mlflow_version", "utc_time_created", "prompts")
    facts = {name: described[name] for name in names if isinstance(described.get(name), str | int | float)}
    signature = _table(described.get("signature"))
    return facts | {
        "flavors": sorted(map(str, flavors)),
        "python_version": python.get("python_version"),
        "loader_module": python.get("loader_module"),
        "signature": {side: str(value) for side, value in signature.items() if value is not None},
        # Values of the user's own that hold others are left: a file may make a large thing of little text.
        "model_metadata": {
            str(name): value
            for name, value in _table(described.get("metadata")).items()
            if isinstance(value, str | int | float)
        },
        "requirements": read_small(requirements).split("\n") if requirements.is_file() else [],
    }


def _behind_pyfunc(source: Path, into: Path, described: Mapping[str, Any], metadata: dict[str, Any]) -> Imported:
    signature = _table(described.get("signature"))
    inputs, outputs = (_specs(signature.get(side), side) for side in ("inputs", "outputs"))
    copy_tree(source, into / _BESIDE)
    copy_file(Path(__file__).with_name("mlflow_pyfunc.py"), into / "model.py")
    declare(into, inputs, outputs, format="python", entry="model:Pyfunc")
    notes = ("it runs behind mlflow.pyfunc: the environment that serves it needs mlflow and what the model needs",)
    return Imported(into, "python", metadata | {"flavor": "mlflow.pyfunc"}, notes)


def _specs(text: object, side: str) -> list[TensorSpec]:
    """One side of MLflow's signature: columns, each an input of its own, or tensors."""
    try:
        found = json.loads(text) if isinstance(text, str) else []
    except ValueError:
        found = None
    if not isinstance(found, list) or not found:
        raise SalverError(
            "INVALID_ARTIFACT",
            f"MLmodel says nothing of the {side} of the model",
            "log it with signature=mlflow.models.infer_signature(inputs, outputs)",
        )
    default = "input" if side == "inputs" else "prediction"
    return [_spec(_table(each), default if len(found) == 1 else f"{default}_{at}") for at, each in enumerate(found)]


def _spec(field: Mapping[str, Any], default: str) -> TensorSpec:
    name, kind = str(field.get("name") or default), field.get("type")
    optional = field.get("required") is False
    if kind == "tensor":
        tensor = _table(field.get("tensor-spec"))
        datatype, shape = _TENSORS.get(str(tensor.get("dtype"))), tensor.get("shape")
        if datatype and isinstance(shape, list) and all(isinstance(size, int) for size in shape):
            return TensorSpec(name, datatype, tuple(shape), optional)
    elif kind in _COLUMNS:
        return TensorSpec(name, _COLUMNS[kind], (-1,), optional)
    raise SalverError(
        "INVALID_ARTIFACT",
        f"{name[:80]!r} of MLflow's signature is of type {str(field.get('tensor-spec') or kind)[:80]!r}",
        f"log it with columns of {', '.join(_COLUMNS)}, or tensors of {', '.join(_TENSORS)}",
    )
