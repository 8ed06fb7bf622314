"""Versions that crashed or hung a server process, and so compute in their own."""

from __future__ import annotations

from typing import Final

import msgspec

from salver.control.action import Action, Nothing
from salver.registry.isolations import IsolatedVersion
from salver.security.access import Operation

__all__ = ["ACTIONS", "END_ISOLATION", "ISOLATED", "OfReference"]


class OfReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks about NAME@VERSION."""

    reference: str


ISOLATED: Final = Action(
    "GET",
    "/v1/isolated",
    Operation.READ,
    "Versions that crashed or hung a server process",
    Nothing,
    tuple[IsolatedVersion, ...],
    lambda admin, _: admin.records.isolations.list(),
)
END_ISOLATION: Final = Action(
    "DELETE",
    "/v1/isolated/{reference}",
    Operation.DEPLOY,
    "Let `auto` decide about NAME@VERSION again, from its next load on",
    OfReference,
    IsolatedVersion,
    lambda admin, asked: admin.records.isolations.end(admin.principal, asked.reference),
)
ACTIONS: Final = (ISOLATED, END_ISOLATION)
