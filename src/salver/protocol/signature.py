"""What a version takes and gives: tensor specifications, and the check of a request against them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.request import RequestedOutput
from salver.protocol.tensor import Tensor

__all__ = ["Signature", "SignatureCheck", "TensorSpec"]


class TensorSpec(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One input or output: -1 in `shape` is a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False
    labels: tuple[str, ...] = ()
    """Class names along the last dimension, for classification output; of an input, the names of its columns."""
    pad: float | None = None
    """Of an input: requests whose free dimensions differ may share a batch, the shorter filled up with this."""


class Signature(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The inputs and outputs of a version.

    A signature is *batched* when every tensor's first dimension is free: then requests are
    joined along it. Otherwise each request runs alone.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def batched(self) -> bool:
        """Whether requests may share a batch."""
        return all(spec.shape[:1] == (-1,) for spec in self.inputs + self.outputs)


class SignatureCheck:
    """The check of one signature, prepared once per loaded version because it runs per request."""

    __slots__ = ("_inputs", "_required", "batched", "outputs")

    def __init__(self, signature: Signature) -> None:
        self.batched = signature.batched
        self.outputs = {spec.name: spec for spec in signature.outputs}
        self._inputs = {spec.name: (spec, _fixed_tail(spec)) for spec in signature.inputs}
        self._required = [spec.name for spec in signature.inputs if not spec.optional]

    def rows(self, inputs: Mapping[str, Tensor]) -> int:
        """Return the number of rows of `inputs`, 1 for a signature without a batch dimension.

        Raises UNKNOWN_INPUT, MISSING_INPUT, WRONG_DATATYPE or WRONG_SHAPE, naming the input,
        what came and what the model takes.
        """
        rows = -1
        for name, tensor in inputs.items():
            known = self._inputs.get(name)
            if known is None:
                raise SalverError(
                    "UNKNOWN_INPUT", f"the model has no input {name[:80]!r}", f"its inputs are {_listed(self._inputs)}"
                )
            spec, tail = known
            shape = tensor.shape
            if tensor.datatype != spec.datatype:
                raise SalverError(
                    "WRONG_DATATYPE",
                    f"input {name!r} has datatype {tensor.datatype}; the model takes {spec.datatype}",
                    "convert the values before sending them",
                )
            if not (shape and shape[1:] == tail) and not _fits(shape, spec.shape):
                raise SalverError(
                    "WRONG_SHAPE",
                    f"input {name!r} has shape {list(shape)}; the model takes {list(spec.shape)}",
                    "-1 stands for any size",
                )
            if self.batched and rows != shape[0]:
                if rows >= 0:
                    raise SalverError(
                        "WRONG_SHAPE",
                        f"input {name!r} has {shape[0]} rows where another input has {rows}",
                        "give every input the same first dimension",
                    )
                rows = shape[0]
        if len(inputs) < len(self._inputs):
            for name in self._required:
                if name not in inputs:
                    raise SalverError("MISSING_INPUT", f"input {name!r} is missing", f"send {_listed(self._required)}")
        if not self.batched:
            return 1
        if rows < 1:
            raise SalverError("WRONG_SHAPE", "the request has 0 rows", "send at least one")
        return rows

    def require_outputs(self, requested: Iterable[RequestedOutput]) -> None:
        """Raise UNKNOWN_OUTPUT for an output the version does not have."""
        for output in requested:
            if output.name not in self.outputs:
                raise SalverError(
                    "UNKNOWN_OUTPUT",
                    f"the model has no output {output.name[:80]!r}",
                    f"its outputs are {_listed(self.outputs)}",
                )


def _fixed_tail(spec: TensorSpec) -> tuple[int, ...] | None:
    """The dimensions behind a free first one when all are fixed: the usual case, one comparison."""
    tail = spec.shape[1:]
    return tail if spec.shape[:1] == (-1,) and -1 not in tail else None


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(want in (-1, have) for have, want in zip(shape, wanted, strict=True))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
