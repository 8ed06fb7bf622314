"""The models of a home and their versions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action, Nothing
from salver.protocol.tables import VersionManifest
from salver.registry.catalog import MOST_VERSIONS, Limit, Listing, ModelSummary
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import Administration, LocalAdministration

__all__ = ["ACTIONS", "MODELS", "VERSIONS", "OfModel", "OfVersion", "OfVersions", "each_version"]


class OfModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks about one model."""

    model: str


class OfVersion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks about one version: a number, an alias, a stage or "latest"."""

    model: str
    version: str = "latest"


class OfVersions(Listing, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Asks for versions of a model: for a page of them, by their ordinals."""

    model: str
    limit: Limit = 100


def each_version(admin: Administration, model: str) -> Iterator[VersionManifest]:
    """All versions of a model, the oldest first, page by page."""
    asked = OfVersions(model=model, limit=MOST_VERSIONS)
    while True:
        page = admin.do(VERSIONS, asked)
        yield from page
        if len(page) < MOST_VERSIONS:
            return
        asked = msgspec.structs.replace(asked, after=page[-1].ordinal)


def _versions(admin: LocalAdministration, asked: OfVersions) -> tuple[VersionManifest, ...]:
    return admin.records.catalog.versions(asked.model, asked)


MODELS: Final = Action(
    "GET",
    "/v1/models",
    Operation.READ,
    "All models",
    Nothing,
    tuple[ModelSummary, ...],
    lambda admin, _: admin.records.catalog.models(),
)
VERSIONS: Final = Action(
    "GET",
    "/v1/models/{model}",
    Operation.READ,
    "The versions of a model, oldest first, page by page",
    OfVersions,
    tuple[VersionManifest, ...],
    _versions,
)
ACTIONS: Final = (MODELS, VERSIONS)
