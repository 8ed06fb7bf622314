from __future__ import annotations

import gc
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.clock import SYSTEM_CLOCK
from salver.protocol.tables import TokenRecord
from salver.security import tokens
from salver.security.access import Principal, PrincipalKind, Role
from salver.security.tokens import MintedToken, TokenVerifier, hash_secret, mint_token
from salver.testing import ManualClock

PEPPER = bytes(range(32))


def mint(name: str = "ann", role: Role = Role.DEVELOPER) -> MintedToken:
    return mint_token(name, role, "default", pepper=PEPPER, clock=SYSTEM_CLOCK)


MINTED = mint()
VERIFIER = TokenVerifier([MINTED.record], PEPPER, SYSTEM_CLOCK)


def with_checksum(body: str) -> str:
    return f"{body}_{tokens._checksum(body)}"


def test_a_token_says_whose_it_is_the_first_time_and_again() -> None:
    ann, bob = mint(), mint("bob", Role.ADMIN)
    verifier = TokenVerifier([ann.record, bob.record], PEPPER, SYSTEM_CLOCK)
    for _ in range(2):
        assert verifier.verify(ann.token) == Principal("ann", Role.DEVELOPER, "default", PrincipalKind.TOKEN)
        assert verifier.verify(bob.token) == Principal("bob", Role.ADMIN, "default", PrincipalKind.TOKEN)


def test_a_token_has_the_form_that_scanners_look_for() -> None:
    assert re.fullmatch(r"slv_[a-z0-9]{8}_[A-Za-z0-9]{43}_[0-9a-f]{8}", MINTED.token)
    assert len({mint().token for _ in range(100)}) == 100


def test_only_a_keyed_hash_of_the_secret_is_stored() -> None:
    secret = MINTED.token.split("_")[2]
    assert secret.encode() not in msgspec.json.encode(MINTED.record)
    assert MINTED.record.hash == hash_secret(PEPPER, secret)
    assert MINTED.record.hash != hash_secret(bytes(32), secret)


def test_a_minted_token_does_not_show_itself_in_logs() -> None:
    assert MINTED.token.split("_")[2] not in repr(MINTED)
    assert str(MINTED) == f"<MintedToken {MINTED.record.id} ann>"


def test_another_pepper_makes_every_token_worthless() -> None:
    assert TokenVerifier([MINTED.record], bytes(32), SYSTEM_CLOCK).verify(MINTED.token) is None


def test_a_revoked_token_is_refused_by_the_next_verifier() -> None:
    assert VERIFIER.verify(MINTED.token) is not None
    assert TokenVerifier([], PEPPER, SYSTEM_CLOCK).verify(MINTED.token) is None


def test_a_token_is_worth_nothing_from_its_expiry_on_remembered_or_not() -> None:
    clock = ManualClock()
    minted = mint_token("ann", Role.DEVELOPER, "default", pepper=PEPPER, clock=clock, expires_in_s=60.0)
    assert minted.record.expires_s == clock.wall_s() + 60.0
    verifier = TokenVerifier([minted.record, MINTED.record], PEPPER, clock)
    clock.advance(59.0)
    assert verifier.verify(minted.token).name == "ann"
    assert verifier.recall(minted.token).name == "ann"
    clock.advance(1.0)
    for each in (verifier, TokenVerifier([minted.record], PEPPER, clock)):
        assert each.verify(minted.token) is None
        assert each.recall(minted.token) is None
    clock.advance(1e9)
    assert verifier.verify(MINTED.token).name == "ann"


def test_new_records_leave_the_memory_of_tokens_that_are_still_worth_the_same(monkeypatch) -> None:
    stays, goes, changes = mint(), mint("bob"), mint("eve")
    first = TokenVerifier([stays.record, goes.record, changes.record], PEPPER, SYSTEM_CLOCK)
    for each in (stays, goes, changes):
        assert first.verify(each.token) is not None
    promoted = msgspec.structs.replace(stays.record, role="admin")
    other = msgspec.structs.replace(changes.record, hash=stays.record.hash)
    second = TokenVerifier([promoted, other], PEPPER, SYSTEM_CLOCK, first)
    assert second.recall(stays.token).role is Role.ADMIN
    for each in (goes, changes):
        assert second.recall(each.token) is None
        assert second.verify(each.token) is None
    assert TokenVerifier([stays.record], bytes(32), SYSTEM_CLOCK, first).recall(stays.token) is None


def test_only_a_token_that_was_verified_is_recalled() -> None:
    verifier = TokenVerifier([MINTED.record], PEPPER, SYSTEM_CLOCK)
    assert verifier.recall(MINTED.token) is None
    principal = verifier.verify(MINTED.token)
    assert verifier.recall(MINTED.token) == principal
    for other in ("", "x", mint().token, MINTED.token[:-1] + "\uff14"):
        assert verifier.recall(other) is None


def test_a_role_that_this_salver_does_not_know_grants_nothing() -> None:
    record = msgspec.structs.replace(MINTED.record, role="superuser")
    assert TokenVerifier([record], PEPPER, SYSTEM_CLOCK).verify(MINTED.token) is None


def test_a_right_checksum_does_not_help_a_wrong_secret_or_id() -> None:
    prefix, token_id, secret, _ = MINTED.token.split("_")
    other = "A" if secret[0] != "A" else "B"
    assert VERIFIER.verify(with_checksum(f"{prefix}_{token_id}_{other}{secret[1:]}")) is None
    assert VERIFIER.verify(with_checksum(f"{prefix}_zzzzzzzz_{secret}")) is None
    assert VERIFIER.verify(with_checksum(f"{prefix}_{token_id}_{secret}")) is not None


@pytest.mark.parametrize("position", range(len(MINTED.token)))
def test_any_changed_character_is_refused(position: int) -> None:
    changed = "0" if MINTED.token[position] != "0" else "1"
    assert VERIFIER.verify(MINTED.token[:position] + changed + MINTED.token[position + 1 :]) is None


@pytest.mark.parametrize(
    "token",
    [
        "",
        "slv",
        "Bearer " + MINTED.token,
        MINTED.token + "\n",
        " " + MINTED.token,
        MINTED.token.upper(),
        MINTED.token[:-1],
        MINTED.token * 1000,
        "x" * len(MINTED.token),
        "\x00" * len(MINTED.token),
        "é" * len(MINTED.token),
        "\ud800" * len(MINTED.token),
        MINTED.token[:-1] + "\uff14",  # a digit elsewhere in Unicode
    ],
    ids=map(str, range(13)),  # not the token, which differs from run to run
)
def test_malformed_tokens_are_refused_before_any_keyed_hash(token: str, monkeypatch) -> None:
    def never(*_: object) -> str:
        raise AssertionError("a keyed hash was paid for")

    verifier = TokenVerifier([MINTED.record], PEPPER, SYSTEM_CLOCK)
    monkeypatch.setattr(tokens, "hash_secret", never)
    assert verifier.verify(token) is None


@given(st.text(max_size=100))
def test_no_text_is_a_token_by_chance_or_an_exception(token: str) -> None:
    assert VERIFIER.verify(token) is None


def test_a_verified_token_is_not_hashed_again_and_an_unknown_one_costs_as_much_as_a_wrong_one(monkeypatch) -> None:
    paid: list[str] = []
    real = tokens.hash_secret
    monkeypatch.setattr(tokens, "hash_secret", lambda pepper, secret: paid.append(secret) or real(pepper, secret))
    verifier = TokenVerifier([MINTED.record], PEPPER, SYSTEM_CLOCK)
    paid.clear()
    for _ in range(3):
        assert verifier.verify(MINTED.token) is not None
    assert len(paid) == 1
    for body in (f"slv_zzzzzzzz_{'a' * 43}", f"slv_{MINTED.record.id}_{'a' * 43}"):
        paid.clear()
        for _ in range(2):
            assert verifier.verify(with_checksum(body)) is None
        assert len(paid) == 2  # refusals are not remembered: they would push out what is


def test_the_memory_of_verified_tokens_is_bounded_and_holds_no_secret(monkeypatch) -> None:
    monkeypatch.setattr(tokens, "_CACHE_SIZE", 3)
    minted = [mint() for _ in range(5)]
    verifier = TokenVerifier([each.record for each in minted], PEPPER, SYSTEM_CLOCK)
    for each in minted * 2:
        assert verifier.verify(each.token) is not None
        assert len(verifier._cache) <= 3
    remembered = gc.get_referents(verifier._cache)
    assert any(isinstance(item, bytes) for item in remembered)
    for each in minted:
        assert each.token.split("_")[2] not in repr(remembered)


def test_a_record_without_a_hash_matches_nothing() -> None:
    record = TokenRecord(MINTED.record.id, "ann", "admin", "default", hash="")
    assert TokenVerifier([record], PEPPER, SYSTEM_CLOCK).verify(MINTED.token) is None
