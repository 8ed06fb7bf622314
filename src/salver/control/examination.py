"""Versions whose files came over the network: what they are is found out here, whatever the client says of them.

The files are laid out as they will be when the version is loaded, and a child process reads them with the very checks
of `salver register`: so a draft that comes from elsewhere is worth no more than its bytes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.registration import Registered, check_stored, drafted, register_draft
from salver.protocol.errors import SalverError
from salver.protocol.names import SemanticVersion, check_name
from salver.protocol.tables import FileEntry
from salver.registry.draft import VersionDraft
from salver.registry.files import check_files
from salver.runtime.declaration import DECLARATION_FILE
from salver.runtime.examine import Examined, examine_in_child
from salver.security.access import Operation, allows, require
from salver.storage.blob_store import Blobs
from salver.storage.opening import open_blobs

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["examined_draft", "register_examined"]

_SAID: Final = (
    *("format", "signature", "kind", "preprocess", "postprocess", "cost", "length", "idempotent", "warm_up"),
    *("states", "streams", "trusts_code"),
)
"""What a draft says of an artifact that the artifact says itself."""


def register_examined(admin: LocalAdministration, draft: VersionDraft) -> Registered:
    """Register a draft that came over the network, if it says of its stored files what they say themselves.

    Raises INVALID_ARTIFACT naming what differs, QUEUE_FULL, and what `examined_draft` and `register_draft` raise.
    """
    found = examined_draft(
        admin, draft.model, draft.files, version=draft.version, format=draft.format, trust_code=draft.trusts_code
    )
    for name in _SAID:
        if getattr(draft, name) != getattr(found, name):
            raise SalverError(
                "INVALID_ARTIFACT",
                f"the draft of {draft.model!r} says another {name} than its files: those say "
                f"{msgspec.json.encode(getattr(found, name)).decode()[:200]}",
                "leave it to the server: POST /v1/models/NAME/versions takes the files alone",
            )
    return register_draft(admin, draft)


def examined_draft(
    admin: LocalAdministration,
    model: str,
    files: tuple[FileEntry, ...],
    *,
    version: str | None = None,
    format: str | None = None,
    trust_code: bool = False,
) -> VersionDraft:
    """The version that stored files make, by what they are; blocks.

    None of their code runs unless the principal may vouch for it. Raises PERMISSION_DENIED, NOT_FOUND for a file
    that is not stored, CORRUPT_ARTIFACT, QUEUE_FULL while others are looked at, and what reading an artifact raises.
    """
    require(admin.principal, Operation.REGISTER)
    if trust_code:
        require(admin.principal, Operation.TRUST_CODE)
    check_name(model, "model")
    if version is not None:
        SemanticVersion.parse(version)
    check_files(files)
    blobs = open_blobs(admin.home)
    check_stored(blobs, files)
    give_back = admin.examinations.take(admin.principal)
    try:
        found = _examine(admin, blobs, model, files, format, trust_code=trust_code)
    finally:
        give_back()
    return drafted(model, found, files, version=version)


def _examine(
    admin: LocalAdministration,
    blobs: Blobs,
    model: str,
    files: tuple[FileEntry, ...],
    format: str | None,
    *,
    trust_code: bool,
) -> Examined:
    scratch = admin.home.scratch_path
    scratch.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="examine-", dir=scratch, ignore_cleanup_errors=True) as folder:
        root = Path(folder) / model
        root.mkdir()
        for file in files:
            path = root / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            blobs.copy_verified(file.sha256, path)
        may_run = allows(admin.principal.role, Operation.TRUST_CODE)
        try:
            return examine_in_child(_artifact(root, files), format=format, trust_code=trust_code, may_run_code=may_run)
        except SalverError as error:
            # Whoever sent the files learns nothing of where they lie here.
            told = [each.replace(f"{folder}/", "") for each in (error.message, error.remedy)]
            raise SalverError(error.code, *told) from None


def _artifact(root: Path, files: tuple[FileEntry, ...]) -> Path:
    """The one file that was registered by itself, else the directory."""
    alone = len(files) == 1 and "/" not in files[0].path and files[0].path != DECLARATION_FILE
    return root / files[0].path if alone else root
