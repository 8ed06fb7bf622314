"""The one Python interface: what a user writes to serve code of their own."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from salver.protocol.signature import TensorSpec

__all__ = ["Arrays", "Model"]

Arrays = dict[str, np.ndarray[Any, Any]]


class Model(abc.ABC):
    """A model in Python: subclass it, write `predict`, and name the class as the `entry`.

    It lives in a worker process of its own and is used by one thread: `load` once, then
    `preprocess`, `predict` and `postprocess` for each batch. An exception fails the requests
    that cause it and nothing else.

    Examples:
        >>> class Doubler(Model):
        ...     inputs = (TensorSpec("x", "FP32", (-1, 2)),)
        ...     outputs = (TensorSpec("y", "FP32", (-1, 2)),)
        ...
        ...     def predict(self, inputs):
        ...         return {"y": inputs["x"] * 2}
        >>> Doubler().predict({"x": np.ones((3, 2), np.float32)})["y"].shape
        (3, 2)
    """

    inputs: Sequence[TensorSpec] = ()
    """The signature, where no `salver-model.toml` gives it."""
    outputs: Sequence[TensorSpec] = ()

    def load(self, path: Path) -> None:  # noqa: B027 - optional to override
        """Read what the model needs from `path`, the directory of its artifact."""

    def preprocess(self, inputs: Arrays) -> Arrays:
        """Turn a batch of inputs into what `predict` takes."""
        return inputs

    @abc.abstractmethod
    def predict(self, inputs: Arrays) -> Arrays:
        """Answer a batch.

        `inputs` holds read-only arrays by input name. In a batched signature the first
        dimension of each is the number of rows, which differs from call to call; every output
        must have as many, in the same order, with exactly the declared datatype.
        """

    def postprocess(self, outputs: Arrays) -> Arrays:
        """Turn what `predict` gave into the declared outputs."""
        return outputs

    def save(self, path: Path) -> None:
        """Write into the directory `path` what `load` reads. Optional; the base class refuses."""
        raise TypeError(f"{type(self).__name__} does not say how it is saved in {path}; override save()")
