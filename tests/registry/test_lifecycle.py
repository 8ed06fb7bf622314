from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.registry.promoting import Promoting, person

from salver.protocol.errors import SalverError
from salver.protocol.stages import Stage
from salver.protocol.tables import DeploymentSpec
from salver.registry.stages import LIFECYCLE

APPROVALS = """
[[transition]]
to = "production"
[[transition.gate]]
kind = "approvals"
"""


@pytest.fixture
def house(home, database) -> Promoting:
    return Promoting(home, database)


def test_a_version_goes_its_way_and_each_step_is_a_decision_and_a_record(house, draft) -> None:
    version = house.register(draft())
    done = house.bring(version, "validation", "staging", "production")
    assert (done.stage, done.moved, done.already) == (Stage.PRODUCTION, True, False)
    decisions = house.lifecycle.decisions("digits")
    assert [(each.id, each.source, each.target, each.moved) for each in decisions] == [
        ("3", "staging", "production", True),
        ("2", "validation", "staging", True),
        ("1", "development", "validation", True),
    ]
    record = house.records.journal.records(100)[-1]
    assert (record.action, record.subject, record.actor) == ("promote", "digits@1.0.0", "ann")
    assert record.details["source"] == "staging"
    assert record.details["decision"] == "3"
    assert record.before
    assert record.after != record.before


def test_to_be_there_already_is_to_have_arrived(house, draft) -> None:
    version = house.register(draft())
    house.bring(version, "validation")
    before = house.actions()
    again = house.promote(version, "validation", if_stage=Stage.DEVELOPMENT)
    assert (again.moved, again.already, again.decision) == (False, True, None)
    assert house.actions() == before


def test_an_illegal_move_raises_and_changes_nothing(house, draft) -> None:
    version = house.register(draft())
    before = house.actions()
    with pytest.raises(SalverError, match="cannot go to production") as raised:
        house.promote(version, "production")
    assert raised.value.code == "ILLEGAL_TRANSITION"
    assert (house.stages(), house.actions()) == ({version: "development"}, before)
    assert house.lifecycle.decisions("digits") == ()


def test_an_expected_stage_that_is_not_there_is_a_conflict(house, draft) -> None:
    version = house.register(draft())
    with pytest.raises(SalverError, match="is in development, not in staging") as raised:
        house.promote(version, "validation", if_stage=Stage.STAGING)
    assert raised.value.code == "CONFLICT"


def test_a_refusal_is_an_answer_that_is_kept(house, draft) -> None:
    version = house.register(draft())
    house.policy(APPROVALS)
    house.bring(version, "validation", "staging")
    done = house.promote(version, "production", why="try")
    assert not done.moved
    assert done.stage is Stage.STAGING
    kept = house.lifecycle.decisions("digits", version)[0]
    assert kept == done.decision
    assert (kept.verdict, kept.moved, kept.why) == ("inconclusive", False, "try")
    assert kept.policy_digest == house.records.policies.in_force().digest
    assert house.actions()[-1] == "refuse_promotion"


def test_a_dry_run_says_what_is_missing_and_changes_nothing(house, draft) -> None:
    version = house.register(draft())
    house.policy(APPROVALS)
    house.bring(version, "validation", "staging")
    before = house.actions()
    done = house.promote(version, "production", dry_run=True)
    assert done.decision.verdict == "inconclusive"
    assert done.decision.id == ""
    assert house.actions() == before


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("admin", True), ("operator", True), ("developer", False), ("approver", False), ("predictor", False)],
)
def test_production_takes_the_right_to_deploy(house, draft, role, allowed) -> None:
    version = house.register(draft())
    house.bring(version, "validation", "staging")
    if allowed:
        assert house.promote(version, "production", person("x", role)).moved
        return
    with pytest.raises(SalverError) as raised:
        house.promote(version, "production", person("x", role))
    assert raised.value.code == "PERMISSION_DENIED"
    assert house.stages() == {version: "staging"}


def test_developers_move_versions_as_far_as_staging(house, draft) -> None:
    version = house.register(draft())
    dev = person("dev", "developer")
    assert house.promote(version, "validation", dev).moved
    assert house.promote(version, "staging", dev).moved


def test_one_version_is_in_production_and_the_former_goes_back_to_staging(house, draft) -> None:
    first, second = house.register(draft("a")), house.register(draft("b"))
    house.bring(first, "validation", "staging", "production")
    done = house.bring(second, "validation", "staging", "production")
    assert [(each.version, each.stage) for each in done.replaced] == [(first, Stage.STAGING)]
    assert house.stages() == {first: "staging", second: "production"}
    assert done.decision.replaced == (first,)
    assert house.actions()[-2:] == ["replace", "promote"]


def test_the_policy_says_how_many_are_in_production_and_where_the_former_go(house, draft) -> None:
    versions = [house.register(draft(content)) for content in "abc"]
    house.policy('[[model]]\nmatch = "digits"\nmost_in_production = 2\non_replaced = "archived"')
    for version in versions:
        house.bring(version, "validation", "staging", "production")
    assert list(house.stages().values()) == ["archived", "production", "production"]


def test_what_is_deployed_or_held_makes_room_without_being_archived(house, draft) -> None:
    house.policy('[[model]]\non_replaced = "archived"')
    first, second, third = (house.register(draft(content)) for content in "abc")
    house.bring(first, "validation", "staging", "production")
    house.records.deployments.deploy(house.ann, DeploymentSpec("digits", "digits", first))
    house.bring(second, "validation", "staging", "production")
    assert house.stages()[first] == "staging"
    assert [each.rule for each in house.records.retirements.list()] == ["replaced"]
    house.records.holds.hold(house.ann, "digits", second, "case 1")
    house.bring(third, "validation", "staging", "production")
    assert house.stages()[second] == "staging"
    assert len(house.records.retirements.list()) == 1


def test_an_emergency_passes_the_gates_with_a_reason_and_is_marked_for_ever(house, draft) -> None:
    version = house.register(draft())
    house.policy(APPROVALS)
    house.bring(version, "validation", "staging")
    with pytest.raises(SalverError, match="an emergency needs a reason"):
        house.promote(version, "production", house.root, emergency=True)
    with pytest.raises(SalverError, match="may not promote past the gates") as raised:
        house.promote(version, "production", emergency=True, why="fire")
    assert raised.value.code == "PERMISSION_DENIED"
    done = house.promote(version, "production", house.root, emergency=True, why="fire")
    assert (done.moved, done.emergency, done.decision.emergency) == (True, True, True)
    assert (done.decision.verdict, done.decision.why) == ("inconclusive", "fire")
    house.clock.advance(1.0)
    for target in ("staging", "archived", "staging"):
        assert house.bring(version, target).emergency
    assert house.records.journal.records(100)[-4].details["emergency"]


def test_the_policy_may_let_others_declare_an_emergency(house, draft) -> None:
    version = house.register(draft())
    house.policy('[[model]]\nemergency_roles = ["operator"]\n' + APPROVALS)
    house.bring(version, "validation", "staging")
    assert house.promote(version, "production", emergency=True, why="fire").moved
    with pytest.raises(SalverError, match="cannot go to validation"):
        house.promote(version, "validation", emergency=True, why="fire")  # past gates, not past the table


def test_a_deployed_version_is_not_put_away(house, draft) -> None:
    version = house.register(draft())
    house.bring(version, "validation")
    house.records.deployments.deploy(house.ann, DeploymentSpec("shop", "digits", version))
    for target in ("archived", "rejected"):
        with pytest.raises(SalverError, match=f"is deployed as shop, so it cannot go to {target}") as raised:
            house.promote(version, target)
        assert raised.value.code == "CONFLICT"


def test_archived_and_rejected_versions_are_not_deployed_anew(house, draft) -> None:
    first, second = house.register(draft("a")), house.register(draft("b"))
    house.bring(first, "archived")
    house.bring(second, "validation", "rejected")
    for version, stage in ((first, "archived"), (second, "rejected")):
        with pytest.raises(SalverError, match=f"is in {stage}; only versions in development") as raised:
            house.records.deployments.deploy(house.ann, DeploymentSpec("digits", "digits", version))
        assert raised.value.code == "REFUSED_BY_POLICY"


def test_the_policy_says_from_which_stages_is_deployed_and_settings_may_still_change(house, draft) -> None:
    version = house.register(draft())
    house.records.deployments.deploy(house.ann, DeploymentSpec("digits", "digits", version))
    house.policy('[[model]]\ndeploy_from = ["staging", "production"]')
    house.records.deployments.deploy(house.ann, DeploymentSpec("digits", "digits", version, max_batch=8))
    with pytest.raises(SalverError, match="is in development; only versions in staging, production may be deployed"):
        house.records.deployments.deploy(house.ann, DeploymentSpec("other", "digits", version))


def test_a_revoked_version_comes_no_nearer_to_use(house, draft) -> None:
    version = house.register(draft())
    house.bring(version, "validation", "staging", "production")
    house.records.revocations.revoke(house.ann, "digits", version, "poisoned")
    house.bring(version, "staging")
    with pytest.raises(SalverError, match="was revoked by ann: poisoned"):
        house.promote(version, "production")
    house.bring(version, "validation", "rejected")


def test_of_many_who_promote_a_version_at_once_one_does_and_the_others_are_told(house, draft) -> None:
    version = house.register(draft())
    start = threading.Barrier(8)

    def race(_: int) -> tuple[bool, bool]:
        start.wait()
        done = house.promote(version, "validation")
        return done.moved, done.already

    with ThreadPoolExecutor(8) as threads:
        outcomes = sorted(threads.map(race, range(8)))
    assert outcomes == [(False, True)] * 7 + [(True, False)]
    assert len(house.lifecycle.decisions("digits")) == 1


def test_of_two_who_want_different_things_one_wins_and_the_other_is_told(house, draft) -> None:
    for content in "abcdef":
        version = house.register(draft(content))
        house.bring(version, "validation")
        start = threading.Barrier(2)

        def race(target: str, version: str = version, start: threading.Barrier = start) -> str:
            start.wait()
            try:
                return target if house.promote(version, target, if_stage=Stage.VALIDATION).moved else ""
            except SalverError as error:
                return error.code

        with ThreadPoolExecutor(2) as threads:
            outcomes = set(threads.map(race, ("staging", "rejected")))
        assert "CONFLICT" in outcomes
        assert outcomes - {"CONFLICT"} == {house.stages()[version]}


def test_of_two_versions_on_their_way_to_production_one_wins_where_both_say_what_they_replace(house, draft) -> None:
    old, *new = (house.register(draft(content)) for content in "abc")
    house.bring(old, "validation", "staging", "production")
    for version in new:
        house.bring(version, "validation", "staging")
    start = threading.Barrier(2)

    def race(version: str) -> str:
        start.wait()
        try:
            return version if house.promote(version, "production", if_production=old).moved else ""
        except SalverError as error:
            return error.code

    with ThreadPoolExecutor(2) as threads:
        outcomes = set(threads.map(race, new))
    assert "CONFLICT" in outcomes
    assert outcomes - {"CONFLICT"} == {version for version, stage in house.stages().items() if stage == "production"}
    with pytest.raises(SalverError, match=r"production is digits@\S+, not empty"):
        house.promote(old, "production", if_production="")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(walk=st.lists(st.sampled_from(list(Stage)), min_size=1, max_size=12))
def test_random_walks_reach_legal_stages_only(house, draft, walk) -> None:
    house.count = getattr(house, "count", 0) + 1
    version = house.register(draft(version=f"1.0.{house.count}"))
    here = Stage.DEVELOPMENT
    for target in walk:
        legal = {move.target for move in LIFECYCLE.moves_from(here)} | {here}
        try:
            done = house.promote(version, target, why="a walk")
        except SalverError as error:
            assert error.code == "ILLEGAL_TRANSITION"
            assert target not in legal
        else:
            assert target in legal
            assert done.stage is target
            here = target
        assert house.stages()[version] == here
        assert list(house.stages().values()).count("production") <= 1
    assert house.records.journal.verify().ok


GATED = """
[[transition]]
to = "validation"
[[transition.gate]]
kind = "evaluation"
suite = "release"
[[transition]]
to = "staging"
from = ["validation"]
[[transition.gate]]
kind = "approvals"
[[transition]]
to = "validation"
[[transition.gate]]
kind = "checklist"
name = "all"
"""


def test_the_archive_is_no_way_around_the_gates_before_staging(house, draft) -> None:
    version = house.register(draft())
    house.policy(GATED)
    house.bring(version, "archived")
    done = house.promote(version, "staging", person("dev", "developer"))
    assert (done.moved, done.stage) == (False, Stage.ARCHIVED)
    assert [each.gate for each in done.decision.gates] == [
        'evaluation suite "release" is successful',
        "checklist all",
        "1 approval by approver or admin, not by the author",
    ]


def test_what_was_in_staging_once_comes_back_from_the_archive_as_it_went(house, draft) -> None:
    version = house.register(draft())
    house.bring(version, "validation", "staging", "archived")
    house.policy(GATED)
    assert house.promote(version, "staging").moved


@pytest.mark.parametrize("why", ["one\ntwo", "\x1b[2J", "\u202e gnp.exe", "\u200b"])
def test_a_reason_is_one_line_that_can_be_seen(house, draft, why) -> None:
    version = house.register(draft())
    with pytest.raises(SalverError, match="control characters") as raised:
        house.promote(version, "validation", house.root, why=why, emergency=True)
    assert raised.value.code == "INVALID_PARAMETER"
    assert house.stages() == {version: "development"}
