"""Versions whose files are given up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action
from salver.registry.deletions import Deletion
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "DELETE", "AskedDeletion"]


class AskedDeletion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version whose files are to go, and why."""

    model: str
    version: str
    why: str


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
ACTIONS: Final = (DELETE,)
