"""From a filter to a condition of the database, as far as it can say the same.

A condition lets through at least what the filter does. Where it lets through exactly that, it says so; else the filter
has the last word, and the condition only saves reading what cannot pass.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Table, and_, not_, or_, select, true

from salver.protocol.stages import Stage
from salver.registry.filters import Filter, Joined, Not, Test
from salver.storage.registry_schema import aliases, holds, stages, tags
from salver.storage.schema import deployments, versions

__all__ = ["Condition", "condition_of"]

_COLUMNS: Final[dict[str, Any]] = {
    "format": versions.c.format,
    "kind": versions.c.kind,
    "digest": versions.c.digest,
    "registered_by": versions.c.created_by,
}
_SETS: Final[dict[str, tuple[Table, Any]]] = {
    "alias": (aliases, aliases.c.alias),
    "deployed": (deployments, deployments.c.endpoint),
}
_MOST_NAMES: Final = 500


class Condition(NamedTuple):
    """Of rows of `versions`."""

    where: ColumnElement[bool]
    rest: Filter | None
    """What the filter asks for beyond `where`; None where that says everything."""

    @property
    def exact(self) -> bool:
        """Whether `where` lets through nothing that the filter does not."""
        return self.rest is None


def condition_of(wanted: Filter, names: Sequence[str]) -> Condition:
    """The condition of a filter; `names` are all models, among which patterns are looked up."""
    if isinstance(wanted, Test):
        where = _test(wanted, names)
        return Condition(_at_least(wanted), wanted) if where is None else Condition(where, None)
    if isinstance(wanted, Not):
        inner = condition_of(wanted.part, names)
        return Condition(not_(inner.where), None) if inner.exact else Condition(true(), wanted)
    parts = [condition_of(part, names) for part in wanted.parts]
    if wanted.word == "and":
        rest = tuple(part.rest for part in parts if part.rest is not None)
        return Condition(and_(*(part.where for part in parts)), Joined("and", rest) if rest else None)
    exact = all(part.exact for part in parts)
    return Condition(or_(*(part.where for part in parts)), None if exact else wanted)


def _at_least(test: Test) -> ColumnElement[bool]:
    """Of what must be there at all, that it is there."""
    name = test.field.name
    if name.startswith("tags."):
        return _exists(tags, tags.c.name == name.removeprefix("tags."))
    return _exists(_SETS[name][0]) if name in _SETS else true()


def _test(test: Test, names: Sequence[str]) -> ColumnElement[bool] | None:
    """The condition that says the same as one comparison; None where there is none."""
    name = test.field.name
    if name == "name":
        return _of_name(test, names)
    if name in _COLUMNS:
        return _compared(_COLUMNS[name], test)
    if name == "version":
        return _of_number(test)
    if name == "registered":
        return _of_time(test)
    if name == "stage":
        return _of_stage(test)
    if name in ("held", "emergency") and test.operator == "=":
        flagged = _exists(holds) if name == "held" else _exists(stages, stages.c.emergency.is_(true()))
        return flagged if test.values[0] else not_(flagged)
    if name in _SETS:
        table, column = _SETS[name]
        return _of_rows(table, column, test)
    if name.startswith("tags."):
        return _of_rows(tags, tags.c.value, test, tags.c.name == name.removeprefix("tags."))
    return None


def _of_name(test: Test, names: Sequence[str]) -> ColumnElement[bool] | None:
    if test.operator != "~":
        return _compared(versions.c.model, test)
    found = [name for name in names if test.passes(name)]
    return versions.c.model.in_(found) if len(found) <= _MOST_NAMES else None


def _compared(column: Any, test: Test) -> ColumnElement[bool] | None:
    if any(not isinstance(value, str) for value in test.values):
        return None
    found: dict[str, Any] = {
        "exists": lambda: column.is_not(None),
        "in": lambda: column.in_(test.values),
        "=": lambda: column == test.values[0],
        "<": lambda: column < test.values[0],
        "<=": lambda: column <= test.values[0],
        ">": lambda: column > test.values[0],
        ">=": lambda: column >= test.values[0],
    }
    condition: ColumnElement[bool] = found[test.operator]()
    return condition


def _of_number(test: Test) -> ColumnElement[bool] | None:
    if test.operator == "~":
        return None
    keys = tuple(version.sort_key for version in test.values)
    return _compared(versions.c.sort_key, dataclasses.replace(test, values=keys))


def _of_time(test: Test) -> ColumnElement[bool] | None:
    """Only the beginning or the end: the filter is exact to the moment."""
    column = versions.c.created_s
    if test.operator == "exists":
        return true()
    if test.operator in ("<", ">="):
        first_s = test.values[0].first_s
        return column.__lt__(first_s) if test.operator == "<" else column.__ge__(first_s)
    return None


def _of_stage(test: Test) -> ColumnElement[bool] | None:
    if test.operator not in ("=", "in"):
        return None
    wanted = set(test.values)
    found = _exists(stages, stages.c.stage.in_(sorted(wanted)))
    # A version without a row is in development.
    return or_(found, not_(_exists(stages))) if Stage.DEVELOPMENT.value in wanted else found


def _of_rows(table: Table, column: Any, test: Test, *also: ColumnElement[bool]) -> ColumnElement[bool] | None:
    if test.operator == "exists":
        return _exists(table, *also)
    compared = None if isinstance(test.values[0], re.Pattern) else _compared(column, test)
    return None if compared is None else _exists(table, *also, compared)


def _exists(table: Table, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return (
        select(table.c.model)
        .where(table.c.model == versions.c.model, table.c.version == versions.c.version, *conditions)
        .exists()
    )
