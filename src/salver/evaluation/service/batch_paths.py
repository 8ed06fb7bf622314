"""What each library answers to a whole batch when nobody serves it: `predict` as in a notebook.

Nothing of the runtime's adapters is used, for it is they that are compared. Libraries are imported where they are
needed; this runs in a child process only.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from salver.runtime.environment import require_users_code
from salver.runtime.model import Model

__all__ = ["BatchOrder", "NoBatchPathError", "batch_outputs"]

Arrays = dict[str, Any]
_HALF: Final = 0.5


class NoBatchPathError(Exception):
    """The library has no way of its own to answer a batch that could be compared."""


class BatchOrder(msgspec.Struct, frozen=True):
    """What is to be answered: an artifact in a directory, its format, and the rows."""

    directory: str
    main: str
    """The file that the format loads."""
    format: str
    entry: str = ""
    preprocess: str = ""
    postprocess: str = ""
    trusted: bool = False
    """Whether somebody vouched for code in it."""
    script: str = ""
    """The user's own batch path, in place of the library's."""


def batch_outputs(order: BatchOrder, inputs: Arrays, columns: Mapping[str, list[Any]], matrix: Any) -> Arrays:
    """The outputs for all rows at once, by the names that Salver gives them.

    `inputs` are those of the signature, `matrix` the columns of a single numeric input as the data has them, in
    float64, None where there is no such input. Raises whatever the library raises.
    """
    if order.script:
        return _by_script(order, columns)
    if order.preprocess or order.postprocess or order.format == "python":
        require_users_code(f"code in the artifact of format {order.format}")
        # Only then: what lies beside a graph must not be taken for a library.
        sys.path.insert(0, order.directory)
    before, after = _function(order.preprocess), _function(order.postprocess)
    if before is not None:
        inputs = before(inputs)
        matrix = None
    answer = _PATHS.get(order.format)
    if answer is None:
        raise NoBatchPathError(f"the format {order.format} has no batch path here")
    found = answer(order, inputs, matrix if matrix is not None else next(iter(inputs.values())))
    return after(found) if after is not None else found


def _function(reference: str) -> Callable[[Arrays], Arrays] | None:
    if not reference:
        return None
    module, _, name = reference.partition(":")
    found: Callable[[Arrays], Arrays] = getattr(__import__(module, fromlist=[name]), name)
    return found


def _by_script(order: BatchOrder, columns: Mapping[str, list[Any]]) -> Arrays:
    require_users_code(f"script {Path(order.script).name!r}")
    sys.path.insert(0, str(Path(order.script).parent))
    script = runpy.run_path(order.script, run_name="salver_batch")
    found = script["predict"](dict(columns), Path(order.directory))
    return {name: np.asarray(values) for name, values in found.items()}


def _onnx(order: BatchOrder, inputs: Arrays, _: Any) -> Arrays:
    import onnxruntime  # noqa: PLC0415 - only what the format needs

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    path = str(Path(order.directory) / order.main)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    text = {node.name for node in session.get_inputs() if node.type == "tensor(string)"}
    feed = {name: _decoded(array) if name in text else array for name, array in inputs.items()}
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def _decoded(array: Any) -> Any:
    return np.array([each.decode() for each in array.reshape(-1)], dtype=object).reshape(array.shape)


def _sklearn(order: BatchOrder, _: Arrays, matrix: Any) -> Arrays:
    path = Path(order.directory) / order.main
    if path.suffix == ".skops":
        import skops.io  # noqa: PLC0415

        untrusted = skops.io.get_untrusted_types(file=path) if order.trusted else []
        if untrusted:
            require_users_code(f"{untrusted[0]!r} in {path.name!r}")
        estimator = skops.io.load(path, trusted=untrusted)
    elif order.trusted:
        require_users_code(f"pickle {path.name!r}")
        import joblib  # noqa: PLC0415

        estimator = joblib.load(path)
    else:
        raise NoBatchPathError("it is a pickle that nobody vouched for")
    outputs = {"label": np.asarray(estimator.predict(matrix))}
    if hasattr(estimator, "predict_proba"):
        outputs["probabilities"] = np.asarray(estimator.predict_proba(matrix))
        outputs["classes"] = np.asarray(estimator.classes_)
    return outputs


def _xgboost(order: BatchOrder, _: Arrays, matrix: Any) -> Arrays:
    import xgboost  # noqa: PLC0415

    booster = xgboost.Booster(model_file=str(Path(order.directory) / order.main))
    estimator: Any = None
    if '"name":"binary:logistic"' in booster.save_config() or '"name":"multi:' in booster.save_config():
        # The interface of scikit-learn stops at the best iteration, as training reported it.
        estimator = xgboost.XGBClassifier()
        estimator.load_model(Path(order.directory) / order.main)
        probabilities = np.asarray(estimator.predict_proba(matrix))
        return {"label": probabilities.argmax(axis=1), "probabilities": probabilities}
    return {"value": np.asarray(booster.predict(xgboost.DMatrix(matrix), validate_features=False))}


def _lightgbm(order: BatchOrder, _: Arrays, matrix: Any) -> Arrays:
    import lightgbm  # noqa: PLC0415

    found = np.asarray(lightgbm.Booster(model_file=str(Path(order.directory) / order.main)).predict(matrix))
    text = (Path(order.directory) / order.main).read_text("utf-8")
    objective = next((line[10:] for line in text.splitlines() if line.startswith("objective=")), "")
    if objective.startswith("binary"):
        return {"label": (found > _HALF).astype(np.int64), "probabilities": np.column_stack([1 - found, found])}
    if objective.startswith("multiclass"):
        return {"label": found.argmax(axis=1), "probabilities": found}
    return {"value": found}


def _python(order: BatchOrder, inputs: Arrays, _: Any) -> Arrays:
    module, _, name = order.entry.partition(":")
    loaded = __import__(module or Path(order.main).stem, fromlist=["*"])
    model = getattr(loaded, name)() if name else _only_model(loaded)()
    model.load(Path(order.directory))
    found: Arrays = model.postprocess(model.predict(model.preprocess(inputs)))
    return found


def _only_model(module: Any) -> Any:
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Model) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise NoBatchPathError(f"{module.__name__} has {len(found)} models")
    return found[0]


_PATHS: Final[Mapping[str, Callable[[BatchOrder, Arrays, Any], Arrays]]] = {
    "onnx": _onnx,
    "sklearn": _sklearn,
    "xgboost": _xgboost,
    "lightgbm": _lightgbm,
    "python": _python,
}
