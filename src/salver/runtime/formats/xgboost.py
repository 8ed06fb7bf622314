"""XGBoost's models in its own JSON or UBJSON, trees and linear boosters: see `salver.runtime.formats.boosters`."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import numpy as np

from salver.protocol.errors import SalverError
from salver.runtime.formats.boosters import Answer, BoosterFormat, BoosterModel, booster_signature
from salver.runtime.model import Arrays

try:
    import xgboost
    from scipy.special import softmax
except ImportError as missing:
    raise SalverError("UNSUPPORTED", "XGBoost's models need xgboost", "pip install 'salver[xgboost]'") from missing

__all__ = ["XgboostFormat"]

_PLACE: Final = re.compile(r"^(?:\[[\d:]+\] )?\S+:\d+: ")
"""Where in XGBoost's own source something went wrong."""
_HALF: Final = 0.5


class XgboostFormat(BoosterFormat):
    """`model.ubj`, `model.xgb` or `model.json`; numbers are FP32."""

    name = "xgboost"
    library = "XGBoost"

    def read(self, content: bytes, threads: int) -> XgboostModel:
        """See `BoosterFormat`."""
        try:
            return XgboostModel(xgboost.Booster({"nthread": threads}, model_file=bytearray(content)))
        except (xgboost.core.XGBoostError, KeyError) as error:
            raise ValueError(_PLACE.sub("", str(error).strip())) from error


class XgboostModel(BoosterModel):
    """One booster, of trees or linear."""

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
        width = booster.num_features()
        if not width:
            raise ValueError("it takes no features")
        self.signature = booster_signature("FP32", width, booster.feature_names or (), self._answer)

    def run(self, inputs: Arrays) -> Arrays:
        """See `BoosterModel`."""
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
        """See `BoosterModel`."""
        self._booster = None


def _answer_of(config: Any) -> Answer:
    objective = config["objective"]["name"]
    sizes = config["learner_model_param"]
    classes, targets = int(sizes["num_class"]), int(sizes.get("num_target", 1))
    if objective == "multi:softprob":
        return Answer("classes", classes)
    if objective == "multi:softmax":
        return Answer("margins", classes)
    if objective == "binary:hinge" and targets == 1:
        return Answer("label")
    if objective == "binary:logistic" and targets == 1:
        return Answer("binary", 2)
    return Answer("value", max(targets, classes) if max(targets, classes) > 1 else 0)
