"""The state of sequences: kept beside the model from one step of a sequence to the next, where the model computes.

Which session a row belongs to travels as one more input of the batch, so that nothing between the
session's table (`salver.runtime.sessions`) and the model needs to know of it. Steps of different
sessions share a batch: graphs get their states joined along the batch axis, and what they answer is
cut apart again; classes get a list.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import numpy as np

from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import StateSpec, VersionManifest
from salver.protocol.tensor import Tensor
from salver.runtime.formats import Loaded
from salver.runtime.model import Arrays

__all__ = ["STEP_INPUT", "StateKeeper", "keep_states", "step_tensor", "without_states"]

STEP_INPUT: Final = "salver session step"
"""The input that says of each row which session's step it is; with its spaces no client's by chance."""
_STEP: Final = struct.Struct("<5q")
_SHAPE: Final = (1, 5)

Array = np.ndarray[Any, Any]
Advance = Callable[[Arrays, list[Any]], tuple[Arrays, list[Any]]]
"""Inputs and the states of their rows, None for a new one, to outputs and the states after the step."""


class _Stepping(Protocol):
    def step(self, inputs: Arrays, states: list[Any]) -> Arrays:
        """See `salver.Model`."""


def step_tensor(place: int, session: int, step: int, *, ends: bool, vacated: int) -> Tensor:
    """What one step tells the keeper: where the state is, whose, how many steps it has had, whether it may go.

    Step 0 begins with a new state, whatever is kept at its place. `vacated` is another place, where whatever
    is kept is no longer wanted, or -1.
    """
    return Tensor(STEP_INPUT, "INT64", _SHAPE, _STEP.pack(place, session, step, ends, vacated))


class StateKeeper:
    """A loaded version of which each row is a step of a sequence, with the states of all sequences.

    A step changes its state only when the whole batch has been computed, so one that raised can be
    run again. It is refused, by an exception, when the state is not the one after the step before: this
    process never had it, or a step has run of which nobody heard. Memory is bounded by the places that the
    table gives: it tells of every one that is vacated, and gives it to the next session if nobody heard. What a
    later session keeps at a place, a step of an earlier one neither reads nor replaces. Rows without `STEP_INPUT`
    belong to no session.
    """

    def __init__(self, loaded: Loaded, advance: Advance, *, batched: bool) -> None:
        self._loaded = loaded
        self._advance = advance
        self._batched = batched
        self._kept: dict[int, tuple[int, int, Any]] = {}
        """At each place whose state is there, the steps it has had, and the state."""

    def run(self, inputs: Arrays) -> Arrays:
        """Answer a batch."""
        orders = inputs.get(STEP_INPUT)
        if orders is None:
            rows = len(next(iter(inputs.values()))) if self._batched else 1
            return self._advance(inputs, [None] * rows)[0]
        inputs = {name: array for name, array in inputs.items() if name != STEP_INPUT}
        kept, states, steps = self._kept, [], orders.tolist()
        for place, session, step, _, vacated in steps:
            if vacated >= 0:
                kept.pop(vacated, None)
            states.append(self._state(place, session, step) if step else None)
        outputs, states = self._advance(inputs, states)
        for (place, session, step, ends, _), state in zip(steps, states, strict=True):
            if place in kept and kept[place][0] > session:
                continue
            if ends:
                kept.pop(place, None)
            else:
                kept[place] = (session, step + 1, state)
        return outputs

    def _state(self, place: int, session: int, step: int) -> Any:
        owner, done, state = self._kept.get(place, (None, 0, None))
        if owner != session:
            raise ValueError(f"the state of session {session} is not here")
        if done != step:
            raise ValueError(f"session {session} has done {done} steps, not {step}")
        return state

    def unload(self) -> None:
        """Free the states and the version."""
        self._kept.clear()
        self._loaded.unload()

    @property
    def states(self) -> int:
        """How many states are kept."""
        return len(self._kept)


def keep_states(
    loaded: Loaded,
    manifest: VersionManifest,
    before: Callable[[Arrays], Arrays] | None,
    after: Callable[[Arrays], Arrays] | None,
) -> StateKeeper:
    """A keeper of the states of `loaded`, which computes between the functions `before` and `after`.

    Raises INVALID_ARTIFACT where it has neither states nor steps.
    """
    if manifest.states:
        advance = _of_graph(loaded, manifest.states)
    elif hasattr(loaded, "step"):
        advance = _of_class(cast("_Stepping", loaded))
    else:
        raise SalverError("INVALID_ARTIFACT", f"{manifest.reference} is of kind sequence and keeps nothing")
    if before is not None or after is not None:
        advance = _between(advance, before, after)
    return StateKeeper(loaded, advance, batched=manifest.signature.batched)


def _between(
    advance: Advance, before: Callable[[Arrays], Arrays] | None, after: Callable[[Arrays], Arrays] | None
) -> Advance:
    def steps(inputs: Arrays, states: list[Any]) -> tuple[Arrays, list[Any]]:
        outputs, states = advance(before(inputs) if before else inputs, states)
        return (after(outputs) if after else outputs), states

    return steps


def _of_class(loaded: _Stepping) -> Advance:
    def steps(inputs: Arrays, states: list[Any]) -> tuple[Arrays, list[Any]]:
        rows = len(states)
        outputs = loaded.step(inputs, states)
        if len(states) != rows:
            raise ValueError(f"step() made {len(states)} states of {rows}")
        return outputs, states

    return steps


def _of_graph(loaded: Loaded, specs: tuple[StateSpec, ...]) -> Advance:
    tensors = [_StateTensor(spec) for spec in specs]

    def steps(inputs: Arrays, states: list[Any]) -> tuple[Arrays, list[Any]]:
        for at, tensor in enumerate(tensors):
            inputs[tensor.input] = tensor.joined([state and state[at] for state in states])
        outputs = loaded.run(inputs)
        parts = [tensor.apart(outputs.pop(tensor.output, None), len(states)) for tensor in tensors]
        return outputs, list(zip(*parts, strict=True))

    return steps


class _StateTensor:
    """One state of a graph."""

    __slots__ = ("_axis", "_dtype", "_initial", "_shape", "input", "output")

    def __init__(self, spec: StateSpec) -> None:
        self.input, self.output = spec.input, spec.output
        self._shape = spec.shape
        self._axis = spec.shape.index(-1) if -1 in spec.shape else None
        self._dtype = DATATYPES[spec.datatype].dtype
        one = [1 if size == -1 else size for size in spec.shape]
        self._initial: Array = np.full(one, spec.initial, dtype=self._dtype)
        self._initial.flags.writeable = False

    def joined(self, states: list[Array | None]) -> Array:
        """The states of a batch's rows as one array."""
        arrays = [self._initial if state is None else state for state in states]
        if len(arrays) == 1:
            return arrays[0]
        assert self._axis is not None  # where there is no batch dimension, requests run alone
        return np.concatenate(arrays, axis=self._axis)

    def apart(self, array: Array | None, rows: int) -> list[Array]:
        """The state of each row; raises ValueError for what the graph should not have answered."""
        wanted = tuple(rows if size == -1 else size for size in self._shape)
        if array is None or array.shape != wanted or array.dtype != self._dtype:
            found = "missing" if array is None else f"{array.dtype} {list(array.shape)}"
            raise ValueError(f"state {self.output!r} is {found}, declared {self._dtype} {list(wanted)}")
        if rows == 1:
            return [array]
        # Copies, or the state of one session would hold the memory of all that shared a batch with it.
        at: list[Any] = [slice(None)] * array.ndim
        parts = []
        for row in range(rows):
            assert self._axis is not None
            at[self._axis] = slice(row, row + 1)
            parts.append(array[tuple(at)].copy())
        return parts


def without_states(graph: Signature, states: tuple[StateSpec, ...]) -> Signature:
    """What clients see of a graph: its inputs and outputs but those of its states.

    Raises INVALID_ARTIFACT for a state that contradicts the graph.
    """
    if not states:
        return graph
    for state in states:
        for name, side, specs in ((state.input, "input", graph.inputs), (state.output, "output", graph.outputs)):
            spec = next((spec for spec in specs if spec.name == name), None)
            if spec is None:
                raise SalverError("INVALID_ARTIFACT", f"a state names {name!r}, and the graph has no such {side}")
            if spec.datatype != state.datatype or not _admits(spec, state):
                raise SalverError(
                    "INVALID_ARTIFACT",
                    f"state {name!r} is declared {state.datatype} {list(state.shape)}; "
                    f"the graph says {spec.datatype} {list(spec.shape)}",
                )
    seen = Signature(
        tuple(spec for spec in graph.inputs if spec.name not in {state.input for state in states}),
        tuple(spec for spec in graph.outputs if spec.name not in {state.output for state in states}),
    )
    for state in states:
        if seen.batched != (-1 in state.shape):
            raise SalverError(
                "INVALID_ARTIFACT",
                f"state {state.input!r} of shape {list(state.shape)} and the other tensors do not agree on a "
                "batch dimension",
                "write -1 where the batch stands in each, or export the graph without one",
            )
    return seen


def _admits(spec: TensorSpec, state: StateSpec) -> bool:
    """Whether a tensor of the graph can have a state's shape for every batch."""
    return len(spec.shape) == len(state.shape) and all(
        have in (-1, want) for have, want in zip(spec.shape, state.shape, strict=True)
    )
