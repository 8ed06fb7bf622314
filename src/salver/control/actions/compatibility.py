"""Which versions of a model a client of another one could be given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from salver.control.action import Action
from salver.control.actions.models import OfModel
from salver.registry.matrix import MOST, CompatibilityMatrix, compatibility_matrix, last_uses
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "COMPATIBILITY"]


def _compatibility(admin: LocalAdministration, asked: OfModel) -> CompatibilityMatrix:
    uses = last_uses(admin.records.usage.of(asked.model))
    known = admin.records.catalog.highest(asked.model, MOST, {use.version for use in uses})
    return compatibility_matrix(asked.model, known, uses)


COMPATIBILITY: Final = Action(
    "GET",
    "/v1/models/{model}/compatibility",
    Operation.READ,
    "Which versions could take each other's place, and what clients last asked",
    OfModel,
    CompatibilityMatrix,
    _compatibility,
)
ACTIONS: Final = (COMPATIBILITY,)
