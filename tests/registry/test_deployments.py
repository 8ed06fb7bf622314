from __future__ import annotations

import msgspec
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.tables import BatchPolicy, DeploymentSpec, Placement, RuntimeOptions, Tables
from salver.registry.access_tokens import AccessTokens
from salver.registry.attestation import attested
from salver.registry.catalog import Catalog
from salver.registry.deployments import Deployments
from salver.storage.database import open_database
from salver.storage.home import Home
from salver.storage.journal import ChainCheck, Journal, digest_of
from salver.storage.publication import publish, read_tables
from salver.storage.snapshot import write_json

DEPLOY = """
import sys
from salver.clock import SYSTEM_CLOCK
from salver.protocol.tables import DeploymentSpec
from salver.registry.deployments import Deployments
from salver.security import local_principal
from salver.storage.database import open_database
from salver.storage.home import Home
from salver.storage.journal import Journal

database = open_database(Home.open(sys.argv[1]))
deployments = Deployments(database, Journal(database, SYSTEM_CLOCK), SYSTEM_CLOCK)
for n in range(100_000):
    print(deployments.deploy(local_principal(), DeploymentSpec(f"e{n}", "digits", "1.0.0")).endpoint, flush=True)
"""


@pytest.fixture(autouse=True)
def two_versions(catalog: Catalog, admin, draft) -> None:
    catalog.add_version(admin, draft("a"))
    catalog.add_version(admin, draft("b"))


def spec(endpoint: str = "digits", version: str = "1.0.0", **settings: object) -> DeploymentSpec:
    return DeploymentSpec(endpoint, "digits", version, **settings)


def test_a_deployment_is_desired_state_until_it_is_replaced_or_removed(deployments: Deployments, admin) -> None:
    first = deployments.deploy(admin, spec(replicas=2))
    assert deployments.list() == (first,)
    second = deployments.deploy(admin, spec(version="1.0.1"))
    assert deployments.list() == (second,)
    assert second.replicas == 1  # a deployment is whole: nothing lingers from the one before
    assert deployments.undeploy(admin, "digits") == second
    assert deployments.list() == ()


def test_who_means_one_deployment_does_not_remove_the_next(deployments: Deployments, admin) -> None:
    first = deployments.deploy(admin, spec())
    second = deployments.deploy(admin, spec(version="1.0.1"))
    with pytest.raises(SalverError, match="deployed anew") as raised:
        deployments.undeploy(admin, "digits", if_generation=first.generation)
    assert raised.value.code == "CONFLICT"
    assert deployments.list() == (second,)
    assert deployments.undeploy(admin, "digits", if_generation=second.generation) == second


def test_every_deploy_raises_the_generation_even_after_an_undeploy(deployments: Deployments, admin) -> None:
    generations = [deployments.deploy(admin, spec(generation=10**9)).generation for _ in range(2)]
    deployments.undeploy(admin, "digits")
    generations.append(deployments.deploy(admin, spec()).generation)
    assert generations == sorted(set(generations))
    assert generations[-1] < 10**9


def test_the_snapshot_holds_what_the_data_path_needs_and_no_more(
    deployments: Deployments, catalog: Catalog, tokens: AccessTokens, admin, draft, database
) -> None:
    catalog.add_version(admin, draft(model="iris"))
    assert deployments.tables() == Tables(revision=0)
    minted = tokens.create(admin, "ann", "predictor")
    b = deployments.deploy(admin, spec("b", "1.0.1"))
    a = deployments.deploy(admin, spec("a", "1.0.1"))
    tables = deployments.tables()
    with database.read() as connection:
        attested_versions = attested(connection, [("digits", "1.0.1")])
    assert [each.reference for each in attested_versions if each.attestation] == ["digits@1.0.1"]
    assert tables == Tables(
        revision=3,
        versions=attested_versions,
        deployments=(a, b),
        tokens=(minted.record,),
    )
    assert all(tables.version_of(each).version == "1.0.1" for each in tables.deployments)


def test_every_change_of_the_snapshot_raises_the_revision_and_nothing_else_does(
    deployments: Deployments, catalog: Catalog, tokens: AccessTokens, admin, draft
) -> None:
    changes = [
        lambda: deployments.deploy(admin, spec()),
        lambda: deployments.deploy(admin, spec()),
        lambda: deployments.undeploy(admin, "digits"),
        lambda: tokens.revoke(admin, tokens.create(admin, "ann", "admin").record.id),
    ]
    seen = [deployments.revision()]
    for change in changes:
        change()
        seen.append(deployments.revision())
        assert deployments.tables().revision == seen[-1]
    assert seen == [0, 1, 2, 3, 5]
    catalog.add_version(admin, draft("c"))
    with pytest.raises(SalverError):
        deployments.undeploy(admin, "absent")
    assert deployments.revision() == 5


def test_the_snapshot_can_be_published_and_read_back(deployments: Deployments, admin, home: Home) -> None:
    deployments.deploy(admin, spec(placement=Placement.THREAD, policy=BatchPolicy.TIMEOUT, max_wait_s=0.01))
    assert publish(home, deployments.tables())
    assert read_tables(home) == deployments.tables()


def test_a_database_restored_from_a_backup_publishes_again(
    deployments: Deployments, journal: Journal, admin, home: Home
) -> None:
    deployments.deploy(admin, spec())
    publish(home, deployments.tables())
    assert not deployments.catch_up(admin, read_tables(home))
    for ahead in (0, 9):  # as many changes as since the backup, or more
        published = Tables(revision=deployments.revision() + ahead)
        write_json(home.tables_path, published)
        assert not publish(home, deployments.tables())
        assert deployments.catch_up(admin, published)
        assert deployments.revision() == published.revision + 1
        assert publish(home, deployments.tables())
        assert not deployments.catch_up(admin, read_tables(home))
    assert [record.action for record in journal.records(after=3)] == ["catch_up", "catch_up"]


def test_what_does_not_exist_cannot_be_deployed(deployments: Deployments, admin) -> None:
    for reference, message in (
        (DeploymentSpec("e", "digit", "1.0.0"), r"no model 'digit'; did you mean 'digits'\? registered are digits"),
        (spec(version="7.0.0"), "no version '7.0.0'; it has 1.0.0, 1.0.1"),
        (spec(version=""), "no version ''"),
    ):
        with pytest.raises(SalverError, match=message) as raised:
            deployments.deploy(admin, reference)
        assert raised.value.code == "NOT_FOUND"
    assert deployments.revision() == 0


def test_an_unknown_endpoint_is_answered_with_the_known_ones(deployments: Deployments, admin) -> None:
    with pytest.raises(SalverError, match="no endpoint 'x'; nothing is deployed"):
        deployments.undeploy(admin, "x")
    deployments.deploy(admin, spec())
    with pytest.raises(SalverError, match="no endpoint 'x'; deployed are digits") as raised:
        deployments.undeploy(admin, "x")
    assert raised.value.code == "NOT_FOUND"


def test_names_and_settings_are_checked(deployments: Deployments, admin) -> None:
    for bad, code in ((spec("../x"), "INVALID_NAME"), (spec(replicas=65), "INVALID_SETTING")):
        with pytest.raises(SalverError) as raised:
            deployments.deploy(admin, bad)
        assert raised.value.code == code
    assert deployments.list() == ()


def test_settings_that_the_format_would_not_heed_are_refused(deployments: Deployments, catalog, admin, draft) -> None:
    catalog.add_version(admin, draft(model="forest", format="sklearn"))
    wanted = DeploymentSpec("forest", "forest", "1.0.0", runtime=RuntimeOptions(optimization="basic"))
    with pytest.raises(SalverError, match="means nothing to a version of format sklearn"):
        deployments.deploy(admin, wanted)
    assert deployments.list() == ()


def test_a_cache_for_a_version_that_is_not_idempotent_is_refused(
    deployments: Deployments, catalog, admin, draft
) -> None:
    catalog.add_version(admin, draft(model="actor", idempotent=False))
    with pytest.raises(SalverError, match="not idempotent; set it to 0"):
        deployments.deploy(admin, DeploymentSpec("actor", "actor", "1.0.0", cache_bytes=1000))
    assert deployments.list() == ()


@pytest.mark.parametrize("placement", Placement)
@pytest.mark.parametrize("fields", [{"trusts_code": True}, {"preprocess": "m:f"}])
def test_user_code_is_never_placed_in_the_server_process(
    deployments: Deployments, catalog: Catalog, admin, draft, placement: Placement, fields: dict
) -> None:
    catalog.add_version(admin, draft(model="code", **fields))
    asked = DeploymentSpec("code", "code", "1.0.0", placement=placement)
    if placement in (Placement.AUTO, Placement.PROCESS):
        assert deployments.deploy(admin, asked).placement is placement
        return
    with pytest.raises(SalverError, match=f"setting placement is {placement}") as raised:
        deployments.deploy(admin, asked)
    assert raised.value.code == "REFUSED_BY_POLICY"


@pytest.mark.parametrize("role", ["approver", "developer", "predictor"])
def test_deploying_needs_the_right(deployments: Deployments, admin, principal, role: str) -> None:
    deployments.deploy(admin, spec())
    for change in (
        lambda: deployments.deploy(principal(role), spec()),
        lambda: deployments.undeploy(principal(role), "digits"),
    ):
        with pytest.raises(SalverError, match=f"role {role}, which may not deploy"):
            change()
    assert deployments.revision() == 1


def test_the_journal_says_what_changed_from_what(deployments: Deployments, journal: Journal, admin) -> None:
    first = deployments.deploy(admin, spec(replicas=2))
    second = deployments.deploy(admin, spec())
    deployments.undeploy(admin, "digits")
    records = journal.records(after=2)
    assert [(record.actor, record.action, record.subject) for record in records] == [
        ("a-admin", "deploy", "digits"),
        ("a-admin", "deploy", "digits"),
        ("a-admin", "undeploy", "digits"),
    ]
    digest = records[0].details["digest"]
    assert records[0].details == {"before": None, "after": msgspec.to_builtins(first), "digest": digest}
    assert records[1].details == {
        "before": msgspec.to_builtins(first),
        "after": msgspec.to_builtins(second),
        "digest": digest,
    }
    digests = [(record.before, record.after) for record in records]
    assert digests == [("", digest_of(first)), (digest_of(first), digest_of(second)), (digest_of(second), "")]
    assert journal.verify() == ChainCheck.sound(5)


def test_every_deploy_acknowledged_before_kill_9_is_there(deployments: Deployments, home: Home, python, clock) -> None:
    child = python(DEPLOY, home.path)
    acknowledged = {child.stdout.readline().strip() for _ in range(30)}
    child.kill()
    child.wait()
    database = open_database(home)
    journal = Journal(database, clock)
    reopened = Deployments(database, journal, clock)
    assert acknowledged <= {each.endpoint for each in reopened.list()}
    assert reopened.revision() == len(reopened.list())  # each change with its revision, or neither
    assert journal.verify() == ChainCheck.sound(2 + len(reopened.list()))
    database.close()
