"""What the formats of boosters share: one file in the library's own form, rows of numbers in, labels or values out.

Data formats: nothing in the file is executed as code. The libraries end the process on damaged files, so a child
process reads a file before it is registered, and what is loaded later are the very bytes that were read then. A NaN
is a value that is missing, as in the libraries themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import RuntimeOptions
from salver.runtime.declaration import Declaration
from salver.runtime.formats import Loaded, Source
from salver.runtime.model import Arrays
from salver.runtime.narrowing import narrowed
from salver.runtime.recognition import may_be, require_content

__all__ = ["Answer", "BoosterFormat", "BoosterModel", "booster_signature"]

_LONGEST_REASON: Final = 200


class Answer(NamedTuple):
    """What a booster answers, and in how many columns; 0 where there is one number for each row."""

    kind: Literal["value", "label", "binary", "classes", "margins"]
    columns: int = 0


class BoosterModel(Loaded, ABC):
    """One booster; it releases the GIL while it computes."""

    signature: Signature

    @abstractmethod
    def run(self, inputs: Arrays) -> Arrays:
        """Answer a batch."""

    @abstractmethod
    def unload(self) -> None:
        """Free the booster."""


class BoosterFormat(ABC):
    """One input `X` [-1, n]; classifiers answer `label` and `probabilities`, all others `value`."""

    name: str
    library: str
    """What people call it."""

    @abstractmethod
    def read(self, content: bytes, threads: int) -> BoosterModel:
        """The booster that a file holds; raises ValueError, with why, for one that cannot be read."""

    def main_file(self, directory: Path) -> Path | None:
        """The only file that may be one, or the only one of them called `model`."""
        found = [each for each in sorted(directory.iterdir()) if may_be(self.name, each)]
        named = [each for each in found if each.stem == "model"]
        return found[0] if len(found) == 1 else named[0] if len(named) == 1 else None

    def code_in(self, source: Source) -> str:
        """Nothing: trees are numbers."""
        del source
        return ""

    def signature(self, source: Source, declaration: Declaration) -> Signature:
        """From the booster, which answers one row of missing values: a damaged tree shows itself here."""
        model = self.load(source, declaration, RuntimeOptions())
        rows = model.signature.inputs[0]
        model.run({"X": np.full((1, rows.shape[1]), np.nan, np.float32 if rows.datatype == "FP32" else np.float64)})
        return narrowed(model.signature, declaration)

    def load(self, source: Source, declaration: Declaration, options: RuntimeOptions) -> BoosterModel:
        """A booster of its own for each replica."""
        del declaration
        content = source.content
        if content is None:
            require_content(self.name, source.main)
            content = source.main.read_bytes()
        try:
            return self.read(content, max(options.threads, 1))
        except ValueError as error:
            line = str(error).strip().partition("\n")[0][:_LONGEST_REASON]
            raise SalverError("INVALID_ARTIFACT", f"{self.library} cannot read {source.main.name!r}: {line}") from error


def booster_signature(datatype: str, width: int, names: Sequence[str], answer: Answer) -> Signature:
    """The signature of a booster of `width` features, which have these names if any."""
    outputs: tuple[TensorSpec, ...]
    if answer.kind == "value":
        outputs = (TensorSpec("value", datatype, (-1, answer.columns) if answer.columns else (-1,)),)
    else:
        outputs = (TensorSpec("label", "INT64", (-1,)),)
        if answer.columns:
            outputs += (TensorSpec("probabilities", datatype, (-1, answer.columns)),)
    return Signature((TensorSpec("X", datatype, (-1, width), labels=tuple(names)),), outputs)
