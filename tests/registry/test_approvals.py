from __future__ import annotations

import pytest
from tests.registry.promoting import Promoting, person

from salver.protocol.errors import SalverError
from salver.protocol.stages import Stage

TWO = """
[[transition]]
to = "production"
[[transition.gate]]
kind = "approvals"
count = 2
"""


@pytest.fixture
def house(home, database, draft) -> Promoting:
    made = Promoting(home, database)
    made.policy(TWO)
    made.register(draft())
    made.bring("1.0.0", "validation", "staging")
    return made


def approve(house: Promoting, name: str, role: str = "approver", target: Stage = Stage.PRODUCTION):
    return house.records.approvals.approve(person(name, role), "digits", "1.0.0", target, "looked at it")


def test_two_others_open_the_gate_and_the_decision_names_them(house) -> None:
    approve(house, "bea")
    assert not house.promote("1.0.0", "production").moved
    approve(house, "cem")
    done = house.promote("1.0.0", "production")
    assert done.moved
    assert [each.actor for each in done.decision.gates[0].evidence] == ["bea", "cem"]


def test_the_same_person_counts_once_however_often(house) -> None:
    first = approve(house, "bea")
    again = approve(house, "bea")
    assert (first.changed, again.changed) == (True, False)
    assert again.approval == first.approval
    approve(house, "local:root", "admin")
    assert approve(house, "admin", "admin").changed is False
    assert len(house.records.approvals.of("digits", "1.0.0")) == 2


def test_the_author_approves_nothing_of_their_own(house) -> None:
    with pytest.raises(SalverError, match="nobody approves what is their own") as raised:
        approve(house, "ann")
    assert raised.value.code == "REFUSED_BY_POLICY"


@pytest.mark.parametrize("role", ["operator", "developer", "predictor"])
def test_approving_takes_the_right_to(house, role) -> None:
    with pytest.raises(SalverError) as raised:
        approve(house, "bea", role)
    assert raised.value.code == "PERMISSION_DENIED"


def test_an_approval_is_for_one_way_and_one_version(house, draft) -> None:
    approve(house, "bea", target=Stage.SHADOW)
    approve(house, "cem")
    assert not house.promote("1.0.0", "production").moved
    with pytest.raises(SalverError) as raised:
        approve(house, "bea", target=Stage.DEVELOPMENT)
    assert raised.value.code == "ILLEGAL_TRANSITION"
    with pytest.raises(SalverError, match=r"no version '9\.9\.9'"):
        house.records.approvals.approve(person("bea"), "digits", "9.9.9", Stage.STAGING)


def test_approvals_lapse_when_the_version_leaves_its_stage(house) -> None:
    approve(house, "bea")
    approve(house, "cem")
    house.bring("1.0.0", "validation", "staging")
    assert house.records.approvals.of("digits", "1.0.0") == ()
    assert not house.promote("1.0.0", "production").moved


def test_a_withdrawn_approval_counts_no_more(house) -> None:
    approve(house, "bea")
    approve(house, "cem")
    done = house.records.approvals.withdraw(person("bea", "approver"), "digits", "1.0.0", Stage.PRODUCTION)
    assert done.changed
    assert not house.promote("1.0.0", "production").moved
    with pytest.raises(SalverError, match="bea has not approved") as raised:
        house.records.approvals.withdraw(person("bea", "approver"), "digits", "1.0.0", Stage.PRODUCTION)
    assert raised.value.code == "NOT_FOUND"
    assert [action for action in house.actions() if "approv" in action] == ["approve", "approve", "withdraw_approval"]


def test_a_reason_has_an_end(house) -> None:
    with pytest.raises(SalverError, match="the reason has 1001 characters"):
        house.records.approvals.approve(person("bea"), "digits", "1.0.0", Stage.PRODUCTION, "x" * 1001)


def test_whose_last_token_is_revoked_agrees_to_nothing_any_more(house) -> None:
    tokens = house.records.tokens
    one, two = (tokens.create(house.root, "bea", "approver").record for _ in range(2))
    approve(house, "bea")
    tokens.revoke(house.root, one.id)
    assert len(house.records.approvals.of("digits", "1.0.0")) == 1
    tokens.revoke(house.root, two.id)
    assert house.records.approvals.of("digits", "1.0.0") == ()
    revoked = house.records.journal.records(100)[-1]
    assert (revoked.action, revoked.details["approvals"]) == ("revoke_token", ["digits@1.0.0 to production"])
