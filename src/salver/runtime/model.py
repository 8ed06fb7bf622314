"""The one Python interface: what a user writes to serve code of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from salver.protocol.signature import TensorSpec

__all__ = ["Arrays", "BadInputError", "Model"]

Arrays = dict[str, np.ndarray[Any, Any]]


class BadInputError(ValueError):
    """Raised by a model's code for an input it cannot use: its caller is told the text, with HTTP status 400.

    The text crosses to the client as it stands, cut at 500 characters, so write it for them. A
    batch that raises it is run again in halves, as for any exception, until the request is alone.
    """


class Model:
    """A model in Python: subclass it, write `predict`, and name the class as the `entry`.

    It lives in a worker process of its own and is used by one thread: `load` once, then
    `preprocess`, `predict` and `postprocess` for each batch. An exception fails the requests
    that cause it and nothing else; `BadInputError` tells their callers why. A model
    answers with `predict`, with `stream`, or with both.

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

    def load(self, path: Path) -> None:
        """Read what the model needs from `path`, the directory of its artifact."""

    def preprocess(self, inputs: Arrays) -> Arrays:
        """Turn a batch of inputs into what `predict` takes."""
        return inputs

    def predict(self, inputs: Arrays) -> Arrays:  # noqa: ARG002 - for those who override it
        """Answer a batch. Without it the chunks of `stream` are joined where one answer is wanted.

        `inputs` holds read-only arrays by input name. In a batched signature the first
        dimension of each is the number of rows, which differs from call to call; every output
        must have as many, in the same order, with exactly the declared datatype.
        """
        raise TypeError(f"{type(self).__name__} has no predict()")

    def stream(self, inputs: Arrays) -> Iterator[Arrays]:  # noqa: ARG002 - likewise
        """Answer one request bit by bit; `salver-model.toml` must say `streams = true`.

        A generator: each chunk it yields is sent at once and holds every output, for as many rows as
        `inputs` has. Between two chunks other requests have their turn, and where the client does not
        read the generator is left waiting. When nobody wants the rest it is closed, so `finally` runs.
        """
        raise TypeError(f"{type(self).__name__} has no stream()")

    def step(self, inputs: Arrays, states: list[Any]) -> Arrays:  # noqa: ARG002 - as those that override it
        """Answer a batch of steps, each of another session; `salver-model.toml` must say `kind = "sequence"`.

        `states` has one element for each row: None at the first step of a session, later what stood
        there after the step before. Put the new state into the list, and leave the object that was
        there as it is: when a step raises, the batch is run again in parts, with the states as they were.
        """
        raise TypeError(f"{type(self).__name__} has no step()")

    def postprocess(self, outputs: Arrays) -> Arrays:
        """Turn what `predict` gave into the declared outputs."""
        return outputs

    def save(self, path: Path) -> None:
        """Write into the directory `path` what `load` reads. Optional; the base class refuses."""
        raise TypeError(f"{type(self).__name__} does not say how it is saved in {path}; override save()")
