from __future__ import annotations

import errno
import os
import stat

import msgspec
import pytest
from tests.homes import kept_bytes

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.registry.access_tokens import AccessTokens, ensure_admin_token
from salver.security.access import Role, local_principal
from salver.security.tokens import TokenVerifier
from salver.storage.home import Home
from salver.storage.journal import ChainCheck, Journal


def verifier(tokens: AccessTokens, home: Home) -> TokenVerifier:
    return TokenVerifier(tokens.list(), home.pepper(), SYSTEM_CLOCK)


def test_a_created_token_is_verified_until_it_is_revoked(tokens: AccessTokens, home: Home, admin) -> None:
    minted = tokens.create(admin, "ann", "operator", "lab")
    known = verifier(tokens, home).verify(minted.token)
    assert (known.name, known.role, known.tenant) == ("ann", Role.OPERATOR, "lab")
    assert tokens.list() == (minted.record,)
    assert tokens.revoke(admin, minted.record.id) == minted.record
    assert verifier(tokens, home).verify(minted.token) is None
    assert tokens.list() == ()


def test_nothing_that_the_home_keeps_holds_a_secret(tokens: AccessTokens, home: Home, database, admin) -> None:
    secret = tokens.create(admin, "ann", "operator").token.split("_")[2]
    kept = kept_bytes(home, database)
    assert any(b"ann" in data for data in kept)
    assert not any(secret.encode() in data for data in kept)


def test_a_name_may_have_two_tokens_of_one_role_so_that_one_can_replace_the_other(
    tokens: AccessTokens, home: Home, admin
) -> None:
    old, new = tokens.create(admin, "ci", "operator"), tokens.create(admin, "ci", "operator")
    tokens.revoke(admin, old.record.id)
    assert verifier(tokens, home).verify(new.token).name == "ci"
    for role, tenant in (("admin", "default"), ("operator", "other")):
        with pytest.raises(SalverError, match="of 'ci' has role operator and tenant default") as raised:
            tokens.create(admin, "ci", role, tenant)
        assert raised.value.code == "ALREADY_EXISTS"


@pytest.mark.parametrize(
    ("name", "role", "tenant", "code"),
    [
        ("local:root", "admin", "default", "INVALID_NAME"),
        ("admin", "admin", "default", "INVALID_NAME"),
        ("ann", "superuser", "default", "INVALID_SETTING"),
        ("ann", "admin", "../x", "INVALID_NAME"),
    ],
)
def test_names_roles_and_tenants_are_checked(
    tokens: AccessTokens, journal: Journal, admin, name: str, role: str, tenant: str, code: str
) -> None:
    with pytest.raises(SalverError) as raised:
        tokens.create(admin, name, role, tenant)
    assert raised.value.code == code
    assert journal.records() == ()


def test_a_token_may_have_an_end_which_is_stored_and_on_the_journal(
    tokens: AccessTokens, journal: Journal, admin
) -> None:
    ends, lasts = tokens.create(admin, "ci", "operator", expires_in_s=3600.0), tokens.create(admin, "ann", "operator")
    assert ends.record.expires_s == ends.record.created_s + 3600.0
    assert lasts.record.expires_s is None
    assert tokens.list() == (ends.record, lasts.record)
    first, second = journal.records()
    assert first.details["expires_s"] == ends.record.expires_s
    assert "expires_s" not in second.details


@pytest.mark.parametrize("expires_in_s", [0.0, -1.0, 1e12, float("nan"), float("inf")])
def test_an_end_in_the_past_or_beyond_ten_years_is_refused(
    tokens: AccessTokens, journal: Journal, admin, expires_in_s: float
) -> None:
    with pytest.raises(SalverError, match="expires_in_s") as raised:
        tokens.create(admin, "ci", "operator", expires_in_s=expires_in_s)
    assert raised.value.code == "INVALID_SETTING"
    assert journal.records() == ()


def test_an_unknown_token_cannot_be_revoked(tokens: AccessTokens, admin) -> None:
    with pytest.raises(SalverError, match="no token with the id 'zzzzzzzz'") as raised:
        tokens.revoke(admin, "zzzzzzzz")
    assert raised.value.code == "NOT_FOUND"


@pytest.mark.parametrize("role", ["operator", "approver", "developer", "predictor"])
def test_only_administrators_change_tokens(tokens: AccessTokens, admin, principal, role: str) -> None:
    minted = tokens.create(admin, "ann", "predictor")
    for change in (
        lambda: tokens.create(principal(role), "eve", "admin"),
        lambda: tokens.revoke(principal(role), minted.record.id),
        lambda: tokens.renew_admin(principal(role)),
    ):
        with pytest.raises(SalverError) as raised:
            change()
        assert raised.value.code == "PERMISSION_DENIED"
    assert tokens.list() == (minted.record,)


def test_the_journal_knows_tokens_by_id_and_holds_neither_secret_nor_hash(
    tokens: AccessTokens, journal: Journal, admin
) -> None:
    minted = tokens.create(admin, "ann", "operator")
    tokens.revoke(admin, minted.record.id)
    created, revoked = journal.records()
    assert (created.action, revoked.action) == ("create_token", "revoke_token")
    assert created.subject == revoked.subject == minted.record.id
    assert created.details == revoked.details == {"name": "ann", "role": "operator", "tenant": "default"}
    assert minted.record.hash.encode() not in msgspec.json.encode([created, revoked])
    assert journal.verify() == ChainCheck.sound(2)


def test_the_first_start_writes_an_admin_token_that_works_and_later_ones_keep_it(
    tokens: AccessTokens, journal: Journal, home: Home
) -> None:
    assert ensure_admin_token(home, tokens, local_principal())
    assert stat.S_IMODE(home.admin_token_path.stat().st_mode) == 0o600
    token = home.admin_token_path.read_text().strip()
    assert verifier(tokens, home).verify(token).role is Role.ADMIN
    assert not ensure_admin_token(home, tokens, local_principal())
    assert home.admin_token_path.read_text().strip() == token
    assert journal.records()[0].actor.startswith("local:")


def test_an_admin_token_whose_file_was_never_written_is_replaced_not_joined(
    tokens: AccessTokens, home: Home, monkeypatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(SalverError, match="no space is left"):
            ensure_admin_token(home, tokens, local_principal())
    (lost,) = tokens.list()
    assert not home.admin_token_path.exists()
    assert ensure_admin_token(home, tokens, local_principal())
    (kept,) = tokens.list()
    assert kept.id != lost.id
    assert verifier(tokens, home).verify(home.admin_token_path.read_text().strip()) is not None


def test_a_revoked_admin_token_is_not_brought_back_while_its_file_is_there(
    tokens: AccessTokens, home: Home, admin
) -> None:
    ensure_admin_token(home, tokens, local_principal())
    tokens.revoke(admin, tokens.list()[0].id)
    assert not ensure_admin_token(home, tokens, local_principal())
    assert tokens.list() == ()
