"""Versions that must not be loaded any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action, Nothing
from salver.protocol.tables import Revocation
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "REVOCATIONS", "REVOKE", "AskedRevocation", "Revoked"]


class AskedRevocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version to be loaded no more, and why."""

    model: str
    version: str
    why: str


class Revoked(msgspec.Struct, frozen=True):
    """What was revoked, and which endpoints should still serve it: what they have loaded answers on."""

    revocation: Revocation
    endpoints: tuple[str, ...]


def _revoke(admin: LocalAdministration, asked: AskedRevocation) -> Revoked:
    version = admin.records.pages.number_of(asked.model, asked.version)
    revoked = admin.records.revocations.revoke(admin.principal, asked.model, version, asked.why)
    admin.publish()
    specs = admin.records.deployments.list()
    still = [spec.endpoint for spec in specs if (spec.model, spec.version) == (revoked.model, revoked.version)]
    return Revoked(revoked, tuple(still))


REVOKE: Final = Action(
    "POST",
    "/v1/models/{model}/versions/{version}/revocation",
    Operation.DEPLOY,
    "Have a version loaded nowhere and never again",
    AskedRevocation,
    Revoked,
    _revoke,
)
REVOCATIONS: Final = Action(
    "GET",
    "/v1/revocations",
    Operation.READ,
    "What was revoked, by whom and why",
    Nothing,
    tuple[Revocation, ...],
    lambda admin, _: admin.records.revocations.list(),
)
ACTIONS: Final = (REVOKE, REVOCATIONS)
