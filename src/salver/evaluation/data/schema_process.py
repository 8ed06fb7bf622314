"""`python -m salver.evaluation.data.schema_process`: the child in which pandera holds rows against a schema.

A schema in YAML or JSON is data; one in Python is users' code. The one file that imports pandera.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from salver.protocol.errors import SalverError
from salver.runtime.asking import answer_once

__all__ = ["Broken", "SchemaOrder", "main"]

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


def main() -> None:
    """Check one table."""
    answer_once(SchemaOrder, _answer)


def _answer(order: SchemaOrder) -> tuple[Broken, ...]:
    try:
        import pandera.pandas as pa  # noqa: PLC0415 - an extra, and heavy
    except ImportError:
        raise SalverError("UNSUPPORTED", "schemas need pandera", "pip install 'salver[pandera]'") from None
    return _broken(pa, order)


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
