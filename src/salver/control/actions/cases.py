"""Regression cases: what every later version of a model is asked before it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action
from salver.registry.cases import AddedCase, Case, Expectation, KnownCase
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "ADD_CASE", "CASES", "REMOVE_CASE", "CaseOf", "NewCase", "OfCases"]


class NewCase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An input for every later version of a model, with what is expected."""

    model: str
    request: str
    expect: tuple[Expectation, ...]
    source: str


class CaseOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names a case."""

    model: str
    case: str


class OfCases(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for the cases of a model, behind the one with the id `after`."""

    model: str
    after: str = ""
    limit: int = 100


def _add(admin: LocalAdministration, asked: NewCase) -> AddedCase:
    return admin.records.cases.add(admin.principal, asked.model, Case(asked.request, asked.expect, asked.source))


def _remove(admin: LocalAdministration, asked: CaseOf) -> KnownCase:
    return admin.records.cases.remove(admin.principal, asked.model, asked.case)


def _cases(admin: LocalAdministration, asked: OfCases) -> tuple[KnownCase, ...]:
    return admin.records.cases.of(asked.model, asked.after, asked.limit)


CASES: Final = Action(
    "GET",
    "/v1/models/{model}/cases",
    Operation.READ,
    "What every version of a model is asked because it once went wrong",
    OfCases,
    tuple[KnownCase, ...],
    _cases,
)
ADD_CASE: Final = Action(
    "POST",
    "/v1/models/{model}/cases",
    Operation.RECORD_EVIDENCE,
    "Ask every later version this",
    NewCase,
    AddedCase,
    _add,
)
REMOVE_CASE: Final = Action(
    "DELETE",
    "/v1/models/{model}/cases/{case}",
    Operation.DEPLOY,
    "Ask it no more",
    CaseOf,
    KnownCase,
    _remove,
)
ACTIONS: Final = (CASES, ADD_CASE, REMOVE_CASE)
