"""`python -m salver.evaluation.batch_process PARENT`: the child in which a library answers a batch by itself.

What it loads may be users' code. It dies with its parent.
"""

from __future__ import annotations

import resource
import sys
import traceback
from typing import Any, Final

import msgspec
import numpy as np

from salver.evaluation.batch_paths import BatchOrder, NoBatchPathError, batch_outputs
from salver.evaluation.children import SentArray, become_subreaper, end_descendants, take_order
from salver.runtime.environment import allow_users_code, die_with_parent

__all__ = ["BatchAnswer", "BatchRows", "main"]

_MEMORY_BYTES: Final = 8 * 2**30
_LONGEST_PROBLEM: Final = 500


class BatchRows(msgspec.Struct, frozen=True):
    """The order: an artifact, and the rows in the forms that a library may want."""

    order: BatchOrder
    inputs: tuple[SentArray, ...]
    columns: dict[str, list[Any]] = {}
    """For a script."""
    matrix: SentArray | None = None


class BatchAnswer(msgspec.Struct, frozen=True):
    """The outputs; or why there are none."""

    outputs: tuple[SentArray, ...] = ()
    problem: str = ""
    unsupported: str = ""


def main() -> None:
    """Answer one order."""
    die_with_parent(int(sys.argv[1]))
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    allow_users_code()
    rows, answers = take_order(BatchRows)
    become_subreaper()
    with answers:
        answers.write(msgspec.msgpack.encode(_answer(rows)))
    end_descendants()


def _answer(rows: BatchRows) -> BatchAnswer:
    try:
        inputs = {tensor.name: tensor.numpy() for tensor in rows.inputs}
        matrix = None if rows.matrix is None else rows.matrix.numpy()
        found = batch_outputs(rows.order, inputs, rows.columns, matrix)
        return BatchAnswer(tuple(SentArray.of(name, _plain(array)) for name, array in found.items()))
    except NoBatchPathError as error:
        return BatchAnswer(unsupported=str(error)[:_LONGEST_PROBLEM])
    except BaseException as error:  # noqa: BLE001 - whatever it raises is told
        return BatchAnswer(problem="".join(traceback.format_exception_only(error)).strip()[:_LONGEST_PROBLEM])


def _plain(array: Any) -> Any:
    found = np.asarray(array)
    return found.astype(object) if found.dtype.kind in "US" else found


if __name__ == "__main__":
    main()
