"""Where versions come from, what came of them, and what depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from salver.control.action import Action
from salver.control.actions.models import OfVersion
from salver.registry.breakage import Breakage
from salver.registry.impact import Impact
from salver.registry.lineage import Graph
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "BREAKAGE", "IMPACT", "LINEAGE", "OfBreakage", "OfSubject"]


class OfSubject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks about KIND:NAME - data, run, commit, image, base, model, version - or NAME@VERSION."""

    subject: Annotated[str, msgspec.Meta(min_length=1, max_length=1100)]


class OfBreakage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks what retiring a version would break."""

    model: str
    version: str = "latest"
    days: Annotated[float, msgspec.Meta(gt=0, le=3650)] = 30.0
    """How far back clients count."""


def _breakage(admin: LocalAdministration, asked: OfBreakage) -> Breakage:
    return admin.records.breakages.of(asked.model, asked.version, asked.days)


LINEAGE: Final = Action(
    "GET",
    "/v1/models/{model}/versions/{version}/lineage",
    Operation.READ,
    "What a version was made of, and what came of it",
    OfVersion,
    Graph,
    lambda admin, asked: admin.records.lineage.of(asked.model, asked.version),
)
IMPACT: Final = Action(
    "GET",
    "/v1/impact",
    Operation.READ,
    "Which versions, endpoints, clients and predictions something has reached",
    OfSubject,
    Impact,
    lambda admin, asked: admin.records.impacts.of(asked.subject),
)
BREAKAGE: Final = Action(
    "GET",
    "/v1/models/{model}/versions/{version}/breakage",
    Operation.READ,
    "What would break if a version were retired",
    OfBreakage,
    Breakage,
    _breakage,
)
ACTIONS: Final = (LINEAGE, IMPACT, BREAKAGE)
