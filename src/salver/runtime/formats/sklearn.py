"""scikit-learn estimators, from skops files or from pickles.

A skops file whose every type skops itself trusts is a data format and may run in the server
process. Any other skops file, and every pickle and joblib file, can execute code while it is
loaded: it is taken only with an explicit word of trust and lives in a worker.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from salver.protocol.datatypes import datatype_of
from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import RuntimeOptions
from salver.runtime.declaration import Declaration
from salver.runtime.environment import require_users_code
from salver.runtime.formats import Source
from salver.runtime.model import Arrays

try:
    import skops.io
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted
except ImportError as missing:
    raise SalverError(
        "UNSUPPORTED", "scikit-learn models need scikit-learn and skops", "pip install 'salver[sklearn]'"
    ) from missing

__all__ = ["SklearnFormat"]

_TYPES_SHOWN: Final = 5
_LONGEST_TYPE: Final = 120


class SklearnFormat:
    """One fitted estimator: one input `X` [-1, n], outputs `label` and, if it has them, `probabilities`."""

    name = "sklearn"

    def main_file(self, directory: Path) -> Path | None:
        """The only file with a suffix of the format."""
        files = [path for path in sorted(directory.iterdir()) if path.suffix in FORMATS[self.name].suffixes]
        return files[0] if len(files) == 1 else None

    def code_in(self, source: Source) -> str:
        """Pickles are code; so are the types in a skops file that skops does not trust."""
        if source.main.suffix != ".skops":
            return "it is a pickle"
        untrusted = _untrusted_types(source)
        if not untrusted:
            return ""
        shown = ", ".join(name[:_LONGEST_TYPE] for name in untrusted[:_TYPES_SHOWN])
        more = f" and {len(untrusted) - _TYPES_SHOWN} more" if len(untrusted) > _TYPES_SHOWN else ""
        return f"skops does not trust the types {shown}{more}"

    def signature(self, source: Source, declaration: Declaration) -> Signature:
        """Derived by running the estimator on one row of zeros."""
        estimator = _load(source)
        width = _width(estimator)
        outputs = SklearnModel(estimator).run({"X": np.zeros((1, width))})
        classes = getattr(estimator, "classes_", ())
        labels = tuple(str(name) for name in classes) if "probabilities" in outputs else ()
        return Signature(
            declaration.inputs or (TensorSpec("X", "FP64", (-1, width)),),
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


def _width(estimator: Any) -> int:
    """How many numbers a row has; raises INVALID_ARTIFACT telling what else is wrong from what takes no numbers."""
    name = type(estimator).__name__
    if not hasattr(estimator, "predict"):
        raise SalverError("INVALID_ARTIFACT", f"a {name} is no estimator with predict()", "save the estimator itself")
    width = getattr(estimator, "n_features_in_", None)
    if width is not None:
        return int(width)
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise SalverError("INVALID_ARTIFACT", f"the {name} is not fitted", "fit it before saving it") from None
    except TypeError:
        raise SalverError("INVALID_ARTIFACT", f"a {name} is no estimator of scikit-learn") from None
    raise SalverError(
        "INVALID_ARTIFACT",
        f"the {name} was not fitted on rows of numbers: it has no n_features_in_, as text pipelines have none",
        "wrap it in a salver.Model that declares its inputs; docs/models.md has a text classifier to copy",
    )


def _spec(name: str, array: np.ndarray[Any, Any], labels: tuple[str, ...]) -> TensorSpec:
    datatype = datatype_of(array)
    if datatype is None:
        raise SalverError("INVALID_ARTIFACT", f"output {name!r} has numpy type {array.dtype}, which cannot be served")
    return TensorSpec(name, datatype, (-1, *array.shape[1:]), labels=labels if name == "probabilities" else ())


def _untrusted_types(source: Source) -> list[str]:
    try:
        found = skops.io.get_untrusted_types(file=source.main)
    except Exception as error:
        raise SalverError(
            "INVALID_ARTIFACT",
            f"{source.main.name!r} is no skops file",
            "save the estimator again with skops.io.dump; a pickle keeps its own suffix and needs --trust-code",
        ) from error
    return list(found)


def _load(source: Source) -> Any:
    if source.main.suffix != ".skops":
        require_users_code(f"pickle {source.main.name!r}")
        import joblib  # noqa: PLC0415 - only where a pickle was vouched for

        return joblib.load(source.main)
    untrusted = _untrusted_types(source)
    if untrusted:
        require_users_code(f"{untrusted[0]!r} in {source.main.name!r}")
    return skops.io.load(source.main, trusted=untrusted)
