"""What is said of versions: to read and to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from salver.control.action import Action
from salver.control.actions.models import OfModel, OfVersion
from salver.protocol.description import Description
from salver.registry.description_rows import Alias, AliasMoved
from salver.registry.pages import VersionPage
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = [
    "ACTIONS",
    "ALIASES",
    "DESCRIBE",
    "MOVE_ALIAS",
    "REMOVE_ALIAS",
    "SHOW_VERSION",
    "TAG",
    "AliasMove",
    "AliasRemoval",
    "Changes",
    "TagChanges",
]


class Changes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A merge patch (RFC 7386) of a description: what is not named stays, null removes."""

    model: str
    version: str
    changes: dict[str, Any]


class TagChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tags to set, and with null to remove."""

    model: str
    version: str
    tags: dict[str, str | None]


class AliasMove(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Let an alias stand for a version."""

    model: str
    alias: str
    version: str
    if_version: str | None = None
    """Only if it stands for this one now; empty for none."""


class AliasRemoval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Let an alias stand for nothing."""

    model: str
    alias: str


def _describe(admin: LocalAdministration, asked: Changes) -> Description:
    version = admin.records.pages.number_of(asked.model, asked.version)
    return admin.records.descriptions.describe(admin.principal, asked.model, version, asked.changes)


def _tag(admin: LocalAdministration, asked: TagChanges) -> dict[str, str]:
    version = admin.records.pages.number_of(asked.model, asked.version)
    return admin.records.descriptions.tag(admin.principal, asked.model, version, asked.tags)


def _move(admin: LocalAdministration, asked: AliasMove) -> AliasMoved:
    version = admin.records.pages.number_of(asked.model, asked.version)
    return admin.records.descriptions.alias(admin.principal, asked.model, asked.alias, version, asked.if_version)


SHOW_VERSION: Final = Action(
    "GET",
    "/v1/models/{model}/versions/{version}",
    Operation.READ,
    "Everything that is known of a version",
    OfVersion,
    VersionPage,
    lambda admin, asked: admin.records.pages.page(asked.model, asked.version),
)
DESCRIBE: Final = Action(
    "PATCH",
    "/v1/models/{model}/versions/{version}/description",
    Operation.REGISTER,
    "Change the description of a version",
    Changes,
    Description,
    _describe,
)
TAG: Final = Action(
    "PATCH",
    "/v1/models/{model}/versions/{version}/tags",
    Operation.REGISTER,
    "Set and remove tags of a version",
    TagChanges,
    dict[str, str],
    _tag,
)
ALIASES: Final = Action(
    "GET",
    "/v1/models/{model}/aliases",
    Operation.READ,
    "The aliases of a model",
    OfModel,
    tuple[Alias, ...],
    lambda admin, asked: admin.records.pages.aliases(asked.model),
)
MOVE_ALIAS: Final = Action(
    "PUT",
    "/v1/models/{model}/aliases/{alias}",
    Operation.DEPLOY,
    "Let an alias stand for a version",
    AliasMove,
    AliasMoved,
    _move,
)
REMOVE_ALIAS: Final = Action(
    "DELETE",
    "/v1/models/{model}/aliases/{alias}",
    Operation.DEPLOY,
    "Let an alias stand for nothing",
    AliasRemoval,
    AliasMoved,
    lambda admin, asked: admin.records.descriptions.alias(admin.principal, asked.model, asked.alias, None),
)
ACTIONS: Final = (SHOW_VERSION, DESCRIBE, TAG, ALIASES, MOVE_ALIAS, REMOVE_ALIAS)
