"""Signed manifests: who vouches for which files, in the format of the OpenSSF's `model_signing` 1.1.

A manifest is an in-toto statement in a DSSE envelope in a Sigstore bundle, signed with ECDSA P-256 and
SHA-256. The command `model_signing verify key` takes what is written here, and what `model_signing sign key`
writes is taken here, where it lists whole files by their SHA-256 (not shards, nor another hash).

That tool binds names and bytes of files; of the statement's subject it reads the name and compares nothing.
Here more is bound: under `salver` in the predicate, where version 1.0 of the predicate tells verifiers to pass
over what they do not know, stands the version's whole manifest - name, number, format, whether its code is
trusted, signature, processing, files with their sizes. So one envelope serves both, and a version cannot
be passed off as another one (replay, downgrade) nor be given other settings. The manifest stands there itself
and not as a digest over it, so that it can still be compared when a later Salver knows more fields.

Where the tool is lenient, this is strict: each file of a version is to be listed, each once, there is one
signature, and the statement's own list of ignored paths is not heeded. Only in what is written here git's own files at
the top are left out of the list, as the tool leaves them out unless told otherwise: it would miss them if they were
listed. The manifest under `salver` covers those as well.

DSSE: https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md; statement: in-toto attestation v1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.tables import FileEntry, VersionManifest
from salver.security.keys import SigningKey, TrustedKeys, VerifyingKey

__all__ = [
    "LONGEST_BUNDLE_BYTES",
    "Claim",
    "Publisher",
    "SignedFiles",
    "differences",
    "open_bundle",
    "require_manifest",
    "sign_manifest",
]

LONGEST_BUNDLE_BYTES: Final = 8 * 2**20
_BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD: Final = "application/vnd.in-toto+json"
_STATEMENT: Final = "https://in-toto.io/Statement/v1"
_PREDICATE: Final = "https://model_signing/signature/v1.0"
_IGNORED: Final = (".git", ".gitattributes", ".github", ".gitignore")
_MOST_SHOWN: Final = 5
_REGISTER_AGAIN: Final = "if you trust its files, register them under another number; `salver keys show` lists keys"

_T = TypeVar("_T")


class Publisher(msgspec.Struct, frozen=True):
    """Whose signature came with the files, and that signature."""

    key_id: str
    bundle: str


class Claim(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a home says of a version when it signs it."""

    manifest: VersionManifest
    publisher: Publisher | None = None


class _Resource(msgspec.Struct, frozen=True):
    name: str
    digest: str
    algorithm: str = "sha256"


class _Serialization(msgspec.Struct, frozen=True):
    method: str
    hash_type: str = "sha256"
    allow_symlinks: bool = False
    ignore_paths: tuple[str, ...] = ()


class _Predicate(msgspec.Struct, frozen=True, omit_defaults=True):
    serialization: _Serialization
    resources: tuple[_Resource, ...]
    salver: Claim | None = None


class _Subject(msgspec.Struct, frozen=True):
    name: str
    digest: dict[str, str]


class _Statement(msgspec.Struct, frozen=True, rename={"type": "_type", "predicate_type": "predicateType"}):
    type: str
    subject: tuple[_Subject, ...]
    predicate_type: str
    predicate: _Predicate


class _KeyHint(msgspec.Struct, frozen=True):
    hint: str | None = None


class _Material(msgspec.Struct, frozen=True, rename="camel"):
    public_key: _KeyHint | None = None
    tlog_entries: tuple[Any, ...] = ()


class _Signature(msgspec.Struct, frozen=True):
    sig: str
    keyid: str = ""


class _Envelope(msgspec.Struct, frozen=True, rename="camel"):
    payload: str
    payload_type: str
    signatures: tuple[_Signature, ...]


class _Bundle(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class SignedFiles(msgspec.Struct, frozen=True):
    """What a verified bundle vouches for.

    `files` are those in its list; where there is a `claim`, its manifest has git's own files as well.
    """

    key_id: str
    """Who signed."""
    subject: str
    """What the signer called it; for people."""
    files: dict[str, str]
    """SHA-256 by path."""
    claim: Claim | None
    """What Salver says of it; None in what others have signed."""

    @property
    def all_files(self) -> dict[str, str]:
        """SHA-256 by path of every file that is vouched for."""
        return {file.path: file.sha256 for file in self.claim.manifest.files} if self.claim else self.files


def sign_manifest(key: SigningKey, manifest: VersionManifest, publisher: Publisher | None = None) -> str:
    """The bundle, as JSON text, in which `key` vouches for a version's files and for all that its manifest says.

    `publisher` is whose signature the files came with, if they did; it is to be trusted as long as the version is.
    Raises INVALID_ARTIFACT for a version of which so much is said that nobody would read its bundle.
    """
    claimed = msgspec.structs.replace(manifest, attestation="")
    files = [file for file in claimed.files if not _is_ignored(file.path)]
    files.sort(key=lambda file: PurePosixPath(file.path))
    statement = _Statement(
        _STATEMENT,
        (_Subject(claimed.reference, {"sha256": _root_digest(file.sha256 for file in files)}),),
        _PREDICATE,
        _Predicate(
            _Serialization("files", ignore_paths=_IGNORED),
            tuple(_Resource(file.path, file.sha256) for file in files),
            Claim(claimed, publisher),
        ),
    )
    payload = msgspec.json.encode(statement)
    signature = key.sign(_pre_authentication(payload))
    bundle = _Bundle(
        _BUNDLE,
        _Material(_KeyHint(_hint(key.public))),
        _Envelope(_base64(payload), _PAYLOAD, (_Signature(_base64(signature)),)),
    )
    text = msgspec.json.encode(bundle).decode()
    if len(text) > LONGEST_BUNDLE_BYTES:
        raise SalverError(
            "INVALID_ARTIFACT",
            f"the signature of {claimed.reference} would have {len(text)} bytes",
            f"at most {LONGEST_BUNDLE_BYTES} are read: register fewer files, or without the signature they came with",
        )
    return text


def open_bundle(text: str | bytes, keys: TrustedKeys) -> SignedFiles:
    """What a bundle vouches for, if one of `keys` has signed it.

    Raises INVALID_ARTIFACT for what is no such bundle or is damaged, REFUSED_BY_POLICY when no trusted key
    signed it, UNSUPPORTED for a statement that lists something else than whole files by their SHA-256.
    """
    if len(text) > LONGEST_BUNDLE_BYTES:
        raise _malformed(f"it has more than {LONGEST_BUNDLE_BYTES} bytes")
    bundle = _decoded(text, _Bundle)
    envelope = bundle.dsse_envelope
    if bundle.media_type != _BUNDLE or envelope.payload_type != _PAYLOAD:
        raise _malformed(f"it is of the type {bundle.media_type[:100]!r} with {envelope.payload_type[:100]!r}")
    if len(envelope.signatures) != 1:
        raise _malformed(f"it has {len(envelope.signatures)} signatures, and one is expected")
    payload = _unbase64(envelope.payload)
    signer = keys.signer(_unbase64(envelope.signatures[0].sig), _pre_authentication(payload))
    hint = bundle.verification_material.public_key.hint if bundle.verification_material.public_key else None
    if signer is None or (hint and hint != _hint(signer)):
        raise SalverError(
            "REFUSED_BY_POLICY",
            "the signature is not by a key that this home trusts, or what it signs was changed",
            "if you trust whoever signed it: `salver keys trust FILE` with that key",
        )
    return _read_statement(_decoded(payload, _Statement), signer)


def _read_statement(statement: _Statement, signer: VerifyingKey) -> SignedFiles:
    if statement.type != _STATEMENT or statement.predicate_type != _PREDICATE or len(statement.subject) != 1:
        raise _malformed(f"it is a statement of the type {statement.predicate_type[:100]!r}")
    (subject,), predicate = statement.subject, statement.predicate
    how = predicate.serialization
    if how.method != "files" or how.hash_type != "sha256":
        raise SalverError(
            "UNSUPPORTED",
            f"the signature lists {how.method[:20]} by {how.hash_type[:20]}; only files by sha256 are read",
            "sign with `model_signing sign key` as it is by default",
        )
    files = {resource.name: resource.digest for resource in predicate.resources}
    if len(files) != len(predicate.resources) or any(each.algorithm != "sha256" for each in predicate.resources):
        raise _malformed("it lists a file twice, or by another hash")
    try:
        root = _root_digest(files.values())
    except ValueError:
        raise _malformed("it lists a file without a digest") from None
    if subject.digest.get("sha256") != root:
        raise _malformed("the digest over its files is another one")
    return SignedFiles(signer.key_id, subject.name, files, predicate.salver)


def require_manifest(manifest: VersionManifest, keys: TrustedKeys) -> SignedFiles:
    """Raise unless a trusted key vouches for exactly this manifest, all of it, and so does whoever published it.

    Raises REFUSED_BY_POLICY naming what is signed otherwise, and whatever `open_bundle` does. Looks at no file:
    that their bytes are those of the manifest is for those to check who open them.
    """
    if not manifest.attestation:
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{manifest.reference} is not signed",
            "register it again under another number; registering signs",
        )
    try:
        signed = open_bundle(manifest.attestation, keys)
    except SalverError as error:
        message = f"the manifest of {manifest.reference} does not verify: {error.message}"
        raise SalverError("REFUSED_BY_POLICY", message, _REGISTER_AGAIN) from error
    if signed.claim is None:
        raise SalverError("REFUSED_BY_POLICY", f"{manifest.reference} is signed, but not as a version", _REGISTER_AGAIN)
    for field in VersionManifest.__struct_fields__:
        if field != "attestation" and getattr(signed.claim.manifest, field) != getattr(manifest, field):
            raise SalverError(
                "REFUSED_BY_POLICY",
                f"{manifest.reference} was signed with another {field}",
                "if nobody but Salver should have changed the home, restore it from a backup",
            )
    if wrong := differences(signed.files, [file for file in manifest.files if not _is_ignored(file.path)]):
        raise SalverError("REFUSED_BY_POLICY", f"{manifest.reference} is signed with other files: {wrong[0]}")
    publisher = signed.claim.publisher
    if publisher is not None and publisher.key_id not in keys.key_ids:
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{manifest.reference} came with a signature by the key {publisher.key_id[:16]}, "
            "which this home does not trust any more",
            _REGISTER_AGAIN,
        )
    return signed


def differences(signed: Mapping[str, str], files: Iterable[FileEntry]) -> list[str]:
    """How `files` differ from those that are signed, a line each; nothing where they are the very same."""
    found = {file.path: file.sha256 for file in files}
    missing = sorted(signed.keys() - found.keys())
    added = sorted(found.keys() - signed.keys())
    changed = sorted(path for path in signed.keys() & found.keys() if signed[path] != found[path])
    lines = [f"file {path[:200]!r} is missing" for path in missing[:_MOST_SHOWN]]
    lines += [f"file {path[:200]!r} is not signed" for path in added[:_MOST_SHOWN]]
    lines += [f"file {path[:200]!r} has other bytes" for path in changed[:_MOST_SHOWN]]
    return lines


def _is_ignored(path: str) -> bool:
    """Whether the tool passes over this file, unless it is told not to.

    >>> [_is_ignored(path) for path in (".git/config", ".gitignore", "a/.gitignore", ".gitlab")]
    [True, True, False, False]
    """
    return path.partition("/")[0] in _IGNORED


def _root_digest(digests: Iterable[str]) -> str:
    """SHA-256 over the files' digests in their order."""
    whole = hashlib.sha256()
    for digest in digests:
        raw = bytes.fromhex(digest)
        if len(raw) != hashlib.sha256().digest_size or digest != raw.hex():
            raise ValueError(digest)
        whole.update(raw)
    return whole.hexdigest()


def _pre_authentication(payload: bytes) -> bytes:
    """What DSSE signs: the payload with its type and their lengths.

    >>> _pre_authentication(b"{}")
    b'DSSEv1 28 application/vnd.in-toto+json 2 {}'
    """
    return f"DSSEv1 {len(_PAYLOAD)} {_PAYLOAD} {len(payload)} ".encode() + payload


def _hint(key: VerifyingKey) -> str:
    """How the tool tells keys apart: SHA-256 over the PEM text, not over what it encodes."""
    return hashlib.sha256(key.pem).hexdigest()


def _decoded(data: str | bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _malformed(str(error)) from error


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("what it holds is not base64") from None


def _malformed(why: str) -> SalverError:
    return SalverError("INVALID_ARTIFACT", f"the signature cannot be read: {why}", "give a bundle of `model_signing`")
