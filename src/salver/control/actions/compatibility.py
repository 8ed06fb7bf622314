"""Which versions of a model a client of another one could be given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action
from salver.registry.matrix import CompatibilityMatrix, compatibility_matrix
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "COMPATIBILITY", "OfModel"]


class OfModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks about one model."""

    model: str


def _compatibility(admin: LocalAdministration, asked: OfModel) -> CompatibilityMatrix:
    known = admin.records.catalog.versions(asked.model)
    return compatibility_matrix(asked.model, known, admin.records.usage.of(asked.model))


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
