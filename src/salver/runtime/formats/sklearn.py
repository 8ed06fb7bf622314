"""scikit-learn estimators, from skops files or from pickles.

A skops file whose every type skops itself trusts is a data format and may run in the server
process. Any other skops file, and every pickle and joblib file, can execute code while it is
loaded: it is taken only with an explicit word of trust and lives in a worker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from salver.protocol.datatypes import datatype_of
from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import RuntimeOptions
from salver.runtime.declaration import Declaration
from salver.runtime.formats import Source
from salver.runtime.model import Arrays

try:
    import skops.io
except ImportError as missing:
    raise SalverError(
        "UNSUPPORTED", "scikit-learn models need scikit-learn and skops", "pip install 'salver[sklearn]'"
    ) from missing

__all__ = ["SklearnFormat"]


class SklearnFormat:
    """One fitted estimator: one input `X` [-1, n], outputs `label` and, if it has them, `probabilities`."""

    name = "sklearn"

    def main_file(self, directory: Path) -> Path | None:
        """The only file with a suffix of the format."""
        files = [path for path in sorted(directory.iterdir()) if path.suffix in FORMATS[self.name].suffixes]
        return files[0] if len(files) == 1 else None

    def executes_code(self, source: Source) -> bool:
        """True for pickles, and for skops files with a type that skops does not trust."""
        return source.main.suffix != ".skops" or bool(_untrusted_types(source))

    def signature(self, source: Source, declaration: Declaration) -> Signature:
        """Derived by running the estimator on one row of zeros."""
        estimator = _load(source)
        width = getattr(estimator, "n_features_in_", None)
        if width is None or not hasattr(estimator, "predict"):
            raise SalverError(
                "INVALID_ARTIFACT",
                f"a {type(estimator).__name__} is no fitted estimator with predict()",
                "fit it before saving it",
            )
        outputs = SklearnModel(estimator).run({"X": np.zeros((1, width))})
        classes = getattr(estimator, "classes_", ())
        labels = tuple(str(name) for name in classes) if "probabilities" in outputs else ()
        return Signature(
            declaration.inputs or (TensorSpec("X", "FP64", (-1, int(width))),),
            declaration.outputs or tuple(_spec(name, array, labels) for name, array in outputs.items()),
        )

    def load(self, source: Source, declaration: Declaration, options: RuntimeOptions) -> SklearnModel:
        """Load the estimator."""
        del declaration, options
        return SklearnModel(_load(source))


class SklearnModel:
    """A fitted estimator."""

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        self._has_probabilities = hasattr(estimator, "predict_proba")

    def run(self, inputs: Arrays) -> Arrays:
        """Answer a batch; labels that are text come as BYTES."""
        rows = inputs["X"]
        outputs = {"label": self._label(self._estimator.predict(rows))}
        if self._has_probabilities:
            outputs["probabilities"] = np.asarray(self._estimator.predict_proba(rows))
        return outputs

    @staticmethod
    def _label(label: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return label.astype(object) if label.dtype.kind in "US" else label

    def unload(self) -> None:
        """Nothing beyond garbage collection."""


def _spec(name: str, array: np.ndarray[Any, Any], labels: tuple[str, ...]) -> TensorSpec:
    datatype = datatype_of(array)
    if datatype is None:
        raise SalverError("INVALID_ARTIFACT", f"output {name!r} has numpy type {array.dtype}, which cannot be served")
    return TensorSpec(name, datatype, (-1, *array.shape[1:]), labels=labels if name == "probabilities" else ())


def _untrusted_types(source: Source) -> list[str]:
    try:
        found = skops.io.get_untrusted_types(file=source.main)
    except Exception as error:
        raise SalverError("INVALID_ARTIFACT", f"{source.main.name!r} is no skops file") from error
    return list(found)


def _load(source: Source) -> Any:
    if source.main.suffix != ".skops":
        import joblib  # noqa: PLC0415 - only where a pickle was vouched for

        return joblib.load(source.main)
    return skops.io.load(source.main, trusted=_untrusted_types(source))
