"""Batches: joining waiting requests into arrays, and checking what a model made of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from salver.protocol.datatypes import DATATYPES, datatype_of
from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.protocol.signature import Signature
from salver.protocol.tensor import Tensor, bytes_element
from salver.runtime.blame import place_of
from salver.runtime.model import Arrays, BadInputError

__all__ = ["Batch", "Entry", "check_outputs", "join_inputs", "problem_of", "refusal_of"]

_LONGEST_PROBLEM: Final = 2000
_LONGEST_REFUSAL: Final = 500
_NO_PADS: Final[Mapping[str, float]] = {}


class Entry(msgspec.Struct, eq=False):
    """One request waiting for a model or running on it.

    The caller awaits `answer`; once that is done - answered, expired, or the caller has gone -
    nothing may start on the request's behalf.
    """

    request: Request
    answer: asyncio.Future[Response]
    enqueued_s: float
    cost: int
    """What it counts in a batch: its rows, or what the version says that requests cost."""
    class_key: object = None
    """Equal for requests that can be joined in one batch."""
    level: int = 0
    """Its priority level, 0 the most urgent."""
    due_s: float = float("inf")
    """When it should be answered: its deadline, or the deployment's objective if that is earlier."""
    kills: int = 0
    warnings: tuple[str, ...] = ()

    def fail(self, error: SalverError) -> bool:
        """Answer with `error`; False if the caller had been answered or had gone."""
        if self.answer.done():
            return False
        self.answer.set_exception(error)
        return True


class Batch:
    """Requests that run together: one version, one class, `rows` rows in order, `size` on the service curve.

    They left the queue at `cut_s`, and their joined inputs went to a replica at `started_s`, which
    had been free since `free_s`. `heard_s` is when last a part of a large answer came from there.
    """

    __slots__ = ("cut_s", "entries", "free_s", "heard_s", "inputs", "rows", "size", "started_s")

    def __init__(
        self, entries: list[Entry], inputs: Arrays, rows: int, size: int, free_s: float, cut_s: float, started_s: float
    ) -> None:
        self.entries = entries
        self.inputs = inputs
        self.rows = rows
        self.size = size
        self.free_s = free_s
        self.cut_s = cut_s
        self.started_s = self.heard_s = started_s


def join_inputs(entries: Sequence[Entry], rows: int | None, pads: Mapping[str, float] = _NO_PADS) -> Arrays:
    """The inputs of `entries` as read-only arrays, joined along the first dimension to `rows` rows.

    All entries have the same inputs and, but for those of `pads`, the same shape behind the batch
    dimension; those are filled up to the longest, behind, with the value in `pads`. Without a batch
    dimension `rows` is None, and there is one entry.
    """
    arrays: Arrays = {}
    for name, tensor in entries[0].request.inputs.items():
        if name in pads and rows is not None:
            arrays[name] = _padded([entry.request.inputs[name] for entry in entries], rows, pads[name])
            continue
        shape = tensor.shape if rows is None else (rows, *tensor.shape[1:])
        if tensor.datatype == "BYTES":
            elements = [entry.request.inputs[name].numpy().reshape(-1) for entry in entries]
            arrays[name] = np.concatenate(elements).reshape(shape)
        else:
            # Joining also copies lone views of a request's body, which need not be aligned.
            data = b"".join([entry.request.inputs[name].data for entry in entries])
            arrays[name] = np.frombuffer(data, dtype=DATATYPES[tensor.datatype].dtype).reshape(shape)
    return arrays


def _padded(tensors: list[Tensor], rows: int, value: float) -> np.ndarray[Any, Any]:
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    joined = np.full((rows, *shape), value, dtype=DATATYPES[tensors[0].datatype].dtype)
    start = 0
    for tensor in tensors:
        stop = start + tensor.shape[0]
        joined[(slice(start, stop), *map(slice, tensor.shape[1:]))] = tensor.numpy()
        start = stop
    joined.flags.writeable = False
    return joined


def check_outputs(outputs: Any, signature: Signature, rows: int) -> Arrays:
    """Return the declared outputs, or raise BAD_MODEL_OUTPUT naming what contradicts the signature.

    A wrong number of rows cannot be attributed to one request, so it fails the whole batch.
    Text becomes UTF-8: BYTES come out as object arrays of bytes.
    """
    if not isinstance(outputs, dict):
        raise SalverError("BAD_MODEL_OUTPUT", f"the model answered a {type(outputs).__name__}, not arrays by name")
    checked: Arrays = {}
    batched = signature.batched
    for spec in signature.outputs:
        array = outputs.get(spec.name)
        if not isinstance(array, np.ndarray):
            raise SalverError("BAD_MODEL_OUTPUT", f"output {spec.name!r} is a {type(array).__name__}, not an array")
        if array.dtype != DATATYPES[spec.datatype].dtype and datatype_of(array) != spec.datatype:
            raise SalverError("BAD_MODEL_OUTPUT", f"output {spec.name!r} is {array.dtype}, declared {spec.datatype}")
        wanted = (rows, *spec.shape[1:]) if batched else spec.shape
        if array.ndim != len(wanted) or any(
            want not in (-1, have) for have, want in zip(array.shape, wanted, strict=True)
        ):
            raise SalverError(
                "BAD_MODEL_OUTPUT", f"output {spec.name!r} has shape {list(array.shape)}, expected {list(wanted)}"
            )
        checked[spec.name] = _as_bytes(array, spec.name) if spec.datatype == "BYTES" else array
    return checked


def _as_bytes(array: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    elements = np.empty(array.size, dtype=object)
    try:
        elements[:] = [bytes_element(item) for item in array.reshape(-1).tolist()]
    except (TypeError, ValueError) as error:
        raise SalverError("BAD_MODEL_OUTPUT", f"output {name!r} holds no text or bytes: {error}") from None
    return elements.reshape(array.shape)


def problem_of(error: BaseException) -> str:
    """What an exception of a model says, for the log: bounded, and safe whatever its class does.

    Behind it stands where in the artifact's own code it was raised, if it was.

    >>> problem_of(KeyError("k"))
    "KeyError: 'k'"
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - the class is the model's own
        text = "(it does not say)"
    place = place_of(error)
    behind = f" ({place})" if place else ""
    says = f"{type(error).__name__}: {text}"[: _LONGEST_PROBLEM - len(behind)] + behind
    return says.encode(errors="backslashreplace").decode()


def refusal_of(error: BaseException) -> str:
    """What a model says to the client whose input it cannot use: bounded and printable; "" for other exceptions.

    >>> refusal_of(BadInputError("row 3 is no UTF-8")), refusal_of(KeyError("k"))
    ('row 3 is no UTF-8', '')
    """
    if not isinstance(error, BadInputError):
        return ""
    try:
        text = str(error)[:_LONGEST_REFUSAL]
    except Exception:  # noqa: BLE001 - the class may be the model's own
        text = ""
    return "".join(letter if letter.isprintable() else " " for letter in text) or "the model cannot use this input"
