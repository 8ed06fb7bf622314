from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.homes import SteppingClock
from tests.signing import KEY

from salver.control.action import Nothing
from salver.control.actions.attestation import ATTESTATION
from salver.control.actions.deployments import DEPLOY
from salver.control.actions.models import OfVersion
from salver.control.actions.registration import REGISTER
from salver.control.actions.status import STATUS
from salver.control.administration import LocalAdministration
from salver.control.seed import write_seed
from salver.protocol.errors import SalverError
from salver.protocol.tables import FileEntry, Tables
from salver.registry.deploy_request import DeployRequest
from salver.registry.draft import VersionDraft
from salver.registry.keyring import Keyring
from salver.security.access import local_principal
from salver.security.model_signing import require_manifest
from salver.storage.blobs import BlobStore
from salver.storage.database import open_database
from salver.storage.home import Home
from salver.storage.publication import read_tables
from salver.storage.snapshot import write_json
from salver.testing import SIGNATURE, make_manifest


@pytest.fixture
def begun(tmp_path: Path):
    """Begins the administration of a home, as a start does; closes what was opened."""
    opened = []

    def begin(home: Home) -> LocalAdministration:
        database = open_database(home)
        opened.append(database)
        admin = LocalAdministration(home, database, local_principal(), SteppingClock())
        admin.begin()
        return admin

    yield begin
    for database in opened:
        database.close()


@pytest.fixture
def source(tmp_path: Path, begun) -> tuple[Home, LocalAdministration]:
    """A home that serves one version, registered second."""
    home = Home.open(tmp_path / "source")
    admin = begun(home)
    (tmp_path / "model.onnx").write_bytes(b"weights")
    blob = BlobStore(home.blobs_path).put_file(tmp_path / "model.onnx")
    files = (FileEntry("model.onnx", blob.sha256, blob.size_bytes),)
    admin.do(REGISTER, VersionDraft("digits", "onnx", files, SIGNATURE, version="1.0.0"))
    admin.do(REGISTER, VersionDraft("digits", "onnx", files, SIGNATURE, version="1.1.0", metadata={"owner": "ann"}))
    admin.do(DEPLOY, DeployRequest("digits", "1.1.0"))
    return home, admin


def seed(source: tuple[Home, LocalAdministration], destination: Path) -> Home:
    home, admin = source
    manifest = admin.do(ATTESTATION, OfVersion("digits")).manifest
    (spec,) = admin.do(STATUS, Nothing()).deployments
    destination.mkdir()
    write_seed(destination, home, spec, manifest)
    return Home(destination)


def test_a_seed_carries_the_signature_and_the_public_key_and_nothing_secret(source, tmp_path: Path) -> None:
    made = seed(source, tmp_path / "seed")
    theirs = Keyring(source[0]).signing()
    names = sorted(path.relative_to(made.path).as_posix() for path in made.path.rglob("*") if path.is_file())
    assert [name for name in names if not name.startswith("blobs/")] == [
        "salver-home.json",
        "tables.json",
        f"trust/{theirs.key_id}.pub",
    ]
    tables = read_tables(made)
    assert tables is not None
    assert require_manifest(tables.versions[0], Keyring(made).trusted()).key_id == theirs.key_id


def test_a_seeded_home_signs_for_itself_what_the_first_one_vouches_for(source, tmp_path: Path, begun) -> None:
    made = Home.open(seed(source, tmp_path / "seed").path)
    admin = begun(made)
    theirs, ours = Keyring(source[0]).signing().key_id, Keyring(made).signing().key_id
    tables = read_tables(made)
    assert tables is not None
    signed = require_manifest(tables.versions[0], Keyring(made).trusted())
    assert (signed.key_id, signed.subject) == (ours, "digits@1.1.0")
    assert signed.claim is not None
    assert signed.claim.publisher is not None
    assert signed.claim.publisher.key_id == theirs
    assert theirs != ours
    Keyring(made).distrust(theirs)
    with pytest.raises(SalverError, match="does not trust any more"):
        require_manifest(tables.versions[0], Keyring(made).trusted())
    assert [spec.version for spec in admin.do(STATUS, Nothing()).deployments] == ["1.1.0"]


@pytest.mark.parametrize(
    "changes", [{"trusts_code": True}, {"metadata": {}}, {"version": "1.2.0"}, {"attestation": ""}], ids=str
)
def test_a_seed_that_was_edited_is_not_adopted(source, tmp_path: Path, begun, changes) -> None:
    made = Home.open(seed(source, tmp_path / "seed").path)
    tables = read_tables(made)
    assert tables is not None
    edited = msgspec.structs.replace(tables.versions[0], **changes)
    spec = msgspec.structs.replace(tables.deployments[0], version=edited.version)
    write_json(made.tables_path, Tables(1, (edited,), (spec,)))
    with pytest.raises(SalverError) as raised:
        begun(made)
    assert raised.value.code == "REFUSED_BY_POLICY"


def test_a_seed_from_before_there_were_signatures_is_adopted_and_signed(source, tmp_path: Path, begun) -> None:
    made = seed(source, tmp_path / "seed")
    tables = read_tables(made)
    assert tables is not None
    unsigned = msgspec.structs.replace(tables.versions[0], attestation="")
    write_json(made.tables_path, Tables(1, (unsigned,), tables.deployments))
    (key,) = made.trust_path.iterdir()
    key.unlink()
    made = Home.open(made.path)
    begun(made)
    adopted = read_tables(made)
    assert adopted is not None
    assert require_manifest(adopted.versions[0], Keyring(made).trusted()).subject == "digits@1.1.0"


def test_no_seed_is_made_of_what_is_not_signed(source, tmp_path: Path) -> None:
    (spec,) = source[1].do(STATUS, Nothing()).deployments
    (tmp_path / "seed").mkdir()
    for manifest in (make_manifest(), make_manifest(attestation=KEY.public.pem.decode())):
        with pytest.raises(SalverError):
            write_seed(tmp_path / "seed", source[0], spec, manifest)
    assert list((tmp_path / "seed").iterdir()) == []
