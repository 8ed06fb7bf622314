"""Going back: out of production without gates, and into it again by the decision of before."""

from __future__ import annotations

import pytest
from tests.registry.promoting import Promoting, person

from salver.protocol.errors import SalverError
from salver.protocol.stages import Stage

GATED = """
[[transition]]
to = "staging"
[[transition.gate]]
kind = "evaluation"
suite = "release"

[[transition]]
to = "production"
[[transition.gate]]
kind = "approvals"
"""


@pytest.fixture
def house(home, database) -> Promoting:
    return Promoting(home, database)


def admitted(house: Promoting, version: str) -> None:
    """Bring a version into production past the gates of `GATED`."""
    house.evaluate(version)
    house.bring(version, "validation", "staging")
    house.records.approvals.approve(person("ben", "approver"), "digits", version, Stage.PRODUCTION)
    house.bring(version, "production")


def test_the_way_back_meets_no_gate_but_takes_a_reason(house, draft) -> None:
    house.policy(GATED)
    version = house.register(draft())
    admitted(house, version)
    house.evaluate(version, "failed")
    with pytest.raises(SalverError, match="goes back from production to staging for no reason that is said") as raised:
        house.promote(version, "staging")
    assert (raised.value.code, raised.value.remedy) == ("INVALID_PARAMETER", "say it with --why")
    with pytest.raises(SalverError, match="may not"):
        house.promote(version, "staging", person("dev", "developer"), why="worse")
    done = house.promote(version, "staging", why="worse")
    assert (done.moved, done.decision.gates, done.decision.why) == (True, (), "worse")


def test_a_gate_that_names_the_way_back_stands_there(house, draft) -> None:
    version = house.register(draft())
    house.bring(version, "validation", "staging", "production")
    house.policy(GATED + '[[transition]]\nto = "staging"\nfrom = ["production"]\n[[transition.gate]]\nkind="approvals"')
    done = house.promote(version, "staging", why="worse")
    assert (done.moved, [each.gate[:10] for each in done.decision.gates]) == (False, ["1 approval"])


def test_a_former_production_version_comes_back_by_its_old_decision_which_is_named(house, draft) -> None:
    house.policy(GATED)
    first, second = house.register(draft("a")), house.register(draft("b"))
    admitted(house, first)
    admitted(house, second)
    back = house.promote(first, "production", why="the new one is slow")
    assert back.moved
    assert (back.decision.id, back.decision.returns_on) == ("4", "3")
    (gate,) = back.decision.gates
    assert (gate.gate, gate.verdict) == ("it was in production before", "successful")
    assert gate.reasons[0].startswith("decision 3 let it in, and it has since been in staging and shadow only")
    assert [(each.kind, each.id, each.actor) for each in gate.evidence] == [("decision", "3", "ann")]
    house.bring(second, "production")
    again = house.promote(first, "production")
    assert (again.moved, again.decision.returns_on) == (True, "3"), "the one that went by evidence"


@pytest.mark.parametrize("since", [("archived", "staging"), ("validation", "staging")])
def test_what_was_sent_further_back_or_put_away_since_meets_the_gates_again(house, draft, since) -> None:
    house.policy(GATED)
    version = house.register(draft())
    admitted(house, version)
    house.bring(version, "staging", *since)
    done = house.promote(version, "production")
    assert (done.moved, done.decision.returns_on) == (False, "")


def test_what_was_archived_to_make_room_meets_the_gates_again(house, draft) -> None:
    house.policy('[[model]]\non_replaced = "archived"\n' + GATED)
    first, second = house.register(draft("a")), house.register(draft("b"))
    admitted(house, first)
    admitted(house, second)
    house.bring(first, "staging")
    assert not house.promote(first, "production").moved


def test_a_revoked_one_does_not_come_back(house, draft) -> None:
    house.policy(GATED)
    version = house.register(draft())
    admitted(house, version)
    house.bring(version, "staging")
    house.records.revocations.revoke(house.ann, "digits", version, "poisoned")
    with pytest.raises(SalverError, match="was revoked by ann"):
        house.promote(version, "production")


def test_an_emergency_is_no_decision_to_come_back_by(house, draft) -> None:
    house.policy(GATED)
    version = house.register(draft())
    house.evaluate(version)
    house.bring(version, "validation", "staging")
    house.promote(version, "production", house.root, emergency=True, why="fire")
    house.bring(version, "staging")
    assert not house.promote(version, "production").moved


def test_a_refusal_on_the_way_does_not_take_the_old_decision_away(house, draft) -> None:
    house.policy(GATED)
    version = house.register(draft())
    admitted(house, version)
    house.bring(version, "staging")
    house.policy(GATED.replace('to = "production"', 'to = "production"\nagain = true'))
    refused = house.promote(version, "production")
    assert (refused.moved, refused.decision.returns_on) == (False, ""), "the policy asks these gates again"
    house.policy(GATED)
    assert house.promote(version, "production").decision.returns_on == "3"


def test_the_policy_says_which_gates_are_asked_again(house, draft) -> None:
    house.policy(GATED)
    version = house.register(draft())
    admitted(house, version)
    house.bring(version, "staging")
    house.evaluate(version, "failed")
    house.policy(
        GATED
        + '[[transition]]\nto = "production"\nagain = true\n[[transition.gate]]\nkind = "evaluation"\nsuite = "release"'
    )
    done = house.promote(version, "production")
    assert not done.moved
    assert [each.verdict for each in done.decision.gates] == ["successful", "failed"]
    house.evaluate(version, run=2)
    assert house.promote(version, "production").decision.returns_on == "3"


def test_a_gate_before_a_stage_that_is_only_gone_back_to_must_name_the_way(house) -> None:
    with pytest.raises(SalverError, match="only ways back lead to development"):
        house.policy('[[transition]]\nto = "development"\n[[transition.gate]]\nkind = "approvals"')
