"""Registering versions: of stored files that are described already, or that are to be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action
from salver.control.examination import examined_draft, register_examined
from salver.control.registration import Registered, register_draft
from salver.protocol.description import Description
from salver.protocol.profile import ColumnProfiles
from salver.protocol.tables import FileEntry
from salver.registry.draft import VersionDraft
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "REGISTER", "REGISTER_FILES", "Upload"]


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
    columns: ColumnProfiles | None = None
    """Of the training data: the profile, where they are the inputs of what the files turn out to be."""


def _register(admin: LocalAdministration, asked: VersionDraft) -> Registered:
    return register_draft(admin, asked) if admin.on_this_machine else register_examined(admin, asked)


def _register_files(admin: LocalAdministration, asked: Upload) -> Registered:
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
        profile=asked.columns.profile(draft.signature) if asked.columns else None,
    )
    return register_draft(admin, draft)


REGISTER: Final = Action(
    "POST",
    "/v1/versions",
    Operation.REGISTER,
    "Register a version whose blobs are stored",
    VersionDraft,
    Registered,
    _register,
)
REGISTER_FILES: Final = Action(
    "POST",
    "/v1/models/{model}/versions",
    Operation.REGISTER,
    "Register a version from files that were uploaded",
    Upload,
    Registered,
    _register_files,
)
ACTIONS: Final = (REGISTER, REGISTER_FILES)
