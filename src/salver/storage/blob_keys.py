"""Data keys of blobs, wrapped by a key-encryption key that is not kept in the store.

Each encrypted blob has a data key of its own. Beside the blob stands the key, wrapped: encrypted
under the key-encryption key, with the blob's digest as associated data. So a blob under another
one's name, with its wrapped key or without, does not decrypt; and changing the key-encryption key
means to wrap small keys anew, not to write large files.

Where a key-encryption key is, `storage.toml` says:

    env:SALVER_NAME     an environment variable; workers, which run users' code, inherit none that begins so
    file:PATH           a file that nobody else may read (mode 0600)
    kms:module:Class    an object of that class, made without arguments: a `KeyEncryption`

The first two hold 32 bytes, as 64 hexadecimal digits or in Base64. No message repeats any of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from salver.protocol.errors import SalverError
from salver.storage.blob_cipher import KEY_BYTES

__all__ = [
    "LARGEST_KEPT_BYTES",
    "DataKeys",
    "GivenKeys",
    "HomeKeys",
    "KeyEncryption",
    "LocalKey",
    "WrappedKey",
    "WrappingKeys",
    "key_encryption",
]

LARGEST_KEPT_BYTES: Final = 1 << 16
"""Of what stands beside an encrypted blob; no more of it is read."""

_NONCE_BYTES: Final = 12
_LARGEST_FILE: Final = 4096
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_CONTEXT: Final = b"salver blob "
_SEE: Final = "see docs/artifacts.md"


class KeyEncryption(Protocol):
    """A key-encryption key, wherever it is. May be asked from several threads, and may block."""

    @property
    def key_id(self) -> str:
        """Names the key, is no secret, and changes when the key does."""

    def wrap(self, key: bytes, digest: str) -> bytes:
        """A data key in a form that only `unwrap` with the same digest makes a key of again."""

    def unwrap(self, wrapped: bytes, digest: str) -> bytes:
        """The data key; raises whatever it likes where it is another key, another digest, or damaged."""


class WrappedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What stands beside an encrypted blob."""

    key_id: str
    wrapped: bytes


class LocalKey:
    """A key-encryption key of 32 bytes in this process: AES-256-GCM with a random nonce."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self.key_id = hashlib.sha256(b"salver key id" + key).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"<LocalKey {self.key_id}>"

    def wrap(self, key: bytes, digest: str) -> bytes:
        """See `KeyEncryption`."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key, _CONTEXT + digest.encode())

    def unwrap(self, wrapped: bytes, digest: str) -> bytes:
        """See `KeyEncryption`; raises InvalidTag."""
        return self._cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], _CONTEXT + digest.encode())


def key_encryption(source: str, environment: Mapping[str, str] = os.environ) -> KeyEncryption:
    """The key-encryption key at `source`; raises INVALID_SETTING where there is none that could be used."""
    kind, _, place = source.partition(":")
    if kind == "env":
        return LocalKey(_of_text(environment.get(place, ""), f"environment variable {place}"))
    if kind == "file":
        return LocalKey(_of_text(_private_text(Path(place)), "the file of the encryption key"))
    module, _, name = place.partition(":")
    try:
        made: KeyEncryption = getattr(importlib.import_module(module), name)()
        str(made.key_id), made.wrap, made.unwrap
    except Exception as error:
        raise SalverError(
            "INVALID_SETTING",
            f"{module}:{name} is no key service: {type(error).__name__}",
            f"install what it is in and set up what it needs; {_SEE}",
        ) from error
    return made


def _of_text(text: str, where: str) -> bytes:
    text = text.strip()
    try:
        key = bytes.fromhex(text) if _HEX.fullmatch(text) else base64.b64decode(text, b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SalverError(
            "INVALID_SETTING",
            f"{where} holds no key of {KEY_BYTES} bytes" if text else f"{where} is not set, or empty",
            "make a key with `openssl rand -hex 32`; what is encrypted under another needs that one",
        )
    return key


def _private_text(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SalverError(
            "INVALID_SETTING", f"the file of the encryption key cannot be read: {error.strerror}", _SEE
        ) from None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077:
            raise SalverError(
                "INVALID_SETTING",
                f"the file of the encryption key is open to others (mode {stat.S_IMODE(found.st_mode):04o})",
                "chmod 600 it, and consider who may have read it",
            )
        return file.read(_LARGEST_FILE).decode(errors="replace")


class DataKeys(Protocol):
    """Where who reads blobs has their data keys from."""

    def unwrap(self, digest: str, kept: bytes | None) -> bytes:
        """The data key of a blob; raises CORRUPT_ARTIFACT where what is kept is absent or damaged."""


class WrappingKeys(DataKeys, Protocol):
    """Where who stores blobs has the data keys from."""

    @property
    def encrypts(self) -> bool:
        """Whether new blobs are encrypted."""

    def wrap(self, digest: str, key: bytes) -> bytes:
        """What to keep beside the blob."""


class HomeKeys:
    """The data keys of a home: its key-encryption key, looked for when it is needed first, and the one before."""

    def __init__(self, current: str, previous: str = "") -> None:
        self._sources = [source for source in (current, previous) if source]
        self.encrypts = bool(current)
        self._found: dict[str, KeyEncryption] = {}

    def _key(self, source: str) -> KeyEncryption:
        if source not in self._found:
            self._found[source] = key_encryption(source)
        return self._found[source]

    def wrap(self, digest: str, key: bytes) -> bytes:
        """See `WrappingKeys`; raises INVALID_SETTING where the key-encryption key is not to be had."""
        return wrap(self._key(self._sources[0]), digest, key)

    def unwrap(self, digest: str, kept: bytes | None) -> bytes:
        """See `DataKeys`; raises INVALID_SETTING where the key-encryption key is not the one that is needed."""
        wrapped = _read(digest, kept)
        if not self._sources:
            raise SalverError(
                "INVALID_SETTING",
                f"blob {digest} is encrypted, and no encryption key is set",
                f"set encryption_key to what it was when the blob was stored; {_SEE}",
            )
        keys = [self._key(source) for source in self._sources]
        for key in keys:
            if key.key_id == wrapped.key_id:
                return unwrap(key, digest, wrapped)
        raise SalverError(
            "INVALID_SETTING",
            f"blob {digest} is encrypted under the key {wrapped.key_id[:64]!r}, "
            f"and encryption_key is {', '.join(repr(key.key_id) for key in keys)}",
            f"set encryption_key to that key, or name it in previous_encryption_key; {_SEE}",
        )


class GivenKeys:
    """The data keys of some blobs and nothing else: what a worker is given."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = keys

    def unwrap(self, digest: str, kept: bytes | None) -> bytes:  # noqa: ARG002 - the key is here already
        """See `DataKeys`."""
        try:
            return self._keys[digest]
        except KeyError:
            raise SalverError(
                "CORRUPT_ARTIFACT",
                f"blob {digest} was encrypted while the version was being loaded",
                "load the version again",
            ) from None


def wrap(encryption: KeyEncryption, digest: str, key: bytes) -> bytes:
    """A data key as it is kept; raises STORE_UNAVAILABLE where a key service fails."""
    try:
        return msgspec.json.encode(WrappedKey(encryption.key_id, encryption.wrap(key, digest)))
    except Exception as error:
        raise _unavailable(error) from error


def unwrap(encryption: KeyEncryption, digest: str, wrapped: WrappedKey) -> bytes:
    """The data key; REQUIRES that it was wrapped by `encryption`."""
    try:
        key = encryption.unwrap(wrapped.wrapped, digest)
    except (InvalidTag, ValueError):
        raise _damaged(digest) from None
    except Exception as error:
        raise _unavailable(error) from error
    if len(key) != KEY_BYTES:
        raise _damaged(digest)
    return key


def rewrapped(kept: bytes, digest: str, old: KeyEncryption, new: KeyEncryption) -> bytes | None:
    """What is kept, under another key-encryption key; None where it is under that one already.

    Raises CORRUPT_ARTIFACT for what is damaged, INVALID_SETTING for what is under a third key.
    """
    wrapped = _read(digest, kept)
    if wrapped.key_id == new.key_id:
        unwrap(new, digest, wrapped)
        return None
    if wrapped.key_id != old.key_id:
        raise SalverError(
            "INVALID_SETTING",
            f"blob {digest} is encrypted under the key {wrapped.key_id[:64]!r}, not under {old.key_id!r}",
            "name that key as the old one; what has been wrapped anew stays so",
        )
    return wrap(new, digest, unwrap(old, digest, wrapped))


def _read(digest: str, kept: bytes | None) -> WrappedKey:
    try:
        return msgspec.json.decode(kept or b"", type=WrappedKey)
    except msgspec.DecodeError:
        raise _damaged(digest) from None


def _damaged(digest: str) -> SalverError:
    return SalverError(
        "CORRUPT_ARTIFACT",
        f"the wrapped key of blob {digest} is missing or damaged",
        "register the same file again, or restore the key file of that name from a backup",
    )


def _unavailable(error: Exception) -> SalverError:
    # What a service says may hold what it was asked.
    return SalverError(
        "STORE_UNAVAILABLE", f"the key service failed: {type(error).__name__}", "retry when the service is back"
    )
