"""`python -m salver.evaluation.schema_process PARENT`: the child in which pandera holds rows against a schema.

A schema in YAML or JSON is data; one in Python is users' code. The one file that imports pandera.
"""

from __future__ import annotations

import runpy
import sys
import traceback
from pathlib import Path
from typing import Any, Final

import msgspec

from salver.evaluation.children import take_order
from salver.runtime.environment import die_with_parent

__all__ = ["Broken", "SchemaAnswer", "SchemaOrder", "main"]

_LONGEST_PROBLEM: Final = 500
_MOST_BROKEN: Final = 1000


class SchemaOrder(msgspec.Struct, frozen=True):
    """Rows, and the schema that they must keep."""

    schema: str
    columns: dict[str, list[Any]]
    dtypes: dict[str, str]


class Broken(msgspec.Struct, frozen=True):
    """One rule that rows break."""

    column: str
    rule: str
    rows: int
    example: str


class SchemaAnswer(msgspec.Struct, frozen=True):
    """What is broken; or why nobody could look."""

    broken: tuple[Broken, ...] = ()
    problem: str = ""
    missing: bool = False
    """Whether pandera is not installed."""


def main() -> None:
    """Check one table."""
    die_with_parent(int(sys.argv[1]))
    order, answers = take_order(SchemaOrder)
    with answers:
        answers.write(msgspec.msgpack.encode(_answer(order)))


def _answer(order: SchemaOrder) -> SchemaAnswer:
    try:
        import pandera.pandas as pa  # noqa: PLC0415 - an extra, and heavy
    except ImportError:
        return SchemaAnswer(missing=True)
    try:
        return SchemaAnswer(_broken(pa, order))
    except BaseException as error:  # noqa: BLE001 - whatever a schema raises is told
        return SchemaAnswer(problem="".join(traceback.format_exception_only(error)).strip()[:_LONGEST_PROBLEM])


def _broken(pa: Any, order: SchemaOrder) -> tuple[Broken, ...]:
    import pandas as pd  # noqa: PLC0415

    frame = pd.DataFrame({name: pd.Series(cells, dtype=order.dtypes[name]) for name, cells in order.columns.items()})
    schema = _schema(pa, Path(order.schema))
    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as found:
        cases = found.failure_cases
        # What is about the whole table, as that a column is not there, names none.
        places: dict[tuple[str, str], list[Any]] = {}
        for column, rule, case in zip(cases["column"], cases["check"], cases["failure_case"], strict=True):
            about = str(column) if isinstance(column, str) else "the table"
            places.setdefault((about, str(rule)), []).append(case)
        found_in = sorted(places.items())[:_MOST_BROKEN]
        return tuple(Broken(*place, len(some), str(some[0])[:80]) for place, some in found_in)
    return ()


def _schema(pa: Any, path: Path) -> Any:
    if path.suffix == ".py":
        sys.path.insert(0, str(path.parent))
        found = runpy.run_path(str(path), run_name="salver_schema")["SCHEMA"]
        return found.to_schema() if hasattr(found, "to_schema") else found
    if path.suffix == ".json":
        return pa.DataFrameSchema.from_json(path)
    return pa.DataFrameSchema.from_yaml(path)


if __name__ == "__main__":
    main()
