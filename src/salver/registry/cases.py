"""Regression cases: inputs that once went wrong, with what every later version must make of them.

A case is kept as the request that the client sent, byte for byte, so that it is read again as it was then - also
one that has to be refused because it is no request at all.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Final

import msgspec
from sqlalchemy import Row, delete, func, insert, select

from salver.clock import Clock
from salver.protocol.errors import CATALOGUE, SalverError
from salver.registry.catalog import require_model
from salver.security.access import Operation, Principal, require
from salver.storage.database import Database
from salver.storage.journal import Journal, canonical_json
from salver.storage.registry_schema import cases

__all__ = [
    "AddedCase",
    "Case",
    "Cases",
    "Equal",
    "Expectation",
    "InRange",
    "KnownCase",
    "Labelled",
    "Refused",
    "check_case",
]

_MOST_REQUEST_BYTES: Final = 256 * 1024
_MOST_CASES: Final = 2000
"""Of one model."""
_MOST_LISTED: Final = 100
_MOST_EXPECTATIONS: Final = 20
_LONGEST: Final = 400
_ID_LENGTH: Final = 16


class _OfOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    """What is expected of one output."""

    output: str = ""
    """Its name; empty where there is but one that it can be."""


class Labelled(_OfOutput, frozen=True, tag="label", forbid_unknown_fields=True, kw_only=True):
    """Every row is answered with this label."""

    label: str | int


class InRange(_OfOutput, frozen=True, tag="range", forbid_unknown_fields=True, kw_only=True):
    """Every number is within these bounds, both ends included."""

    at_least: float | None = None
    at_most: float | None = None
    column: str | int | None = None
    """Of an output with columns the one that is meant, by its place or its label; None for all."""


class Equal(_OfOutput, frozen=True, tag="equal", forbid_unknown_fields=True, kw_only=True):
    """The output is this, row by row; numbers within `tolerance`."""

    values: Any
    tolerance: float = 0.0


class Refused(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="refused"):
    """It is refused, as the fault of the client: with this code, or any where it is empty."""

    code: str = ""


Expectation = Labelled | InRange | Equal | Refused


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input with what is expected."""

    request: str
    """An Open Inference Protocol request in JSON, as it came."""
    expect: tuple[Expectation, ...]
    source: str
    """What it comes from, such as "incident 12"."""

    @property
    def id(self) -> str:
        """What names it: the same input with the same expectation has the same one."""
        return hashlib.sha256(canonical_json(msgspec.to_builtins([self.request, self.expect])).encode()).hexdigest()[
            :_ID_LENGTH
        ]


class KnownCase(msgspec.Struct, frozen=True):
    """A case of a model, as it is kept."""

    id: str
    model: str
    request: str
    expect: tuple[Expectation, ...]
    source: str
    recorded_s: float
    recorded_by: str

    @property
    def case(self) -> Case:
        """What later versions are asked."""
        return Case(self.request, self.expect, self.source)


class AddedCase(msgspec.Struct, frozen=True):
    """The answer to an addition; `created` is false when the very same case was there."""

    case: KnownCase
    created: bool


def check_case(case: Case) -> Case:
    """The case if it can be kept; raises INVALID_PARAMETER naming what is wrong with it."""
    size = len(case.request.encode())
    if size > _MOST_REQUEST_BYTES:
        raise _wrong(f"its request has {size} bytes", f"keep one of at most {_MOST_REQUEST_BYTES}")
    if not 0 < len(case.source.strip()) <= _LONGEST:
        raise _wrong("it does not say what it comes from", 'say it, such as --source "incident 12"')
    if not 0 < len(case.expect) <= _MOST_EXPECTATIONS:
        raise _wrong(f"it has {len(case.expect)} expectations", f"give 1 to {_MOST_EXPECTATIONS}")
    refusals = [each for each in case.expect if isinstance(each, Refused)]
    if refusals and len(case.expect) > 1:
        raise _wrong("it expects a refusal and something else", "a request that is refused has no outputs")
    for each in case.expect:
        _check_expectation(each)
    return case


def _check_expectation(expected: Expectation) -> None:
    if isinstance(expected, Refused):
        known = CATALOGUE.get(expected.code)
        if expected.code and (known is None or not 400 <= known.http < 500):
            raise _wrong(f"it expects the refusal {expected.code[:40]!r}", "name a code of 4xx, see docs/protocols.md")
    elif isinstance(expected, InRange):
        ends = [each for each in (expected.at_least, expected.at_most) if each is not None]
        if not ends or not all(map(math.isfinite, ends)) or ends != sorted(ends):
            raise _wrong("its range has no ends, or the wrong way round", "give the lower one, the upper one or both")
    elif isinstance(expected, Equal) and not 0 <= expected.tolerance < math.inf:
        raise _wrong(f"its tolerance is {expected.tolerance:g}", "give 0 or more")


def _wrong(what: str, remedy: str) -> SalverError:
    return SalverError("INVALID_PARAMETER", f"the case is wrong: {what}", remedy)


class Cases:
    """The cases in one database."""

    __slots__ = ("_clock", "_database", "_journal")

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock

    def add(self, principal: Principal, model: str, case: Case) -> AddedCase:
        """Keep a case for every later version of a model; the very same one again changes nothing.

        Raises PERMISSION_DENIED, NOT_FOUND for an unknown model, INVALID_PARAMETER for a case that cannot be kept
        and CONFLICT for one more than a model may have. The journal has its digest, not the input.
        """
        require(principal, Operation.RECORD_EVIDENCE)
        check_case(case)
        identity = f"{model}:{case.id}"
        row = {
            "id": identity,
            "model": model,
            "document": canonical_json(msgspec.to_builtins(case)),
            "recorded_s": self._clock.wall_s(),
            "recorded_by": principal.name,
        }
        with self._database.begin() as connection:
            require_model(connection, model)
            known = connection.execute(select(cases).where(cases.c.id == identity)).one_or_none()
            if known is not None:
                return AddedCase(_known(known), False)
            count = connection.execute(select(func.count()).where(cases.c.model == model)).scalar_one()
            if count >= _MOST_CASES:
                raise SalverError(
                    "CONFLICT", f"model {model!r} has {count} cases, as many as it may", "remove some: salver case list"
                )
            connection.execute(insert(cases).values(row))
            details = {"id": case.id, "source": case.source}
            self._journal.append(
                connection, actor=principal.name, action="add_case", subject=model, details=details, after=case
            )
            made = connection.execute(select(cases).where(cases.c.id == identity)).one()
        return AddedCase(_known(made), True)

    def remove(self, principal: Principal, model: str, case: str) -> KnownCase:
        """Ask later versions this no more; returns what it was.

        It takes the right to deploy, since it opens a gate. Raises PERMISSION_DENIED, NOT_FOUND.
        """
        require(principal, Operation.DEPLOY)
        here = cases.c.id == f"{model}:{case}"
        with self._database.begin() as connection:
            row = connection.execute(select(cases).where(here)).one_or_none()
            if row is None:
                raise SalverError(
                    "NOT_FOUND", f"model {model!r} has no case {case[:40]!r}", f"salver case list {model}"
                )
            known = _known(row)
            connection.execute(delete(cases).where(here))
            details = {"id": known.id, "source": known.source}
            self._journal.append(
                connection,
                actor=principal.name,
                action="remove_case",
                subject=model,
                details=details,
                before=known.case,
            )
        return known

    def of(self, model: str, after: str = "", limit: int = _MOST_LISTED) -> tuple[KnownCase, ...]:
        """The cases of a model by their ids, behind `after`; at most 100 of them."""
        query = (
            select(cases)
            .where(cases.c.model == model, cases.c.id > f"{model}:{after}")
            .order_by(cases.c.id)
            .limit(max(1, min(limit, _MOST_LISTED)))
        )
        with self._database.read() as connection:
            return tuple(_known(row) for row in connection.execute(query))


def _known(row: Row[Any]) -> KnownCase:
    case = msgspec.json.decode(row.document, type=Case)
    return KnownCase(
        row.id.rpartition(":")[2], row.model, case.request, case.expect, case.source, row.recorded_s, row.recorded_by
    )
