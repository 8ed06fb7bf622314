"""From columns to the inputs of a version.

One input with rows of numbers takes the feature columns in their order; several inputs take columns by
their names, or as section `[inputs]` of the suite says; text inputs take columns of text. Nothing is
guessed beyond that: a count that does not fit is an error that lists both sides.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from salver.evaluation.subject.rows import Array, Rows
from salver.evaluation.suites.suite import Suite
from salver.protocol.datatypes import DATATYPES
from salver.protocol.errors import SalverError
from salver.protocol.nearest import listed
from salver.protocol.signature import Signature, TensorSpec

__all__ = ["InputMapping", "map_inputs"]


class InputMapping:
    """Which columns make which input of one signature. Made by `map_inputs`."""

    def __init__(self, columns: dict[str, tuple[str, ...]], signature: Signature) -> None:
        self.columns = columns
        self._specs = {spec.name: spec for spec in signature.inputs}

    @property
    def features(self) -> tuple[str, ...]:
        """Every column that the version sees, each once."""
        return tuple(dict.fromkeys(name for names in self.columns.values() for name in names))

    def arrays(self, rows: Rows) -> dict[str, Array]:
        """The inputs for these rows, the rows along the first dimension.

        Raises WRONG_DATATYPE, naming the column, for values that the input cannot hold.
        """
        return {name: _tensor(rows, columns, self._specs[name]) for name, columns in self.columns.items()}


def map_inputs(signature: Signature, suite: Suite, rows: Rows) -> InputMapping:
    """Find the columns of every input; raises INVALID_SETTING where that is not possible."""
    for name in suite.inputs:
        if name not in {spec.name for spec in signature.inputs}:
            known = ", ".join(repr(spec.name) for spec in signature.inputs)
            raise SalverError("INVALID_SETTING", f"[inputs] names {name!r}", f"the version has {known}")
    required = [spec for spec in signature.inputs if not spec.optional or spec.name in suite.inputs]
    mapped = {spec.name: _columns_of(spec, suite, rows, alone=len(required) == 1) for spec in required}
    for names in mapped.values():
        for name in names:
            if name == suite.suite.target:
                raise SalverError(
                    "INVALID_SETTING", f"the target {name!r} is among the features", "the version must not see it"
                )
    return InputMapping(mapped, signature)


def _columns_of(spec: TensorSpec, suite: Suite, rows: Rows, *, alone: bool) -> tuple[str, ...]:
    named = suite.inputs.get(spec.name, suite.suite.features)
    for name in named:
        rows.column(name)
    if spec.name in suite.inputs:
        return named
    width = _width(spec)
    if not alone or (spec.name in rows.columns and width == 1 and not suite.suite.features):
        if spec.name not in rows.columns:
            raise SalverError(
                "INVALID_SETTING",
                f"the data has no column {spec.name[:80]!r} for the input of that name",
                f'{rows.known(spec.name)}; or say which make it: [inputs] {spec.name} = ["...", "..."]',
            )
        return (spec.name,)
    found: tuple[str, ...] = ()
    for found in _candidates(spec, suite, rows):
        if width in (-1, len(found)):
            return found
    raise SalverError(
        "INVALID_SETTING",
        f"input {spec.name!r} takes {width} features a row, and the data has {len(found)}: {listed(found)}",
        "name them in order: [suite] features = [...]",
    )


def _candidates(spec: TensorSpec, suite: Suite, rows: Rows) -> Iterable[tuple[str, ...]]:
    """The feature columns: those declared, else all that are not there for another purpose."""
    if suite.suite.features:
        yield suite.suite.features
        return
    slices = suite.slices
    sliced = {*slices.columns, *(where.column for where in slices.where)} if slices else set()
    wants_text = spec.datatype == "BYTES"
    suitable = [
        name
        for name, column in rows.columns.items()
        if name not in (suite.suite.target, suite.split.column) and (column.dtype.kind == "O") == wants_text
    ]
    yield tuple(name for name in suitable if name not in sliced)
    yield tuple(suitable)  # what is sliced by may be a feature too


def _width(spec: TensorSpec) -> int:
    """How many numbers a row of the input has; -1 for any."""
    tail = spec.shape[1:]
    return -1 if -1 in tail else int(np.prod(tail, dtype=np.int64))


def _tensor(rows: Rows, columns: tuple[str, ...], spec: TensorSpec) -> Array:
    parts = [_cast(rows.column(name), spec, name) for name in columns]
    stacked = np.stack(parts, axis=1) if parts else np.empty((len(rows), 0))
    tail = tuple(len(columns) if size == -1 else size for size in spec.shape[1:])
    try:
        return stacked.reshape(len(rows), *tail)
    except ValueError:
        raise SalverError(
            "INVALID_SETTING",
            f"input {spec.name!r} of shape {list(spec.shape)} cannot be made of {len(columns)} columns",
            f'name as many as it takes: [inputs] {spec.name} = ["...", "..."]',
        ) from None


def _cast(column: Array, spec: TensorSpec, name: str) -> Array:
    dtype = DATATYPES[spec.datatype].dtype
    if dtype.kind == "O":
        if column.dtype.kind != "O":
            raise _unfit(name, spec, "holds no text")
        filled = np.empty(len(column), dtype=object)
        filled[:] = ["" if value is None else value for value in column]
        return filled
    if column.dtype.kind not in "biuf" or spec.datatype == "BF16":
        raise _unfit(name, spec, "holds no numbers")
    if dtype.kind == "f":
        return column.astype(dtype)
    if column.dtype.kind == "f" and not np.isfinite(column).all():
        raise _unfit(name, spec, "has empty cells")
    with np.errstate(invalid="ignore"):
        cast = column.astype(dtype)
    if not np.array_equal(cast, column):
        raise _unfit(name, spec, "has values that do not fit")
    return cast


def _unfit(name: str, spec: TensorSpec, why: str) -> SalverError:
    return SalverError(
        "WRONG_DATATYPE", f"column {name[:80]!r} {why}, and input {spec.name!r} takes {spec.datatype}", "convert it"
    )
