from __future__ import annotations

import hashlib
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from salver.protocol.errors import SalverError
from salver.security.keys import (
    AuditKey,
    AuditPublicKey,
    SigningKey,
    TrustedKeys,
    VerifyingKey,
    audit_key,
    new_signing_pem,
    signing_key,
)
from salver.storage.home import Home
from salver.storage.trust import TrustDirectory


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home")


def pem_of(public) -> bytes:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(private) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(("take", "name"), [(signing_key, "signing.key"), (audit_key, "audit.key")])
def test_a_home_makes_each_key_once_and_for_its_owner_alone(home: Home, take, name: str) -> None:
    first, second = take(home), take(Home.open(home.path))
    assert first.key_id == second.key_id
    assert second.public.verifies(first.sign(b"message"), b"message")
    assert not second.public.verifies(first.sign(b"message"), b"another")
    assert not second.public.verifies(b"no signature", b"message")
    path = home.secrets_path / name
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in home.secrets_path.iterdir() if each.suffix == ".tmp"] == []


@pytest.mark.parametrize("take", [signing_key, audit_key])
def test_racing_openers_of_a_home_use_one_key(home: Home, take) -> None:
    start = threading.Barrier(8)
    found = []

    def race() -> None:
        start.wait()
        found.append(take(home).key_id)

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_rights_that_a_restore_has_widened_are_taken_back(home: Home) -> None:
    signing_key(home)
    path = home.secrets_path / "signing.key"
    path.chmod(0o644)
    signing_key(home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        private_pem(ec.generate_private_key(ec.SECP384R1())),
        private_pem(rsa.generate_private_key(65537, 2048)),
    ],
    ids=["empty", "text", "damaged", "another curve", "another kind"],
)
@pytest.mark.parametrize(("take", "name"), [(signing_key, "signing.key"), (audit_key, "audit.key")])
def test_a_damaged_key_is_refused_and_not_replaced(home: Home, take, name: str, content: bytes) -> None:
    path = home.secrets_path / name
    path.write_bytes(content)
    with pytest.raises(SalverError, match=f"secrets/{name} is not the private key") as raised:
        take(home)
    assert raised.value.code == "REFUSED_BY_POLICY"
    assert str(home.path) not in str(raised.value)
    assert path.read_bytes() == content


def test_a_key_is_known_by_the_digest_of_its_public_half() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    info = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = SigningKey.parse(private_pem(private))
    assert key.key_id == key.public.key_id == hashlib.sha256(info).hexdigest()
    assert VerifyingKey.parse(key.public.pem, "x").key_id == key.key_id
    audit = AuditKey.parse(private_pem(ed25519.Ed25519PrivateKey.generate()))
    assert AuditPublicKey.parse(audit.public.pem, "x").key_id == audit.key_id


@pytest.mark.parametrize("kind", [VerifyingKey, AuditPublicKey])
@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\xff", pem_of(ec.generate_private_key(ec.SECP521R1()).public_key()), new_signing_pem()],
    ids=["empty", "binary", "another curve", "a private key"],
)
def test_what_is_no_public_key_of_its_kind_is_refused_by_name(kind, content: bytes) -> None:
    with pytest.raises(SalverError, match=r"'team\.pub' holds no") as raised:
        kind.parse(content, "team.pub")
    assert raised.value.code == "INVALID_ARTIFACT"


def test_trusted_are_the_keys_in_the_directory_but_for_those_distrusted_and_those_that_are_none(tmp_path: Path) -> None:
    keys = [SigningKey.parse(new_signing_pem()) for _ in range(3)]
    directory = TrustDirectory(tmp_path / "trust")
    assert TrustedKeys.read(directory).key_ids == ()
    for number, key in enumerate(keys):
        assert directory.add(key.key_id, key.public.pem, f"team-{number}")
    (tmp_path / "trust" / "broken.pub").write_bytes(b"no key")
    (tmp_path / "trust" / "directory.pub").mkdir()
    (tmp_path / "trust" / "gone.pub").symlink_to(tmp_path / "nothing")
    (tmp_path / "trust" / "note.txt").write_bytes(keys[0].public.pem)
    directory.distrust(keys[1].key_id, keys[1].public.pem, ())
    found = TrustedKeys.read(directory)
    assert set(found.key_ids) == {keys[0].key_id, keys[2].key_id}, "though the file of the second is still there"
    assert set(found.unreadable) == {"broken.pub", "directory.pub", "gone.pub"}
    signer = found.signer(keys[2].sign(b"m"), b"m")
    assert signer is not None
    assert signer.key_id == keys[2].key_id
    assert found.signer(keys[1].sign(b"m"), b"m") is None
    assert set(TrustedKeys.of(found.pems).key_ids) == set(found.key_ids)
