from __future__ import annotations

import pytest

from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec
from salver.registry.attestation import attestation_of
from salver.registry.catalog import Catalog
from salver.registry.deployments import Deployments
from salver.registry.revocations import Revocations


@pytest.fixture
def revocations(database, journal, clock) -> Revocations:
    return Revocations(database, journal, clock)


def test_a_revoked_version_is_published_as_such_and_deployed_no_more(
    catalog: Catalog, deployments: Deployments, revocations: Revocations, database, journal, admin, draft
) -> None:
    catalog.add_version(admin, draft("a"))
    catalog.add_version(admin, draft("b"))
    deployments.deploy(admin, DeploymentSpec("digits", "digits", "1.0.0"))
    before = deployments.revision()
    done = revocations.revoke(admin, "digits", "1.0.0", " wrong labels ")
    assert (done.reference, done.why, done.revoked_by) == ("digits@1.0.0", "wrong labels", admin.name)
    assert deployments.revision() == before + 1
    assert deployments.tables().revocations == revocations.list() == (done,)
    assert [spec.version for spec in deployments.list()] == ["1.0.0"], "what is deployed is for operators to replace"
    with pytest.raises(SalverError, match=f"revoked by {admin.name}: wrong labels") as raised:
        deployments.deploy(admin, DeploymentSpec("digits", "digits", "1.0.0"))
    assert raised.value.code == "REFUSED_BY_POLICY"
    deployments.deploy(admin, DeploymentSpec("digits", "digits", "1.0.1"))
    with database.read() as connection:
        found = attestation_of(connection, "digits", "1.0.0")
    assert found is not None
    assert found.revoked == "wrong labels"
    record = next(each for each in journal.records() if each.action == "revoke")
    assert (record.subject, record.details) == ("digits@1.0.0", {"why": "wrong labels"})


@pytest.mark.parametrize(
    ("model", "version", "why", "code"),
    [
        ("digits", "9.9.9", "x", "NOT_FOUND"),
        ("iris", "1.0.0", "x", "NOT_FOUND"),
        ("digits", "1.0.0", "  ", "INVALID_PARAMETER"),
        ("digits", "1.0.0", "x" * 1001, "INVALID_PARAMETER"),
    ],
)
def test_what_cannot_be_revoked_changes_nothing(
    catalog: Catalog, revocations: Revocations, journal, admin, draft, model, version, why, code
) -> None:
    catalog.add_version(admin, draft())
    records = journal.records()
    with pytest.raises(SalverError) as raised:
        revocations.revoke(admin, model, version, why)
    assert raised.value.code == code
    assert (revocations.list(), journal.records()) == ((), records)


def test_a_version_is_revoked_once(catalog: Catalog, revocations: Revocations, admin, draft) -> None:
    catalog.add_version(admin, draft())
    revocations.revoke(admin, "digits", "1.0.0", "first")
    with pytest.raises(SalverError, match="revoked already: first") as raised:
        revocations.revoke(admin, "digits", "1.0.0", "second")
    assert raised.value.code == "ALREADY_EXISTS"


@pytest.mark.parametrize("role", ["developer", "approver", "predictor"])
def test_revoking_needs_the_right(catalog: Catalog, revocations: Revocations, admin, principal, draft, role) -> None:
    catalog.add_version(admin, draft())
    with pytest.raises(SalverError, match="may not deploy"):
        revocations.revoke(principal(role), "digits", "1.0.0", "x")
