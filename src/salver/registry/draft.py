"""What somebody asks to register: a manifest before it has a number, an ordinal and a digest."""

from __future__ import annotations

from typing import Final

import msgspec

from salver.protocol.description import Description
from salver.protocol.errors import SalverError
from salver.protocol.profile import Profile
from salver.protocol.signature import Signature
from salver.protocol.tables import FileEntry, StateSpec, VersionManifest
from salver.registry.files import artifact_digest

__all__ = ["VersionDraft", "difference"]

_MOST_BYTES: Final = 4 * 2**20
"""Of a manifest as JSON."""
_MOST_METADATA_BYTES: Final = 64 * 2**10
_LONGEST_TEXT: Final = 4096
_TEXTS: Final = ("format", "kind", "preprocess", "postprocess", "cost", "length")


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
        """The manifest under a number; raises INVALID_ARTIFACT for one too large, or that cannot be stored unchanged.

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
            text = msgspec.json.encode(manifest)
            stored = VersionManifest.parse(text)
        except (msgspec.MsgspecError, UnicodeEncodeError) as error:
            raise _unstorable(str(error)) from error
        if stored != manifest:
            raise _unstorable("it changes when it is written down")
        _check_sizes(manifest, len(text))
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


def _check_sizes(manifest: VersionManifest, size_bytes: int) -> None:
    """Every load of every process reads the manifest, and its signature holds it once more."""
    metadata_bytes = len(msgspec.json.encode(manifest.metadata))
    if metadata_bytes > _MOST_METADATA_BYTES:
        largest = max(manifest.metadata, key=lambda name: len(name) + len(manifest.metadata[name]))
        raise SalverError(
            "INVALID_ARTIFACT",
            f"the metadata of {manifest.model!r} have {metadata_bytes} bytes, the most of them {largest[:80]!r}",
            f"give at most {_MOST_METADATA_BYTES}; longer texts go into a file of the artifact, or the description",
        )
    for name in _TEXTS:
        if len(getattr(manifest, name)) > _LONGEST_TEXT:
            raise SalverError(
                "INVALID_ARTIFACT",
                f"{name} of {manifest.model!r} has {len(getattr(manifest, name))} characters",
                f"give at most {_LONGEST_TEXT}",
            )
    if size_bytes > _MOST_BYTES:
        raise SalverError(
            "INVALID_ARTIFACT",
            f"what is registered of {manifest.model!r} has {size_bytes} bytes without its files",
            f"keep signature, profile and list of files to {_MOST_BYTES}: pack many small files into one",
        )


def _unstorable(why: str) -> SalverError:
    return SalverError(
        "INVALID_ARTIFACT",
        f"the version's description cannot be stored: {why}",
        "remove infinite values and invalid text from the profile, signature and metadata",
    )
