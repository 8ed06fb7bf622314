"""Registering a version from files that were uploaded: `PUT /v1/blobs/DIGEST` for each, and then this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action
from salver.control.administration import Registered
from salver.control.examination import examined_draft
from salver.protocol.description import Description
from salver.protocol.tables import FileEntry
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "REGISTER_FILES", "Upload"]


class Upload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The files of a version to be. What they are is found out from themselves."""

    model: str
    files: tuple[FileEntry, ...]
    version: str | None = None
    """Without one the next that says enough of what changed."""
    format: str | None = None
    """Needed only where the files could be of several formats; what is in them must agree."""
    trust_code: bool = False
    """Vouch for a pickle, as `salver register --trust-code` does."""
    metadata: dict[str, str] = {}
    description: Description | None = None
    tags: dict[str, str] = {}
    publisher_signature: str = ""
    """The signature that the files came with."""


def _register(admin: LocalAdministration, asked: Upload) -> Registered:
    draft = examined_draft(
        admin,
        asked.model,
        asked.files,
        version=asked.version,
        format=asked.format,
        trust_code=asked.trust_code,
    )
    draft = msgspec.structs.replace(
        draft,
        metadata=draft.metadata | asked.metadata,
        description=asked.description,
        tags=asked.tags,
        publisher_signature=asked.publisher_signature,
    )
    return admin.register(draft)


REGISTER_FILES: Final = Action(
    "POST",
    "/v1/models/{model}/versions",
    Operation.REGISTER,
    "Register a version from files that were uploaded",
    Upload,
    Registered,
    _register,
)
ACTIONS: Final = (REGISTER_FILES,)
