"""XGBoost's models in its own JSON or UBJSON: gradient-boosted trees and linear boosters.

A data format: nothing in the file is executed as code. The library ends the process on some
damaged files, so a child process reads a file before it is registered, and what is loaded later are
the very bytes that were read then. A NaN is a value that is missing, as in XGBoost itself.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from salver.protocol.errors import SalverError
from salver.protocol.formats import FORMATS
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import RuntimeOptions
from salver.runtime.declaration import Declaration
from salver.runtime.formats import Source
from salver.runtime.model import Arrays
from salver.runtime.narrowing import narrowed
from salver.runtime.recognition import looks_like, require_content

try:
    import xgboost
    from scipy.special import softmax
except ImportError as missing:
    raise SalverError("UNSUPPORTED", "XGBoost's models need xgboost", "pip install 'salver[xgboost]'") from missing

__all__ = ["XgboostFormat"]

_PLACE: Final = re.compile(r"^(?:\[[\d:]+\] )?\S+:\d+: ")
"""Where in XGBoost's own source something went wrong."""
_LONGEST_REASON: Final = 200
_HALF: Final = 0.5


class _Answer(NamedTuple):
    """What a booster answers: the kind ("value", "label", "binary", "classes", "margins") and how many columns."""

    kind: str
    columns: int = 0


class XgboostFormat:
    """One input `X` FP32 [-1, n]; classifiers answer `label` and `probabilities`, all others `value`."""

    name = "xgboost"

    def main_file(self, directory: Path) -> Path | None:
        """`model.ubj`, `model.xgb` or `model.json`, or the only file that looks like one."""
        suffixes = FORMATS[self.name].suffixes
        files = [each for each in sorted(directory.iterdir()) if each.suffix in suffixes and each.is_file()]
        found = [each for each in files if looks_like(self.name, each)] if len(files) > 1 else files
        named = [each for each in found if each.stem == "model"]
        return found[0] if len(found) == 1 else named[0] if len(named) == 1 else None

    def code_in(self, source: Source) -> str:
        """Nothing: trees are numbers."""
        del source
        return ""

    def signature(self, source: Source, declaration: Declaration) -> Signature:
        """From the booster, which answers one row of missing values: a damaged tree shows itself here."""
        model = self.load(source, declaration, RuntimeOptions())
        found = model.signature
        model.run({"X": np.full((1, found.inputs[0].shape[1]), np.nan, np.float32)})
        return narrowed(found, declaration)

    def load(self, source: Source, declaration: Declaration, options: RuntimeOptions) -> XgboostModel:
        """A booster of its own for each replica."""
        del declaration
        content = source.content
        if content is None:
            require_content(self.name, source.main)
            content = source.main.read_bytes()
        try:
            booster = xgboost.Booster({"nthread": max(options.threads, 1)}, model_file=bytearray(content))
            return XgboostModel(booster)
        except (xgboost.core.XGBoostError, UnicodeDecodeError, ValueError, KeyError) as error:
            line = _PLACE.sub("", str(error).strip().partition("\n")[0])[:_LONGEST_REASON]
            raise SalverError("INVALID_ARTIFACT", f"XGBoost cannot read {source.main.name!r}: {line}") from error


class XgboostModel:
    """One booster; it releases the GIL while it computes."""

    def __init__(self, booster: xgboost.Booster) -> None:
        self._booster: xgboost.Booster | None = booster
        config = json.loads(booster.save_config())["learner"]
        self._answer = _answer_of(config)
        # XGBoost's own scikit-learn interface stops where training was best; its Booster uses every tree.
        by_estimator = booster.attr("scikit_learn") is not None
        best = booster.attr("best_iteration")
        self._linear = config["gradient_booster"]["name"] == "gblinear"
        stops = by_estimator and best is not None and not self._linear
        self._trees = (0, int(best) + 1) if stops and best is not None else (0, 0)
        self.signature = _signature(booster, self._answer)

    def run(self, inputs: Arrays) -> Arrays:
        """Answer a batch."""
        answer, found = self._answer, self._predicted(inputs["X"])
        if answer.kind == "margins":
            found = softmax(found, axis=1)
        if answer.kind in ("classes", "margins"):
            return {"label": found.argmax(axis=1), "probabilities": found}
        if answer.kind == "binary":
            return {"label": (found > _HALF).astype(np.int64), "probabilities": np.vstack((1.0 - found, found)).T}
        if answer.kind == "label":
            return {"label": found.astype(np.int64)}
        return {"value": found}

    def _predicted(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        assert self._booster is not None
        margins = self._answer.kind == "margins"
        if self._linear:
            table = xgboost.DMatrix(rows)
            return np.asarray(self._booster.predict(table, output_margin=margins, validate_features=False))
        return np.asarray(
            self._booster.inplace_predict(
                rows,
                iteration_range=self._trees,
                predict_type="margin" if margins else "value",
                missing=np.nan,
                validate_features=False,
            )
        )

    def unload(self) -> None:
        """Free the booster."""
        self._booster = None


def _answer_of(config: Any) -> _Answer:
    objective = config["objective"]["name"]
    sizes = config["learner_model_param"]
    classes, targets = int(sizes["num_class"]), int(sizes.get("num_target", 1))
    if objective == "multi:softprob":
        return _Answer("classes", classes)
    if objective == "multi:softmax":
        return _Answer("margins", classes)
    if objective == "binary:hinge" and targets == 1:
        return _Answer("label")
    if objective == "binary:logistic" and targets == 1:
        return _Answer("binary")
    return _Answer("value", max(targets, classes) if max(targets, classes) > 1 else 0)


def _signature(booster: xgboost.Booster, answer: _Answer) -> Signature:
    width = booster.num_features()
    if not width:
        raise ValueError("it takes no features")
    outputs: tuple[TensorSpec, ...]
    if answer.kind == "value":
        outputs = (TensorSpec("value", "FP32", (-1, answer.columns) if answer.columns else (-1,)),)
    else:
        outputs = (TensorSpec("label", "INT64", (-1,)),)
    if answer.kind not in ("value", "label"):
        outputs += (TensorSpec("probabilities", "FP32", (-1, answer.columns or 2)),)
    return Signature((TensorSpec("X", "FP32", (-1, width), labels=tuple(booster.feature_names or ())),), outputs)
