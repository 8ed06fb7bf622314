"""Versions whose files are given up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action, Nothing
from salver.control.actions.models import MODELS, each_version
from salver.protocol.tables import VersionManifest
from salver.registry.deletions import Deletion
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import Administration, LocalAdministration

__all__ = ["ACTIONS", "DELETE", "DELETIONS", "AskedDeletion", "kept_versions"]


class AskedDeletion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version whose files are to go, and why."""

    model: str
    version: str
    why: str


def kept_versions(admin: Administration) -> Iterator[VersionManifest]:
    """The versions of all models whose files are to be there."""
    deleted = {each.reference for each in admin.do(DELETIONS, Nothing())}
    for summary in admin.do(MODELS, Nothing()):
        yield from (each for each in each_version(admin, summary.name) if each.reference not in deleted)


def _delete(admin: LocalAdministration, asked: AskedDeletion) -> Deletion:
    version = admin.records.pages.number_of(asked.model, asked.version)
    return admin.records.deletions.delete(admin.principal, asked.model, version, asked.why)


DELETE: Final = Action(
    "POST",
    "/v1/models/{model}/versions/{version}/deletion",
    Operation.DELETE,
    "Give up the files of an archived or rejected version for good",
    AskedDeletion,
    Deletion,
    _delete,
)
DELETIONS: Final = Action(
    "GET",
    "/v1/deletions",
    Operation.READ,
    "What was deleted, by whom and why",
    Nothing,
    tuple[Deletion, ...],
    lambda admin, _: admin.records.deletions.list(),
)
ACTIONS: Final = (DELETE, DELETIONS)
