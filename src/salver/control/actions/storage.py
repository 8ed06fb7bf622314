"""The upkeep of the artifact store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from salver.control.action import Action
from salver.registry.collection import Collected, CollectionRequest, collect
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "COLLECT"]


def _collect(admin: LocalAdministration, asked: CollectionRequest) -> Collected:
    return collect(admin.home, admin.records.database, admin.principal, admin.records.clock, asked)


COLLECT: Final = Action(
    "POST",
    "/v1/storage/collect",
    Operation.OPERATE,
    "Remove what no version refers to from the artifact store",
    CollectionRequest,
    Collected,
    _collect,
)
ACTIONS: Final = (COLLECT,)
