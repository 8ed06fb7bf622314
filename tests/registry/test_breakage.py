from __future__ import annotations

import pytest

from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.stages import Stage
from salver.protocol.tables import DeploymentSpec
from salver.protocol.usage import Asking
from salver.protocol.verdict import Verdict
from salver.registry.breakage import Breakages
from salver.registry.descriptions import Descriptions
from salver.registry.evidence import Evaluations
from salver.registry.holds import Holds
from salver.registry.revocations import Revocations
from salver.registry.stages import VersionStage, write_stage
from salver.registry.usage import Usage

WIDE = Signature((TensorSpec("x", "FP32", (-1, 9)),), (TensorSpec("y", "FP32", (-1, 2)),))


@pytest.fixture
def breakages(catalog, database, clock, admin, draft) -> Breakages:
    """digits 1.0.0 and 1.0.1 are alike, 2.0.0 takes other inputs."""
    for content, fields in (("a", {}), ("b", {}), ("c", {"signature": WIDE})):
        catalog.add_version(admin, draft(content, **fields))
    return Breakages(database, clock)


def ask(database, clock, version="1.0.0", days_ago=1.0, times=7) -> None:
    asking = Asking("digits", version, "digits", "shop", times, clock.wall_s() - days_ago * 86_400)
    Usage(database).add([asking])


def test_what_nobody_needs_can_go(breakages) -> None:
    found = breakages.of("digits", "1.0.0")
    assert (found.verdict, found.reasons) == (Verdict.SUCCESSFUL, ("nothing needs it",))


def test_clients_follow_where_another_version_understands_them(breakages, database, clock) -> None:
    ask(database, clock)
    found = breakages.of("digits", "1.0.0")
    assert (found.verdict, found.substitutes) == (Verdict.INCONCLUSIVE, ("1.0.1",))
    assert "shop (7 requests); 1.0.1 could take its place" in found.reasons[0]


def test_clients_that_nobody_else_understands_are_left_alone(breakages, database, clock) -> None:
    ask(database, clock, "2.0.0", times=1)
    found = breakages.of("digits", "2.0.0")
    assert (found.verdict, found.substitutes) == (Verdict.FAILED, ())
    assert "shop (1 request);" in found.reasons[0]
    assert "no other version understands" in found.reasons[0]


def test_what_failed_takes_a_place_last_and_that_is_said(
    breakages, database, journal, clock, admin, catalog, draft
) -> None:
    catalog.add_version(admin, draft("d", version="1.0.2"))
    evaluations = Evaluations(database, journal, clock)
    evaluations.record(admin, "digits", "1.0.2", {"suite": "release", "verdict": "failed"})
    ask(database, clock)
    found = breakages.of("digits", "1.0.0")
    assert (found.substitutes, found.failed) == (("1.0.1", "1.0.2"), {"1.0.2": ("release",)})
    evaluations.record(admin, "digits", "1.0.1", {"suite": "release", "verdict": "failed"})
    found = breakages.of("digits", "1.0.0")
    assert "1.0.2 could take its place, but its newest evaluation of release failed" in found.reasons[0]


def test_clients_of_long_ago_do_not_count(breakages, database, clock) -> None:
    ask(database, clock, "2.0.0", days_ago=40)
    assert breakages.of("digits", "2.0.0").verdict is Verdict.SUCCESSFUL
    assert breakages.of("digits", "2.0.0", days=50).verdict is Verdict.FAILED


def test_what_is_archived_or_revoked_takes_no_place(breakages, database, journal, clock, admin) -> None:
    assert breakages.of("digits", "1.0.0").substitutes == ("1.0.1",)
    with database.begin() as connection:
        write_stage(connection, VersionStage("digits", "1.0.1", Stage.ARCHIVED, 1.0))
    assert breakages.of("digits", "1.0.0").substitutes == ()
    with database.begin() as connection:
        write_stage(connection, VersionStage("digits", "1.0.1", Stage.PRODUCTION, 1.0))
    assert breakages.of("digits", "1.0.0").substitutes == ("1.0.1",)
    Revocations(database, journal, clock).revoke(admin, "digits", "1.0.1", "bad")
    assert breakages.of("digits", "1.0.0").substitutes == ()


def test_the_nearest_to_production_comes_first(breakages, catalog, database, admin, draft) -> None:
    for content in "de":
        catalog.add_version(admin, draft(content, version=f"1.{'de'.index(content) + 1}.0"))
    with database.begin() as connection:
        write_stage(connection, VersionStage("digits", "1.0.1", Stage.PRODUCTION, 1.0))
        write_stage(connection, VersionStage("digits", "1.1.0", Stage.STAGING, 1.0))
    assert breakages.of("digits", "1.0.0").substitutes == ("1.0.1", "1.1.0", "1.2.0")


def test_everything_that_hangs_on_a_version_is_named(
    breakages, database, journal, clock, admin, deployments, catalog, draft
) -> None:
    descriptions = Descriptions(database, journal, clock)
    descriptions.alias(admin, "digits", "champion", "2.0.0")
    descriptions.describe(admin, "digits", "1.0.1", {"base_model": "digits@2.0.0"})
    deployments.deploy(admin, DeploymentSpec("numbers", "digits", "2.0.0"))
    with database.begin() as connection:
        write_stage(connection, VersionStage("digits", "2.0.0", Stage.PRODUCTION, 1.0))
    Holds(database, journal, clock).hold(admin, "digits", "2.0.0", "a lawsuit")
    found = breakages.of("digits", "champion")
    assert found.verdict is Verdict.FAILED
    assert (found.endpoints, found.aliases, found.dependents) == (("numbers",), ("champion",), ("digits@1.0.1",))
    assert (found.held, found.only_in_production) == ("a lawsuit", True)
    for part in ("held: a lawsuit", "deployed as numbers", "only version in production", "champion", "digits@1.0.1"):
        assert any(part in reason for reason in found.reasons), part
