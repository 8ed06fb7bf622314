"""Holds: versions that are kept as evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action, Nothing
from salver.control.actions.models import OfVersion
from salver.registry.holds import Hold
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "HOLD", "HOLDS", "RELEASE", "NewHold"]


class NewHold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Keep a version as evidence."""

    model: str
    version: str
    why: str


def _hold(admin: LocalAdministration, asked: NewHold) -> Hold:
    version = admin.records.pages.number_of(asked.model, asked.version)
    held = admin.records.holds.hold(admin.principal, asked.model, version, asked.why)
    admin.publish()
    return held


def _release(admin: LocalAdministration, asked: OfVersion) -> Hold:
    version = admin.records.pages.number_of(asked.model, asked.version)
    return admin.records.holds.release(admin.principal, asked.model, version)


HOLDS: Final = Action(
    "GET",
    "/v1/holds",
    Operation.READ,
    "Versions that are kept as evidence",
    Nothing,
    tuple[Hold, ...],
    lambda admin, _: admin.records.holds.list(),
)
HOLD: Final = Action(
    "PUT",
    "/v1/models/{model}/versions/{version}/hold",
    Operation.HOLD,
    "Keep a version as evidence: it is not retired",
    NewHold,
    Hold,
    _hold,
)
RELEASE: Final = Action(
    "DELETE",
    "/v1/models/{model}/versions/{version}/hold",
    Operation.HOLD,
    "Give a held version free",
    OfVersion,
    Hold,
    _release,
)
ACTIONS: Final = (HOLDS, HOLD, RELEASE)
