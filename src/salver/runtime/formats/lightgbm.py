"""LightGBM's models in its own text form.

A data format: nothing in the file is executed as code. The library ends the process on most
damaged files, so a child process reads a file before it is registered, and what is loaded later are
the very bytes that were read then. A NaN is a value that is missing, as in LightGBM itself.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

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
    import lightgbm
except ImportError as missing:
    raise SalverError("UNSUPPORTED", "LightGBM's models need lightgbm", "pip install 'salver[lightgbm]'") from missing

__all__ = ["LightgbmFormat"]

_LONGEST_REASON: Final = 200
_END: Final = "\nend of trees"
_UNNAMED: Final = "Column_"
"""What LightGBM calls the columns of an array."""

# What the library has to say goes to nobody's standard output.
_log: Final = logging.getLogger("salver.lightgbm")
_log.addHandler(logging.NullHandler())
lightgbm.register_logger(_log)


class LightgbmFormat:
    """One input `X` FP64 [-1, n]; classifiers answer `label` and `probabilities`, all others `value`."""

    name = "lightgbm"

    def main_file(self, directory: Path) -> Path | None:
        """`model.lgb` or `model.txt`, or the only file that looks like one."""
        suffixes = FORMATS[self.name].suffixes
        files = [each for each in sorted(directory.iterdir()) if each.suffix in suffixes and each.is_file()]
        found = [each for each in files if looks_like(self.name, each)]
        named = [each for each in found if each.stem == "model"]
        return found[0] if len(found) == 1 else named[0] if len(named) == 1 else None

    def code_in(self, source: Source) -> str:
        """Nothing: trees are numbers."""
        del source
        return ""

    def signature(self, source: Source, declaration: Declaration) -> Signature:
        """From the booster, which answers one row of missing values: a damaged tree shows itself here."""
        model = self.load(source, declaration, RuntimeOptions())
        model.run({"X": np.full((1, model.signature.inputs[0].shape[1]), np.nan)})
        return narrowed(model.signature, declaration)

    def load(self, source: Source, declaration: Declaration, options: RuntimeOptions) -> LightgbmModel:
        """A booster of its own for each replica."""
        del declaration
        content = source.content
        if content is None:
            require_content(self.name, source.main)
            content = source.main.read_bytes()
        try:
            text = content.decode()
            _require_end(text)
            return LightgbmModel(lightgbm.Booster(model_str=text), max(options.threads, 1))
        except (lightgbm.basic.LightGBMError, UnicodeDecodeError, ValueError) as error:
            line = str(error).strip().partition("\n")[0][:_LONGEST_REASON]
            raise SalverError("INVALID_ARTIFACT", f"LightGBM cannot read {source.main.name!r}: {line}") from error


class LightgbmModel:
    """One booster; it releases the GIL while it computes."""

    def __init__(self, booster: lightgbm.Booster, threads: int) -> None:
        self._booster: lightgbm.Booster | None = booster
        self._threads = threads
        self._kind, columns = _kind_of(booster)
        self.signature = _signature(booster, self._kind, columns)

    def run(self, inputs: Arrays) -> Arrays:
        """Answer a batch."""
        assert self._booster is not None
        found: Any = self._booster.predict(inputs["X"], num_threads=self._threads)
        if self._kind == "binary":
            found = np.vstack((1.0 - found, found)).T
        if self._kind == "value":
            return {"value": found}
        return {"label": found.argmax(axis=1), "probabilities": found}

    def unload(self) -> None:
        """Free the booster."""
        self._booster = None


def _require_end(text: str) -> None:
    if _END not in text:
        raise ValueError("it ends before its trees do")


def _kind_of(booster: lightgbm.Booster) -> tuple[str, int]:
    """What the objective makes of the trees' sums, and in how many columns."""
    objective = _objective(booster)
    each = booster.num_model_per_iteration()
    if objective in ("multiclass", "multiclassova"):
        return "classes", each
    if objective == "binary":
        return "binary", 2
    return "value", each if each > 1 else 0


def _objective(booster: lightgbm.Booster) -> str:
    # Of a booster that was read from text LightGBM tells the objective in the text only.
    for line in booster.model_to_string(num_iteration=1).splitlines():
        if line.startswith("objective="):
            return line.removeprefix("objective=").split(" ")[0]
        if line.startswith("Tree="):
            break
    return ""


def _signature(booster: lightgbm.Booster, kind: str, columns: int) -> Signature:
    width = booster.num_feature()
    names = tuple(booster.feature_name())
    if all(name.startswith(_UNNAMED) for name in names):
        names = ()
    inputs = (TensorSpec("X", "FP64", (-1, width), labels=names),)
    if kind == "value":
        return Signature(inputs, (TensorSpec("value", "FP64", (-1, columns) if columns else (-1,)),))
    outputs = TensorSpec("label", "INT64", (-1,)), TensorSpec("probabilities", "FP64", (-1, columns))
    return Signature(inputs, outputs)
