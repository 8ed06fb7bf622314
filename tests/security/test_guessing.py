from __future__ import annotations

import pytest

from salver.protocol.tables import TokenRecord
from salver.security import tokens
from salver.security.access import Role
from salver.security.guessing import GuessLimit, TooManyGuessesError
from salver.security.tokens import TokenVerifier, mint_token
from salver.testing import ManualClock

PEPPER = bytes(range(32))
WRONG = "slv_wrong"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def limit(clock: ManualClock) -> GuessLimit:
    return GuessLimit(clock, free=3, peers=4)


@pytest.fixture
def minted(clock: ManualClock):
    return mint_token("ann", Role.OPERATOR, "default", pepper=PEPPER, clock=clock)


def verifier(clock: ManualClock, *records: TokenRecord) -> TokenVerifier:
    return TokenVerifier(records, PEPPER, clock)


def guess(limit: GuessLimit, peer: str | None, against: TokenVerifier, times: int, token: str = WRONG) -> None:
    for _ in range(times):
        assert limit.principal(peer, token, against) is None


def test_so_many_wrong_tokens_are_free_then_one_a_second(limit: GuessLimit, clock: ManualClock) -> None:
    nobody = verifier(clock)
    guess(limit, "10.0.0.1", nobody, 3)
    for _ in range(3):
        with pytest.raises(TooManyGuessesError) as refused:
            limit.principal("10.0.0.1", WRONG, nobody)
        assert (refused.value.http, refused.value.retry_after_s) == (429, 1)
        clock.advance(1.0)
        guess(limit, "10.0.0.1", nobody, 1)
    clock.advance(3.0)
    guess(limit, "10.0.0.1", nobody, 3)


def test_a_peer_that_has_none_left_learns_nothing_from_a_right_one(
    limit: GuessLimit, clock: ManualClock, minted, monkeypatch
) -> None:
    known = verifier(clock, minted.record)
    guess(limit, "10.0.0.1", known, 3)

    def never(*_: object) -> str:
        raise AssertionError("a token was looked at")

    with monkeypatch.context() as patched:
        patched.setattr(tokens, "hash_secret", never)
        with pytest.raises(TooManyGuessesError):
            limit.principal("10.0.0.1", minted.token, known)
    clock.advance(1.0)
    assert limit.principal("10.0.0.1", minted.token, known).name == "ann"


def test_who_has_shown_a_right_token_is_not_shut_out_by_a_neighbour_at_the_same_address(
    limit: GuessLimit, clock: ManualClock, minted
) -> None:
    known = verifier(clock, minted.record)
    assert limit.principal("10.0.0.1", minted.token, known).name == "ann"
    guess(limit, "10.0.0.1", known, 3)
    for _ in range(10):
        assert limit.principal("10.0.0.1", minted.token, known).name == "ann"


def test_each_address_has_its_own_and_the_unix_socket_none(limit: GuessLimit, clock: ManualClock) -> None:
    nobody = verifier(clock)
    for peer in ("10.0.0.1", "10.0.0.2", "::1"):
        guess(limit, peer, nobody, 3)
    guess(limit, None, nobody, 50)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"),
        ("fe80::1%eth0", "fe80::2%eth0"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("no address", "no address"),
    ],
)
def test_addresses_that_one_client_can_choose_from_count_as_one(limit, clock, one, other) -> None:
    guess(limit, one, verifier(clock), 3)
    with pytest.raises(TooManyGuessesError):
        limit.principal(other, WRONG, verifier(clock))
    guess(limit, "2001:db8:1:3::1", verifier(clock), 1)


def test_the_table_is_bounded_and_forgets_who_was_quiet_longest(limit: GuessLimit, clock: ManualClock) -> None:
    nobody = verifier(clock)
    guess(limit, "10.0.0.1", nobody, 3)
    for number in range(2, 5):
        guess(limit, f"10.0.0.{number}", nobody, 1)
    guess(limit, "10.0.0.2", nobody, 1)
    guess(limit, "10.0.0.5", nobody, 1)
    assert repr(limit) == "<GuessLimit 4 peers>"
    guess(limit, "10.0.0.1", nobody, 3)  # forgotten
    guess(limit, "10.0.0.2", nobody, 1)
    with pytest.raises(TooManyGuessesError):
        limit.principal("10.0.0.2", WRONG, nobody)


def test_right_tokens_cost_nothing(limit: GuessLimit, clock: ManualClock, minted) -> None:
    for _ in range(10):
        assert limit.principal("10.0.0.1", minted.token, verifier(clock, minted.record)) is not None
    assert repr(limit) == "<GuessLimit 0 peers>"
