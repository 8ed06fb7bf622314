"""What somebody asks to register: a manifest before it has a number, an ordinal and a digest."""

from __future__ import annotations

import msgspec

from salver.protocol.description import Description
from salver.protocol.errors import SalverError
from salver.protocol.profile import Profile
from salver.protocol.signature import Signature
from salver.protocol.tables import FileEntry, StateSpec, VersionManifest
from salver.registry.files import artifact_digest

__all__ = ["VersionDraft", "difference"]


class VersionDraft(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A version to be. Without `version` the catalog gives it the next number.

    REQUIRES that every file is in the blob store: the catalog records, it does not look.
    """

    model: str
    format: str
    files: tuple[FileEntry, ...]
    signature: Signature
    version: str | None = None
    kind: str = "predict"
    preprocess: str = ""
    postprocess: str = ""
    cost: str = ""
    length: str = ""
    idempotent: bool = True
    trusts_code: bool = False
    profile: Profile | None = None
    metadata: dict[str, str] = {}
    warm_up: bool | None = None
    states: tuple[StateSpec, ...] = ()
    streams: bool = False
    description: Description | None = None
    """What is said of it, now and to be changed later; no part of the manifest."""
    tags: dict[str, str] = {}
    publisher_signature: str = ""
    """The signature that the files came with: a bundle of `salver.security.model_signing`."""

    def manifest(self, version: str, ordinal: int) -> VersionManifest:
        """The manifest under a number; raises INVALID_ARTIFACT for one that cannot be stored unchanged.

        JSON has no infinity, so a profile that holds one would come back as something else.
        """
        fields = msgspec.structs.asdict(self) | {
            "version": version,
            "ordinal": ordinal,
            "digest": artifact_digest(self.files),
            "files": tuple(sorted(self.files, key=lambda file: file.path)),
        }
        for beside in ("description", "tags", "publisher_signature"):
            del fields[beside]
        manifest = VersionManifest(**fields)
        try:
            stored = msgspec.json.decode(msgspec.json.encode(manifest), type=VersionManifest)
        except (msgspec.MsgspecError, UnicodeEncodeError) as error:
            raise _unstorable(str(error)) from error
        if stored != manifest:
            raise _unstorable("it changes when it is written down")
        return manifest


def difference(existing: VersionManifest, draft: VersionDraft) -> str | None:
    """The first thing in which a registered version and a draft contradict each other, or None.

    What a draft leaves out (its profile) contradicts nothing; metadata is a remark and counts
    for nothing.
    """
    wanted = draft.manifest(existing.version, existing.ordinal)
    if wanted.digest != existing.digest:
        return "bytes"
    for field in VersionManifest.__struct_fields__:
        if field in ("metadata", "attestation") or (field == "profile" and draft.profile is None):
            continue
        if getattr(wanted, field) != getattr(existing, field):
            return field
    return None


def _unstorable(why: str) -> SalverError:
    return SalverError(
        "INVALID_ARTIFACT",
        f"the version's description cannot be stored: {why}",
        "remove infinite values and invalid text from the profile, signature and metadata",
    )
