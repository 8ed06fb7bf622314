from __future__ import annotations

import pytest

from salver.protocol.errors import SalverError
from salver.registry.keyring import Keyring
from salver.security.keys import SigningKey, new_signing_pem
from salver.storage.home import Home


@pytest.fixture
def keyring(home: Home) -> Keyring:
    return Keyring(home)


def uses(keyring: Keyring) -> dict[str, str]:
    return {each.key_id: each.use for each in keyring.describe()}


def test_the_key_that_signs_is_trusted_from_its_first_use_on(home: Home, keyring: Keyring) -> None:
    assert not keyring.has_keys
    key = keyring.signing()
    assert keyring.has_keys
    assert keyring.trusted().key_ids == (key.key_id,)
    assert Keyring(home).signing().key_id == key.key_id
    assert uses(keyring) == {key.key_id: "signs", keyring.audit().key_id: "audit"}
    assert all("PRIVATE" not in each.pem for each in keyring.describe())


def test_rotation_signs_with_another_key_and_trusts_both(keyring: Keyring) -> None:
    first = keyring.signing()
    before, after = keyring.rotate()
    assert (before, after) == (first.key_id, keyring.signing().key_id)
    assert before != after
    assert set(keyring.trusted().key_ids) == {before, after}
    assert uses(keyring)[before] == "trusted"


def test_a_death_half_way_through_a_rotation_leaves_a_home_that_signs_and_trusts_itself(
    keyring: Keyring, monkeypatch
) -> None:
    first = keyring.signing().key_id
    # The new key is in its place, and the process dies before it is trusted.
    monkeypatch.setattr("salver.storage.trust.create_once", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        keyring.rotate()
    monkeypatch.undo()
    second = keyring.signing().key_id
    assert set(keyring.trusted().key_ids) == {first, second}


def test_a_distrusted_key_is_trusted_no_more_under_any_name(home: Home, keyring: Keyring) -> None:
    old, new = (keyring.signing().key_id, keyring.rotate()[1])
    (home.trust_path / "copy.pub").write_bytes((home.trust_path / f"{old}.pub").read_bytes())
    assert keyring.distrust(old[:10]).key_id == old
    assert keyring.trusted().key_ids == (new,)
    assert uses(keyring)[old] == "distrusted"
    assert not (home.trust_path / "copy.pub").exists()
    pem = (home.trust_path / f"{old}.distrusted").read_bytes()
    (home.trust_path / "again.pub").write_bytes(pem)
    assert keyring.trusted().key_ids == (new,)
    with pytest.raises(SalverError, match="was distrusted"):
        keyring.trust(pem, "again")


def test_the_key_that_signs_now_is_not_distrusted_before_another_takes_its_place(keyring: Keyring) -> None:
    key_id = keyring.signing().key_id
    with pytest.raises(SalverError, match="the one this home signs with") as raised:
        keyring.distrust(key_id)
    assert raised.value.code == "CONFLICT"
    assert keyring.trusted().key_ids == (key_id,)


def test_a_home_whose_own_key_was_distrusted_by_hand_signs_nothing_until_it_has_another(
    home: Home, keyring: Keyring
) -> None:
    old = keyring.signing().key_id
    (home.trust_path / f"{old}.distrusted").write_bytes(b"")
    with pytest.raises(SalverError, match=r"own signing key .* is distrusted"):
        keyring.signing()
    assert keyring.rotate()[0] == old
    assert keyring.trusted().key_ids == (keyring.signing().key_id,)


@pytest.mark.parametrize("fingerprint", ["", "0" * 64, "abc", "../../x"])
def test_a_key_that_is_not_there_cannot_be_distrusted(keyring: Keyring, fingerprint: str) -> None:
    keyring.signing()
    with pytest.raises(SalverError, match="no single trusted key has the fingerprint") as raised:
        keyring.distrust(fingerprint)
    assert raised.value.code == "NOT_FOUND"


def test_keys_of_others_are_trusted_by_a_name(keyring: Keyring) -> None:
    theirs, another = (SigningKey.parse(new_signing_pem()).public for _ in range(2))
    assert keyring.trust(theirs.pem, "vision-team").key_id == theirs.key_id
    assert theirs.key_id in keyring.trusted().key_ids
    with pytest.raises(SalverError, match="is trusted already"):
        keyring.trust(theirs.pem, "elsewhere")
    with pytest.raises(SalverError, match="a trusted key called 'vision-team'"):
        keyring.trust(another.pem, "vision-team")


@pytest.mark.parametrize("name", ["", "../up", "a/b", "A", "x" * 200, ".hidden"])
def test_the_name_of_a_key_never_becomes_a_path(home: Home, keyring: Keyring, name: str) -> None:
    with pytest.raises(SalverError) as raised:
        keyring.trust(SigningKey.parse(new_signing_pem()).public.pem, name)
    assert raised.value.code == "INVALID_NAME"
    assert not home.trust_path.exists()
