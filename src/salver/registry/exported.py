"""Versions outside of a home: directories that anybody can check who has the public key.

In DIR/ are

    model/         the files of the version, and nothing else
    model.sig      the signature over them, for `model_signing verify key` and for `salver verify`
    signing.pub    the public key of who signed; worth nothing unless it is compared with one from elsewhere
    manifest.json  what else is signed: name, number, format, signature and settings
    publisher.sig  the signature that the files came with when they were registered, if they did
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.formats import MAX_FILES
from salver.protocol.tables import FileEntry, VersionManifest
from salver.security.keys import TrustedKeys
from salver.security.model_signing import LONGEST_BUNDLE_BYTES, differences, open_bundle, require_manifest
from salver.storage.blob_store import Blobs
from salver.storage.snapshot import full_disk_is_reported

__all__ = ["Checked", "check_export", "check_files_of", "read_signature", "write_export"]

_FILES: Final = "model"
_SIGNATURE: Final = "model.sig"
_KEY: Final = "signing.pub"
_MANIFEST: Final = "manifest.json"
_PUBLISHER: Final = "publisher.sig"


class Checked(msgspec.Struct, frozen=True):
    """What became of a check of files against a signature."""

    ok: bool
    key_id: str
    """Who signed."""
    subject: str
    """What is signed: NAME@VERSION where Salver signed it, else whatever the signer called it."""
    files: int
    problems: tuple[str, ...] = ()
    """What differs, a line each; only the first ones where it is much."""


def write_export(manifest: VersionManifest, keys: TrustedKeys, blobs: Blobs, destination: Path) -> None:
    """Write a version, its signature and the key into the new or empty directory `destination`.

    REQUIRES a manifest with its attestation. Everything is verified before it is there: raises REFUSED_BY_POLICY
    for a signature that does not verify, CORRUPT_ARTIFACT for stored bytes that differ, ALREADY_EXISTS for a
    directory with something in it. After a failure the directory is as it was.
    """
    signed = require_manifest(manifest, keys)
    assert signed.claim is not None, "require_manifest takes nothing else"
    destination = destination.absolute()
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise SalverError("ALREADY_EXISTS", f"{destination.name!r} is there and is not empty", "name a new directory")
    destination.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{destination.name}.", dir=destination.parent))
    try:
        with full_disk_is_reported(), blobs.hold(file.sha256 for file in manifest.files):
            for file in manifest.files:
                target = unfinished / _FILES / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                blobs.copy_verified(file.sha256, target, 0o644)
            (unfinished / _SIGNATURE).write_text(manifest.attestation)
            (unfinished / _KEY).write_bytes(keys.pem_of(signed.key_id))
            (unfinished / _MANIFEST).write_bytes(_pretty(signed.claim.manifest))
            if signed.claim.publisher is not None:
                (unfinished / _PUBLISHER).write_text(signed.claim.publisher.bundle)
            unfinished.chmod(0o755)
            unfinished.rename(destination)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _pretty(manifest: VersionManifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest)) + b"\n"


def check_export(directory: Path, keys: TrustedKeys) -> Checked:
    """Check what `write_export` wrote; raises as `check_files_of` does, NOT_FOUND for another directory."""
    if not (directory / _SIGNATURE).is_file() or not (directory / _FILES).is_dir():
        raise SalverError(
            "NOT_FOUND",
            f"{directory.name!r} was not written by `salver export`: it has no {_FILES} and {_SIGNATURE}",
            "name the signature of a directory of files with --signature",
        )
    bundle = read_signature(directory / _SIGNATURE)
    checked = check_files_of(directory / _FILES, bundle, keys)
    claim = open_bundle(bundle, keys).claim
    path = directory / _MANIFEST
    if claim is not None and path.exists() and path.read_bytes() != _pretty(claim.manifest):
        problems = (*checked.problems, f"{_MANIFEST} says something else than what is signed")
        return msgspec.structs.replace(checked, ok=False, problems=problems)
    return checked


def check_files_of(directory: Path, bundle: str, keys: TrustedKeys, signature: Path | None = None) -> Checked:
    """Check every file below `directory`, except `signature` itself, against a signature.

    Raises REFUSED_BY_POLICY when no trusted key signed it, INVALID_ARTIFACT for what is no signature, UNSUPPORTED for
    one that lists no whole files; what differs is told in the answer.
    """
    signed = open_bundle(bundle, keys)
    found, odd = [], []
    for path in _walk(directory):
        if signature is not None and path.samefile(signature):
            continue
        relative = path.relative_to(directory).as_posix()
        if path.is_symlink() or not path.is_file():
            odd.append(f"{relative[:200]!r} is no plain file")
            continue
        with path.open("rb") as file:
            found.append(FileEntry(relative, hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size))
    problems = (*odd, *differences(signed.all_files, found))
    subject = signed.claim.manifest.reference if signed.claim else signed.subject
    return Checked(not problems, signed.key_id, subject, len(found), problems)


def _walk(directory: Path) -> Iterator[Path]:
    """Everything below but directories; links are not followed. Raises INVALID_ARTIFACT for too much."""
    seen = 0
    for parent, directories, names in os.walk(directory):
        links = [name for name in directories if (Path(parent) / name).is_symlink()]
        for name in sorted(names + links):
            seen += 1
            if seen > MAX_FILES:
                raise SalverError("INVALID_ARTIFACT", f"{directory.name!r} has more than {MAX_FILES} files")
            yield Path(parent) / name


def read_signature(path: Path) -> str:
    """The text of a signature's file; INVALID_ARTIFACT for what cannot be one."""
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST_BUNDLE_BYTES + 1)
        if len(data) <= LONGEST_BUNDLE_BYTES:
            return data.decode()
    except (OSError, UnicodeDecodeError):
        pass
    raise SalverError("INVALID_ARTIFACT", f"{path.name!r} is no signature that can be read", "give a .sig file")
