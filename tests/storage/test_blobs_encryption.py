"""The encryption of blobs: its format against Google Tink's, what it notices, and where its keys come from."""

from __future__ import annotations

import io
import os
import sys
import types
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.protocol.errors import SalverError
from salver.runtime.environment import _PASSED_ON, child_environment
from salver.storage.blob_cipher import TAG_BYTES, Decryptor, encrypted, key_name, new_tag, plain_size_bytes
from salver.storage.blob_keys import GivenKeys, HomeKeys, LocalKey, key_encryption
from salver.storage.blob_reader import BlobReader
from salver.storage.blobs import BlobStore
from salver.storage.settings import check_key_source

KEY = bytes(range(32))
CHUNK = 1 << 20
BY_TINK = bytes.fromhex(
    "73616c766572010000000000000000002"
    "8fd4f3fe0d4230ffdf072cca24eb2566aa4f636f40ba369085fd37754ba3211d8"
    "881f23269a89c06e4a35168f69b7bf4b09da989f45cacee523b0b58814"
)
"""A tag of ours, and behind it what tink 1.16.1 made of b"salver": AES256_GCM_HKDF streaming, segments of 2**20
bytes, `KEY`, the tag as associated data."""


def decrypted(data: bytes, key: bytes = KEY, piece: int = 300_000) -> bytes:
    decryptor = Decryptor(key)
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    return b"".join([*(plain for each in pieces for plain in decryptor.update(each)), decryptor.finish()])


def sealed(data: bytes, key: bytes = KEY) -> bytes:
    return b"".join(encrypted(io.BytesIO(data).read, key, new_tag()))


def test_what_tink_has_encrypted_is_read() -> None:
    assert decrypted(BY_TINK) == b"salver"
    assert key_name(BY_TINK[:TAG_BYTES]) == "0" * 16


@pytest.mark.parametrize("size", [0, 1, CHUNK - 57, CHUNK - 56, CHUNK - 55, 2 * CHUNK - 73, 2 * CHUNK - 72, 3 * CHUNK])
def test_every_size_around_the_ends_of_chunks_comes_back(size: int) -> None:
    data = os.urandom(size)
    file = sealed(data)
    assert decrypted(file) == data
    assert decrypted(file, piece=CHUNK) == data
    assert plain_size_bytes(len(file)) == size


@given(st.integers(0, 4 * CHUNK))
def test_a_size_that_no_file_has_is_told_from_one_that_a_file_has(size_bytes: int) -> None:
    plain = plain_size_bytes(size_bytes)
    if plain is not None:
        chunks = max(1, -(-(plain + 40) // (CHUNK - 16)))
        assert size_bytes == TAG_BYTES + 40 + plain + 16 * chunks


FILE = sealed(os.urandom(2 * CHUNK + 1000))
START = TAG_BYTES


def cuts() -> list[bytes]:
    chunks = [FILE[START + n * CHUNK : START + (n + 1) * CHUNK] for n in range(3)]
    head = FILE[:START]
    return [
        b"",
        FILE[: START + 40],
        FILE[:-1],
        FILE[: START + CHUNK],
        FILE[: START + 2 * CHUNK],
        head + chunks[0] + chunks[2],
        head + chunks[1] + chunks[0] + chunks[2],
        head + chunks[0] + chunks[1] + chunks[1] + chunks[2],
        FILE + b"\0",
        FILE + chunks[2],
        sealed(b"other")[:TAG_BYTES] + FILE[TAG_BYTES:],
        b"SALVER" + FILE[6:],
    ]


@pytest.mark.parametrize("file", cuts(), ids=range(12))
def test_a_file_cut_reordered_repeated_or_extended_does_not_decrypt(file: bytes) -> None:
    with pytest.raises(ValueError, match=r"it "):
        decrypted(file)


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_a_file_with_any_byte_changed_does_not_decrypt(at: int, change: int) -> None:
    with pytest.raises(ValueError, match=r"it "):
        decrypted(FILE[:at] + bytes([FILE[at] ^ change]) + FILE[at + 1 :])


def test_the_same_bytes_are_never_encrypted_the_same_way() -> None:
    assert sealed(b"same")[TAG_BYTES:] != sealed(b"same")[TAG_BYTES:]


def test_a_wrapped_key_belongs_to_one_digest_and_one_key() -> None:
    wrapped = HomeKeys("env:SALVER_K")
    wrapped._found["env:SALVER_K"] = LocalKey(KEY)
    kept = wrapped.wrap("a" * 64, b"k" * 32)
    assert wrapped.unwrap("a" * 64, kept) == b"k" * 32
    for digest, data in (("b" * 64, kept), ("a" * 64, kept[:-3]), ("a" * 64, b""), ("a" * 64, None)):
        with pytest.raises(SalverError, match="missing or damaged") as raised:
            wrapped.unwrap(digest, data)
        assert raised.value.code == "CORRUPT_ARTIFACT"
    assert b"k" * 32 not in kept
    assert repr(LocalKey(KEY)) == f"<LocalKey {LocalKey(KEY).key_id}>"


def test_keys_are_read_as_hexadecimal_or_base64_and_nothing_else() -> None:
    import base64

    for text in (KEY.hex(), KEY.hex().upper() + "\n", base64.b64encode(KEY).decode()):
        assert key_encryption("env:SALVER_K", {"SALVER_K": text}).key_id == LocalKey(KEY).key_id
    for text in ("", "  ", "x" * 64, KEY.hex()[:-2], base64.b64encode(KEY[:-1]).decode()):
        with pytest.raises(SalverError) as raised:
            key_encryption("env:SALVER_K", {"SALVER_K": text})
        assert raised.value.code == "INVALID_SETTING"
        assert not text.strip() or text not in str(raised.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text(KEY.hex())
    path.chmod(mode)
    with pytest.raises(SalverError, match="open to others"):
        key_encryption(f"file:{path}")
    path.chmod(0o600)
    assert key_encryption(f"file:{path}").key_id == LocalKey(KEY).key_id


class Service:
    """A key service that answers, until it is away."""

    key_id = "service/1"
    away = False

    def wrap(self, key: bytes, digest: str) -> bytes:
        return digest.encode() + key[::-1]

    def unwrap(self, wrapped: bytes, digest: str) -> bytes:
        if Service.away:
            raise ConnectionError("secret-endpoint does not answer")
        assert wrapped.startswith(digest.encode())
        return wrapped[len(digest) :][::-1]


def test_a_key_service_is_a_class_of_anybodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("somebodys_kms")
    module.Service = Service  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somebodys_kms", module)
    (tmp_path / "source").write_bytes(b"weights")
    store = BlobStore(tmp_path / "blobs", HomeKeys("kms:somebodys_kms:Service"))
    blob = store.put_file(tmp_path / "source")
    assert store.read_verified(blob.sha256) == b"weights"
    monkeypatch.setattr(Service, "away", True)
    with pytest.raises(SalverError) as raised:
        store.read_verified(blob.sha256)
    assert raised.value.code == "STORE_UNAVAILABLE"
    assert "secret-endpoint" not in str(raised.value)
    with pytest.raises(SalverError, match="is no key service: AttributeError"):
        key_encryption("kms:somebodys_kms:Nothing")


def test_no_variable_that_workers_inherit_can_hold_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _PASSED_ON:
        with pytest.raises(SalverError):
            check_key_source("encryption_key", f"env:{name}")
    monkeypatch.setenv(check_key_source("encryption_key", "env:SALVER_KEK").removeprefix("env:"), KEY.hex())
    assert KEY.hex() not in str(child_environment())


def test_what_has_only_data_keys_neither_encrypts_nor_reads_others(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"weights")
    keys = HomeKeys("env:SALVER_K")
    keys._found["env:SALVER_K"] = LocalKey(KEY)
    blob = BlobStore(tmp_path / "blobs", keys).put_file(tmp_path / "source")
    with pytest.raises(SalverError, match="was encrypted while"):
        BlobReader(tmp_path / "blobs", GivenKeys({})).read_verified(blob.sha256)
    with pytest.raises(SalverError, match="does not decrypt"):
        BlobReader(tmp_path / "blobs", GivenKeys({blob.sha256: b"w" * 32})).read_verified(blob.sha256)


def test_a_damaged_key_is_healed_by_storing_the_same_bytes_again(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"weights")
    keys = HomeKeys("env:SALVER_K")
    keys._found["env:SALVER_K"] = LocalKey(KEY)
    store = BlobStore(tmp_path / "blobs", keys)
    blob = store.put_file(tmp_path / "source")
    (key,) = (tmp_path / "blobs").glob("*.key")
    key.unlink()
    with pytest.raises(SalverError, match="register the same file again"):
        store.read_verified(blob.sha256)
    assert store.put_file(tmp_path / "source") == blob
    assert store.read_verified(blob.sha256) == b"weights"
