"""Files encrypted in chunks: the streaming AEAD "AES256-GCM-HKDF-1MB" in the wire format of Google Tink.

    tag (16 bytes)        mark of this format, and the name of the data key
    header (40 bytes)     its length, salt (32), nonce prefix (7)
    chunk, chunk, ...     2**20 bytes each but for the last; the header counts as part of the first

Each file has a key of its own, HKDF-SHA256(data key, salt, associated data); the nonce of chunk i is
prefix | i (4 bytes) | 1 if it is the last, else 0. This is the STREAM construction of Hoang, Reyhanitabar,
Rogaway and Vizar, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance" (CRYPTO 2015),
section 7: chunks that were changed, left out, repeated, reordered or cut off at the end do not decrypt.
What follows the tag is what Tink's `StreamingAead` reads and writes with the same key and associated data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["KEY_BYTES", "TAG_BYTES", "Decryptor", "encrypted", "key_name", "new_tag", "plain_size_bytes"]

KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
_MARK: Final = b"salver\x01\x00"
_SALT_BYTES: Final = 32
_PREFIX_BYTES: Final = 7
_HEADER_BYTES: Final = 1 + _SALT_BYTES + _PREFIX_BYTES
_SEAL_BYTES: Final = 16
_CHUNK_BYTES: Final = 1 << 20
_FIRST_CHUNK_BYTES: Final = _CHUNK_BYTES - _HEADER_BYTES

Read = Callable[[int], bytes]
"""Reads so many bytes, less at the end only."""


def new_tag() -> bytes:
    """The beginning of a file that is going to be encrypted under a new data key."""
    return _MARK + os.urandom(TAG_BYTES - len(_MARK))


def key_name(tag: bytes) -> str | None:
    """The name of the data key that a file begins with; None where it does not begin so."""
    return tag[len(_MARK) :].hex() if len(tag) == TAG_BYTES and tag.startswith(_MARK) else None


def plain_size_bytes(size_bytes: int) -> int | None:
    """How much a file of this size holds; None for a size that no encrypted file has."""
    rest = size_bytes - TAG_BYTES
    chunks = -(-rest // _CHUNK_BYTES)
    plain = rest - _HEADER_BYTES - _SEAL_BYTES * chunks
    last = rest - (chunks - 1) * _CHUNK_BYTES - (_HEADER_BYTES if chunks == 1 else 0)
    return plain if plain >= 0 and last >= _SEAL_BYTES else None


def encrypted(read: Read, key: bytes, tag: bytes) -> Iterator[bytes]:
    """The pieces of the file that holds what `read` gives."""
    salt, prefix = os.urandom(_SALT_BYTES), os.urandom(_PREFIX_BYTES)
    cipher = _cipher(key, salt, tag)
    yield tag + bytes([_HEADER_BYTES]) + salt + prefix
    index, chunk = 0, read(_FIRST_CHUNK_BYTES - _SEAL_BYTES)
    while True:
        following = read(_CHUNK_BYTES - _SEAL_BYTES)
        yield cipher.encrypt(_nonce(prefix, index, last=not following), chunk, None)
        if not following:
            return
        index, chunk = index + 1, following


class Decryptor:
    """Takes an encrypted file in pieces of any size, and gives what it holds piece by piece.

    What it gives is authentic, but only `finish` says that it was all. Both raise ValueError for a file
    that was changed or cut, or was encrypted under another key.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._rest = bytearray()
        self._cipher: AESGCM | None = None
        self._prefix = b""
        self._index = 0

    def update(self, piece: bytes) -> Iterator[bytes]:
        """What can be told now, before more has come."""
        self._rest += piece
        if self._cipher is None and not self._begin():
            return
        # One chunk is held back: whether it is the last is known when more has come.
        while len(self._rest) > self._chunk_bytes:
            yield self._decrypt(self._chunk_bytes, last=False)

    def finish(self) -> bytes:
        """The last piece."""
        if self._cipher is None:
            raise ValueError("it is cut off")
        return self._decrypt(len(self._rest), last=True)

    @property
    def _chunk_bytes(self) -> int:
        return _CHUNK_BYTES if self._index else _FIRST_CHUNK_BYTES

    def _begin(self) -> bool:
        if len(self._rest) < TAG_BYTES + _HEADER_BYTES:
            return False
        tag, length = bytes(self._rest[:TAG_BYTES]), self._rest[TAG_BYTES]
        if key_name(tag) is None or length != _HEADER_BYTES:
            raise ValueError("it is no encrypted file")
        header = bytes(self._rest[TAG_BYTES + 1 : TAG_BYTES + _HEADER_BYTES])
        self._cipher, self._prefix = _cipher(self._key, header[:_SALT_BYTES], tag), header[_SALT_BYTES:]
        del self._rest[: TAG_BYTES + _HEADER_BYTES]
        return True

    def _decrypt(self, size: int, *, last: bool) -> bytes:
        assert self._cipher is not None
        try:
            with memoryview(self._rest) as view, view[:size] as chunk:
                plain = self._cipher.decrypt(_nonce(self._prefix, self._index, last=last), chunk, None)
        except InvalidTag:
            raise ValueError("it was changed, cut or encrypted under another key") from None
        del self._rest[:size]
        self._index += 1
        return plain


def _cipher(key: bytes, salt: bytes, associated: bytes) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt, associated).derive(key))


def _nonce(prefix: bytes, index: int, *, last: bool) -> bytes:
    return prefix + index.to_bytes(4) + bytes([last])
