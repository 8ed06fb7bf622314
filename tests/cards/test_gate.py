"""The checklist as a gate: in the transaction of the decision, from its rows."""

from __future__ import annotations

from sqlalchemy import update

from salver.protocol.stages import Stage
from salver.protocol.tables import DeploymentSpec
from salver.protocol.verdict import Verdict
from salver.registry.lifecycle import PromotionRequest
from salver.storage.schema import deployments

POLICY = """
[[transition]]
to = "validation"
[[transition.gate]]
kind = "checklist"
name = "{name}"
"""


def promote(desk, version, **given):
    return desk.records.lifecycle.promote(desk.admin, PromotionRequest("digits", version, Stage.VALIDATION, **given))


def policy(desk, name="readiness") -> None:
    desk.records.policies.set(desk.admin, POLICY.format(name=name))


def test_a_ready_version_passes_and_the_decision_lists_every_required_point(desk) -> None:
    policy(desk)
    done = promote(desk, desk.ready())
    assert done.moved, done.decision
    (gate,) = done.decision.gates
    assert (gate.gate, gate.verdict) == ("checklist readiness is complete", Verdict.SUCCESSFUL)
    assert {each.kind for each in gate.evidence} == {"checklist"}
    assert "governance: owner" in {each.id for each in gate.evidence}


def test_a_version_that_is_not_ready_stays_and_is_told_why(desk) -> None:
    policy(desk)
    done = promote(desk, desk.register())
    assert not done.moved
    assert done.decision.verdict is Verdict.INCONCLUSIVE
    assert any("owner" in reason for reason in done.decision.reasons)


def test_a_group_alone_can_be_a_gate(desk) -> None:
    policy(desk, "registry")
    version = desk.register()
    assert not promote(desk, version).moved
    desk.describe(version, description="reads digits", training_data={"name": "scans", "digest": "ab" * 32})
    assert promote(desk, version).moved


def test_a_checklist_nobody_knows_is_an_error(desk) -> None:
    policy(desk, "wishes")
    assert promote(desk, desk.ready()).decision.verdict is Verdict.ERROR


def test_evidence_that_cannot_be_read_is_an_error_and_opens_nothing(desk, database) -> None:
    version = desk.ready()
    desk.records.deployments.deploy(desk.admin, DeploymentSpec("digits", "digits", version))
    policy(desk)
    with database.begin() as connection:
        connection.execute(update(deployments).values(spec='{"endpoint": 3}'))
    done = promote(desk, version)
    assert (done.moved, done.decision.verdict) == (False, Verdict.ERROR)
    assert "cannot be read" in done.decision.reasons[0]


def test_asking_changes_nothing(desk) -> None:
    policy(desk)
    version = desk.ready()
    before = desk.records.journal.records(1000)
    first = promote(desk, version, dry_run=True)
    assert first.decision.verdict is Verdict.SUCCESSFUL
    assert promote(desk, version, dry_run=True).decision.gates == first.decision.gates
    assert desk.records.journal.records(1000) == before
