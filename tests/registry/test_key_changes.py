from __future__ import annotations

import threading

import pytest

from salver.protocol.errors import SalverError
from salver.registry.key_changes import KeyChanges, Rotated
from salver.registry.keyring import Keyring
from salver.security.keys import SigningKey, new_signing_pem
from salver.storage.home import Home
from salver.storage.journal import Journal, digest_of

THEIRS = SigningKey.parse(new_signing_pem()).public


@pytest.fixture
def keyring(home: Home) -> Keyring:
    return Keyring(home)


@pytest.fixture
def changes(database, journal: Journal, keyring: Keyring) -> KeyChanges:
    return KeyChanges(database, journal, keyring)


def test_each_change_is_made_and_recorded_by_whom(changes: KeyChanges, keyring: Keyring, journal, admin) -> None:
    first = keyring.signing().key_id
    rotated = changes.rotate(admin)
    assert rotated == Rotated(first, keyring.signing().key_id)
    trusted = changes.trust(admin, THEIRS.pem.decode(), "theirs")
    assert (trusted.use, trusted.name) == ("trusted", "theirs.pub")
    assert trusted in keyring.describe()
    distrusted = changes.distrust(admin, THEIRS.key_id[:12])
    assert THEIRS.key_id not in keyring.trusted().key_ids
    assert [(each.action, each.subject, each.actor, each.details) for each in journal.records()] == [
        ("rotate_key", rotated.after, "a-admin", {"before": rotated.before, "after": rotated.after}),
        ("trust_key", THEIRS.key_id, "a-admin", {"name": "theirs"}),
        ("distrust_key", THEIRS.key_id, "a-admin", {}),
    ]
    digests = [(each.before, each.after) for each in journal.records()]
    assert digests[0] == (digest_of(rotated.before), digest_of(rotated.after))
    assert [after for _, after in digests[1:]] == [digest_of(trusted), digest_of(distrusted)]


def test_what_is_refused_changes_and_records_nothing(
    changes: KeyChanges, keyring: Keyring, journal, admin, principal
) -> None:
    key_id = keyring.signing().key_id
    operator = principal("operator")
    for change, code in (
        (lambda: changes.rotate(operator), "PERMISSION_DENIED"),
        (lambda: changes.trust(operator, THEIRS.pem.decode(), "theirs"), "PERMISSION_DENIED"),
        (lambda: changes.distrust(operator, key_id), "PERMISSION_DENIED"),
        (lambda: changes.trust(admin, "no key", "theirs"), "INVALID_ARTIFACT"),
        (lambda: changes.distrust(admin, key_id), "CONFLICT"),
    ):
        with pytest.raises(SalverError) as raised:
            change()
        assert raised.value.code == code
    assert (keyring.signing().key_id, keyring.trusted().key_ids) == (key_id, (key_id,))
    assert list(journal.records()) == []


def test_rotations_at_once_follow_each_other(changes: KeyChanges, keyring: Keyring, journal, admin) -> None:
    first = keyring.signing().key_id
    threads = [threading.Thread(target=changes.rotate, args=(admin,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    steps = [each.details for each in journal.records()]
    assert [step["before"] for step in steps] == [first, *(step["after"] for step in steps[:-1])]
    assert steps[-1]["after"] == keyring.signing().key_id
    assert len(steps) == 4
