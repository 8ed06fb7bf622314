"""`python -m salver.evaluation.service.batch_process`: the child in which a library answers a batch by itself.

What it loads may be users' code.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from salver.evaluation.service.batch_paths import BatchOrder, NoBatchPathError, batch_outputs
from salver.evaluation.subject.sent_array import SentArray
from salver.runtime.asking import answer_once
from salver.runtime.child import LONGEST_PROBLEM
from salver.runtime.environment import allow_users_code

__all__ = ["BatchAnswer", "BatchRows", "main"]


class BatchRows(msgspec.Struct, frozen=True):
    """The order: an artifact, and the rows in the forms that a library may want."""

    order: BatchOrder
    inputs: tuple[SentArray, ...]
    columns: dict[str, list[Any]] = {}
    """For a script."""
    matrix: SentArray | None = None


class BatchAnswer(msgspec.Struct, frozen=True):
    """The outputs; or why there is no batch to compare with."""

    outputs: tuple[SentArray, ...] = ()
    unsupported: str = ""


def main() -> None:
    """Answer one order."""
    allow_users_code()
    answer_once(BatchRows, _answer)


def _answer(rows: BatchRows) -> BatchAnswer:
    inputs = {tensor.name: tensor.numpy() for tensor in rows.inputs}
    matrix = None if rows.matrix is None else rows.matrix.numpy()
    try:
        found = batch_outputs(rows.order, inputs, rows.columns, matrix)
    except NoBatchPathError as error:
        return BatchAnswer(unsupported=str(error)[:LONGEST_PROBLEM])
    return BatchAnswer(tuple(SentArray.of(name, _plain(array)) for name, array in found.items()))


def _plain(array: Any) -> Any:
    found = np.asarray(array)
    return found.astype(object) if found.dtype.kind in "US" else found


if __name__ == "__main__":
    main()
