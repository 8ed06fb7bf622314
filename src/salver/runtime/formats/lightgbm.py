"""LightGBM's models in its own text form: see `salver.runtime.formats.boosters`."""

from __future__ import annotations

import logging
from typing import Any, Final

import numpy as np

from salver.protocol.errors import SalverError
from salver.runtime.formats.boosters import Answer, BoosterFormat, BoosterModel, booster_signature
from salver.runtime.model import Arrays

try:
    import lightgbm
except ImportError as missing:
    raise SalverError("UNSUPPORTED", "LightGBM's models need lightgbm", "pip install 'salver[lightgbm]'") from missing

__all__ = ["LightgbmFormat"]

_END: Final = "\nend of trees"
_UNNAMED: Final = "Column_"
"""What LightGBM calls the columns of an array."""

# What the library has to say goes to nobody's standard output.
_log: Final = logging.getLogger("salver.lightgbm")
_log.addHandler(logging.NullHandler())
lightgbm.register_logger(_log)


class LightgbmFormat(BoosterFormat):
    """`model.lgb` or `model.txt`; numbers are FP64."""

    name = "lightgbm"
    library = "LightGBM"

    def read(self, content: bytes, threads: int) -> LightgbmModel:
        """See `BoosterFormat`."""
        text = content.decode()
        if _END not in text:
            raise ValueError("it ends before its trees do")
        try:
            return LightgbmModel(lightgbm.Booster(model_str=text), threads)
        except lightgbm.basic.LightGBMError as error:
            raise ValueError(str(error)) from error


class LightgbmModel(BoosterModel):
    """One booster; it answers with all its trees."""

    def __init__(self, booster: lightgbm.Booster, threads: int) -> None:
        self._booster: lightgbm.Booster | None = booster
        self._threads = threads
        self._answer = _answer_of(booster)
        names = booster.feature_name()
        if all(name.startswith(_UNNAMED) for name in names):
            names = []
        self.signature = booster_signature("FP64", booster.num_feature(), names, self._answer)

    def run(self, inputs: Arrays) -> Arrays:
        """See `BoosterModel`."""
        assert self._booster is not None
        found: Any = self._booster.predict(inputs["X"], num_threads=self._threads)
        if self._answer.kind == "value":
            return {"value": found}
        if self._answer.kind == "binary":
            found = np.vstack((1.0 - found, found)).T
        return {"label": found.argmax(axis=1), "probabilities": found}

    def unload(self) -> None:
        """See `BoosterModel`."""
        self._booster = None


def _answer_of(booster: lightgbm.Booster) -> Answer:
    """What the objective makes of the trees' sums."""
    objective = _objective(booster)
    each = booster.num_model_per_iteration()
    if objective in ("multiclass", "multiclassova"):
        return Answer("classes", each)
    if objective == "binary":
        return Answer("binary", 2)
    return Answer("value", each if each > 1 else 0)


def _objective(booster: lightgbm.Booster) -> str:
    # Of a booster that was read from text LightGBM tells the objective in the text only.
    for line in booster.model_to_string(num_iteration=1).splitlines():
        if line.startswith("objective="):
            return line.removeprefix("objective=").split(" ")[0]
        if line.startswith("Tree="):
            break
    return ""
