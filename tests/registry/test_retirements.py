from __future__ import annotations

import pytest
from tests.registry.promoting import DAY_S, Promoting, person

from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec
from salver.protocol.usage import Asking

POLICY = """
[[retirement]]
name = "old"
older_than_days = 30
notice_days = 7
[[retirement]]
name = "worse"
worse_than_production = "f1"
"""


@pytest.fixture
def house(home, database, draft) -> Promoting:
    made = Promoting(home, database)
    made.policy(POLICY)
    made.register(draft())
    made.bring("1.0.0", "validation", "staging")
    made.clock.advance(31 * DAY_S)
    return made


def propose(house: Promoting, **given: object):
    return house.records.retirements.propose(house.ann, **given)


def test_what_is_proposed_is_announced_then_archived_when_it_is_due(house) -> None:
    house.records.usage.add([Asking("digits", "1.0.0", "digits", "shop", 7, house.clock.wall_s())])
    (proposed,) = propose(house)
    assert [each.client for each in proposed.clients] == ["shop"]
    assert propose(house) == ()
    assert house.records.retirements.list() == (proposed,)
    record = house.records.journal.records(100)[-1]
    assert (record.action, record.details["clients"]) == ("propose_retirement", ["shop"])
    assert house.records.retirements.run(house.ann).waiting == (proposed,)
    house.clock.advance(7 * DAY_S)
    assert house.records.retirements.run(house.ann).archived == (proposed,)
    assert house.stages() == {"1.0.0": "archived"}
    assert house.records.retirements.list() == ()
    decision = house.lifecycle.decisions("digits")[0]
    assert decision.why == "retirement old: registered 31 days ago"
    assert house.actions()[-1] == "retire"


def test_what_is_deployed_is_kept_until_it_is_not(house) -> None:
    house.records.deployments.deploy(house.ann, DeploymentSpec("shop", "digits", "1.0.0"))
    propose(house)
    house.clock.advance(8 * DAY_S)
    (kept,) = house.records.retirements.run(house.ann).kept
    assert "is deployed as shop" in kept.reason
    assert house.stages() == {"1.0.0": "staging"}
    house.records.deployments.undeploy(house.ann, "shop")
    assert len(house.records.retirements.run(house.ann).archived) == 1


def test_a_dry_run_proposes_nothing(house) -> None:
    before = house.actions()
    assert len(propose(house, dry_run=True)) == 1
    assert (house.records.retirements.list(), house.actions()) == ((), before)


def test_one_rule_alone_can_be_asked(house) -> None:
    assert propose(house, rule="worse") == ()
    with pytest.raises(SalverError, match="no retirement rule 'none'; it has old, worse"):
        propose(house, rule="none")


def test_a_version_that_production_surpasses_is_proposed_by_its_numbers(house, draft) -> None:
    house.register(draft("b"))
    house.bring("1.0.1", "validation", "staging", "production")
    house.records.descriptions.describe(house.ann, "digits", "1.0.0", {"metrics": {"f1": 0.8}})
    house.records.descriptions.describe(house.ann, "digits", "1.0.1", {"metrics": {"f1": 0.9}})
    (found,) = propose(house, rule="worse")
    assert (found.version, found.reason) == ("1.0.0", "f1 is 0.8; 1.0.1, in production, has 0.9")


def test_a_cancelled_proposal_is_gone_and_so_is_one_whose_version_moves(house) -> None:
    propose(house)
    house.records.retirements.cancel(house.ann, "digits", "1.0.0")
    assert house.records.retirements.list() == ()
    with pytest.raises(SalverError, match="is not proposed for retirement"):
        house.records.retirements.cancel(house.ann, "digits", "1.0.0")
    propose(house)
    house.bring("1.0.0", "production")
    assert house.records.retirements.list() == ()


def test_a_gate_before_the_archive_holds_for_retirements_too(house) -> None:
    propose(house)
    house.policy('[[transition]]\nto = "archived"\n[[transition.gate]]\nkind = "approvals"')
    house.clock.advance(8 * DAY_S)
    (kept,) = house.records.retirements.run(house.ann).kept
    assert "0 of 1 approvals" in kept.reason
    house.records.approvals.approve(
        person("bea", "approver"), "digits", "1.0.0", house.lifecycle.decisions("digits")[0].target
    )
    assert len(house.records.retirements.run(house.ann).archived) == 1


@pytest.mark.parametrize("role", ["developer", "approver"])
def test_retiring_takes_the_right_to_deploy(house, role) -> None:
    by = person("x", role)
    for attempt in (
        lambda: house.records.retirements.propose(by),
        lambda: house.records.retirements.run(by),
        lambda: house.records.retirements.cancel(by, "digits", "1.0.0"),
    ):
        with pytest.raises(SalverError) as raised:
            attempt()
        assert raised.value.code == "PERMISSION_DENIED"
