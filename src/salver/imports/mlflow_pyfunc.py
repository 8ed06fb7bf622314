"""The model.py of an artifact that was imported from MLflow and runs behind its `pyfunc`.

This file is copied into the artifact, and so is MLflow's directory. It runs in a worker, and needs MLflow there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import salver

__all__ = ["Pyfunc"]


class Pyfunc(salver.Model):
    """Whatever `mlflow.pyfunc.load_model` makes of the directory beside this file.

    The signature stands in salver-model.toml: columns are one input each, and become a data frame.
    """

    def load(self, path: Path) -> None:
        """Load the model as MLflow does; raises ImportError where that is not installed."""
        import mlflow.pyfunc  # noqa: PLC0415 - in the worker only

        model = mlflow.pyfunc.load_model(str(path / "mlflow_model"))
        signature = model.metadata.signature
        self._model = model
        self._columns = not signature.inputs.is_tensor_spec()
        self._named = signature.inputs.has_input_names()
        names = signature.outputs.input_names()
        several = len(signature.outputs.inputs) > 1
        self._outputs = [
            str(name) if isinstance(name, str) and name else f"prediction_{at}" if several else "prediction"
            for at, name in enumerate(names or [None])
        ]
        self._types = signature.outputs.numpy_types()

    def predict(self, inputs: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """One data frame, array or dictionary of arrays in, the declared outputs out."""
        given = {name: _text(array) for name, array in inputs.items()}
        data: Any
        if self._columns:
            import pandas as pd  # noqa: PLC0415 - MLflow needs it too

            data = pd.DataFrame({name: list(array) if array.ndim > 1 else array for name, array in given.items()})
        else:
            data = given if self._named else next(iter(given.values()))
        return self._named_outputs(self._model.predict(data))

    def _named_outputs(self, found: Any) -> dict[str, np.ndarray[Any, Any]]:
        if hasattr(found, "columns"):
            columns = [found[name] for name in found.columns]
        elif isinstance(found, dict):
            columns = [found[name] for name in self._outputs]
        elif len(self._outputs) > 1 and np.ndim(found) > 1:
            columns = list(np.asarray(found).T)
        else:
            columns = [found]
        types = self._types if isinstance(self._types, list) else [self._types]
        return {name: _array(column, of) for name, column, of in zip(self._outputs, columns, types, strict=True)}


def _text(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """MLflow's text is str; here it came as bytes."""
    if array.dtype != object:
        return array
    texts = np.empty(array.size, object)
    texts[:] = [each.decode() if isinstance(each, bytes) else each for each in array.reshape(-1)]
    return texts.reshape(array.shape)


def _array(column: Any, declared: Any) -> np.ndarray[Any, Any]:
    """As declared where no value changes by that, else as it is, which is then refused by name."""
    array = np.asarray(column)
    if np.dtype(declared).kind in "OSU":
        return array.astype(object)
    changed = array.astype(declared)
    return changed if np.array_equal(changed, array, equal_nan=array.dtype.kind == "f") else array
