from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import delete, insert, text, update

from salver.protocol.errors import SalverError
from salver.protocol.tables import DeploymentSpec, FileEntry, VersionManifest
from salver.registry.attestation import attestation_of, attested, verified_publisher
from salver.registry.catalog import Catalog, version_row
from salver.registry.deployments import Deployments
from salver.registry.keyring import Keyring
from salver.security.keys import SigningKey, TrustedKeys, new_signing_pem
from salver.security.model_signing import require_manifest, sign_manifest
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.journal import Journal
from salver.storage.publication import publish, read_tables
from salver.storage.registry_schema import attestations
from salver.storage.schema import models, versions

THEM = SigningKey.parse(new_signing_pem())


@pytest.fixture
def keyring(home: Home) -> Keyring:
    return Keyring(home)


def rows(database: Database) -> int:
    with database.read() as connection:
        return len(connection.execute(attestations.select()).all())


def test_a_version_is_signed_in_the_transaction_that_registers_it(
    catalog: Catalog, database: Database, keyring: Keyring, admin, draft, clock
) -> None:
    manifest = catalog.add_version(admin, draft()).manifest
    assert manifest.attestation == ""
    with database.read() as connection:
        found = attestation_of(connection, "digits", "1.0.0")
        (published,) = attested(connection, [("digits", "1.0.0")])
        assert attestation_of(connection, "digits", "9.9.9") is None
    assert found is not None
    assert (found.key_id, found.revoked) == (keyring.signing().key_id, "")
    assert found.manifest == published
    assert msgspec.structs.replace(published, attestation="") == manifest
    assert require_manifest(published, keyring.trusted()).claim is not None


def test_what_cannot_be_signed_is_not_registered(
    catalog: Catalog, database: Database, home: Home, journal: Journal, admin, draft
) -> None:
    (home.secrets_path / "signing.key").write_bytes(b"damaged")
    with pytest.raises(SalverError, match=r"secrets/signing\.key is not the private key"):
        catalog.add_version(admin, draft())
    assert catalog.models() == ()
    assert journal.records() == ()
    assert rows(database) == 0


def test_a_signature_is_written_once(catalog: Catalog, database: Database, admin, draft) -> None:
    catalog.add_version(admin, draft())
    for statement in (update(attestations).values(envelope="x"), delete(attestations)):
        with pytest.raises(Exception, match="written once"), database.begin() as connection:
            connection.execute(statement)


def test_what_is_published_is_signed_and_edits_of_it_show(
    catalog: Catalog, deployments: Deployments, home: Home, keyring: Keyring, admin, draft
) -> None:
    catalog.add_version(admin, draft())
    deployments.deploy(admin, DeploymentSpec("digits", "digits", "1.0.0"))
    publish(home, deployments.tables())
    path = home.tables_path
    tables = read_tables(home)
    assert tables is not None
    require_manifest(tables.versions[0], keyring.trusted())
    for before, after in (
        ('"ordinal":1', '"trusts_code":true,"ordinal":1'),
        ("a" * 64, "b" * 64),
        ('"format":"onnx"', '"format":"python"'),
    ):
        original = path.read_text()
        assert before in original
        path.write_text(original.replace(before, after))
        edited = read_tables(home)
        assert edited is not None
        with pytest.raises(SalverError, match="was signed with another"):
            require_manifest(edited.versions[0], keyring.trusted())
        path.write_text(original)


# Homes from before there were signatures.


def put_unsigned(database: Database, manifest: VersionManifest) -> None:
    with database.begin() as connection:
        connection.execute(insert(models).values(name=manifest.model, created_s=1.0))
        connection.execute(insert(versions).values(version_row(manifest, 1.0, "ann")))


def test_a_home_from_before_is_signed_once_on_the_journal(
    catalog: Catalog, deployments: Deployments, database: Database, keyring: Keyring, journal: Journal, admin, draft
) -> None:
    put_unsigned(database, draft().manifest("1.0.0", 1))
    before = deployments.revision()
    assert catalog.sign_from_before(admin) == ("digits@1.0.0",)
    assert catalog.sign_from_before(admin) == ()
    (record,) = journal.records()
    assert (record.actor, record.action) == (admin.name, "sign_from_before")
    assert record.details == {"versions": 1, "key_id": keyring.signing().key_id}
    assert deployments.revision() > before, "or it would not be published"
    with database.read() as connection:
        (manifest,) = attested(connection, [("digits", "1.0.0")])
    require_manifest(manifest, keyring.trusted())


def test_in_a_home_that_signs_a_version_without_a_signature_stays_without(
    catalog: Catalog, database: Database, admin, draft
) -> None:
    catalog.add_version(admin, draft())
    put_unsigned(database, draft(model="smuggled").manifest("1.0.0", 1))
    assert catalog.sign_from_before(admin) == ()
    with database.read() as connection:
        (manifest,) = attested(connection, [("smuggled", "1.0.0")])
    assert manifest.attestation == ""


def test_an_empty_home_is_not_signed_and_gets_no_key_for_it(catalog: Catalog, home: Home, admin) -> None:
    assert catalog.sign_from_before(admin) == ()
    assert not (home.secrets_path / "signing.key").exists()


# Versions that come with somebody's signature.


def trusting(keyring: Keyring) -> TrustedKeys:
    keyring.trust(THEM.public.pem, "them")
    return keyring.trusted()


def test_a_signature_of_a_trusted_publisher_is_kept_with_the_version(
    catalog: Catalog, database: Database, keyring: Keyring, journal: Journal, admin, draft
) -> None:
    trusting(keyring)
    bundle = sign_manifest(THEM, draft().manifest("2.3.4", 1))
    added = catalog.add_version(admin, draft(publisher_signature=bundle))
    assert added.manifest.version == "2.3.4", "the number that was signed"
    (record,) = journal.records()
    assert record.details["publisher_key_id"] == THEM.key_id
    with database.read() as connection:
        (manifest,) = attested(connection, [("digits", "2.3.4")])
    claim = require_manifest(manifest, keyring.trusted()).claim
    assert claim is not None
    assert claim.publisher is not None
    assert (claim.publisher.key_id, claim.publisher.bundle) == (THEM.key_id, bundle)
    keyring.distrust(THEM.key_id)
    with pytest.raises(SalverError, match="does not trust any more"):
        require_manifest(manifest, keyring.trusted())


def test_registering_the_same_again_with_a_wrong_signature_is_refused_too(
    catalog: Catalog, keyring: Keyring, admin, draft
) -> None:
    trusting(keyring)
    catalog.add_version(admin, draft(version="1.0.0"))
    bundle = sign_manifest(THEM, draft("b").manifest("1.0.0", 1))
    with pytest.raises(SalverError, match="has other bytes"):
        catalog.add_version(admin, draft(version="1.0.0", publisher_signature=bundle))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": "iris"}, r"made for digits@1\.0\.0, not for iris@1\.0\.0"),
        ({"version": "1.0.1"}, r"made for digits@1\.0\.0, not for digits@1\.0\.1"),
        ({"files": (FileEntry("model.onnx", "b" * 64, 10),)}, "has other bytes"),
        ({"files": (FileEntry("other.onnx", "a" * 64, 10),)}, "is missing"),
        (
            {"files": (FileEntry("model.onnx", "a" * 64, 10), FileEntry(".gitignore", "c" * 64, 1))},
            "'.gitignore' is not signed",
        ),
        ({"format": "sklearn"}, "made for another format"),
        ({"preprocess": "m:f"}, "made for another preprocess"),
    ],
)
def test_a_signature_does_not_pass_for_anything_else(
    catalog: Catalog, database: Database, keyring: Keyring, admin, draft, changes, problem
) -> None:
    trusting(keyring)
    bundle = sign_manifest(THEM, draft().manifest("1.0.0", 1))
    with pytest.raises(SalverError, match=problem) as raised:
        catalog.add_version(admin, draft(**{"version": "1.0.0", "publisher_signature": bundle} | changes))
    assert raised.value.code == "REFUSED_BY_POLICY"
    assert catalog.models() == ()
    assert rows(database) == 0


def test_a_stranger_s_signature_and_what_is_none_are_refused(catalog: Catalog, admin, draft) -> None:
    bundle = sign_manifest(THEM, draft().manifest("1.0.0", 1))
    with pytest.raises(SalverError, match="not by a key that this home trusts"):
        catalog.add_version(admin, draft(publisher_signature=bundle))
    with pytest.raises(SalverError, match="cannot be read"):
        catalog.add_version(admin, draft(publisher_signature="{}"))
    assert catalog.models() == ()


def test_what_each_home_says_for_itself_may_differ_from_what_was_signed_elsewhere(keyring: Keyring, draft) -> None:
    keys = trusting(keyring)
    bundle = sign_manifest(THEM, draft(metadata={"a": "b"}, trusts_code=True).manifest("1.0.0", 7))
    assert verified_publisher(bundle, draft().manifest("1.0.0", 1), keys).key_id == THEM.key_id


def test_a_database_whose_manifest_was_edited_has_a_signature_that_does_not_fit(
    catalog: Catalog, database: Database, keyring: Keyring, admin, draft
) -> None:
    catalog.add_version(admin, draft())
    with database.begin() as connection:
        # Whoever edits the file itself is not stopped by triggers.
        connection.execute(text(f"DROP TRIGGER versions_no_update{' ON versions' if database.shared else ''}"))
        edited = draft(trusts_code=True).manifest("1.0.0", 1)
        connection.execute(update(versions).values(manifest=msgspec.json.encode(edited).decode()))
    with database.read() as connection:
        (manifest,) = attested(connection, [("digits", "1.0.0")])
    with pytest.raises(SalverError, match="was signed with another trusts_code"):
        require_manifest(manifest, keyring.trusted())
