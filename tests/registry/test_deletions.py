"""Versions whose files are given up: what that takes, what goes, and what stays."""

from __future__ import annotations

import hashlib
import threading

import pytest
from tests.registry.promoting import person

from salver.control.actions.descriptions import (
    MOVE_ALIAS,
    REMOVE_ALIAS,
    SHOW_VERSION,
    AliasMove,
    AliasRemoval,
)
from salver.control.actions.lifecycle import PROMOTE
from salver.control.actions.models import OfVersion
from salver.control.actions.registration import REGISTER
from salver.control.administration import LocalAdministration
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.stages import Stage
from salver.protocol.tables import DeploymentSpec, FileEntry
from salver.registry.collection import CollectionRequest, collect
from salver.registry.draft import VersionDraft
from salver.registry.lifecycle import PromotionRequest
from salver.storage.backup import read_blobs
from salver.storage.blobs import BlobStore
from salver.testing import ManualClock

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 2)),))


class House:
    """A home with one version of the model `m`, and what can be done to it."""

    def __init__(self, home, database) -> None:
        self.home, self.database, self.clock = home, database, ManualClock()
        self.root = person("root")
        self.admin = LocalAdministration(home, database, self.root, self.clock)
        self.blobs = BlobStore(home.blobs_path)

    def register(self, *contents: bytes, version: str | None = None):
        source = self.home.path / f"source-{threading.get_ident()}"
        files = []
        for number, content in enumerate(contents):
            source.write_bytes(content)
            blob = self.blobs.put_file(source)
            files.append(FileEntry(f"{number}.onnx", blob.sha256, blob.size_bytes))
        return self.admin.do(REGISTER, VersionDraft("m", "onnx", tuple(files), SIGNATURE, version))

    def promote(self, version: str, stage: str) -> None:
        self.admin.do(PROMOTE, PromotionRequest("m", version, Stage(stage)))

    def delete(self, version: str, why: str = "too large", by=None):
        return self.admin.records.deletions.delete(by or self.root, "m", version, why)

    def collect(self):
        return collect(self.home, self.database, self.root, self.clock, CollectionRequest())

    def has(self, content: bytes) -> bool:
        return self.blobs.size_bytes(hashlib.sha256(content).hexdigest()) is not None

    def refusal(self, what, *given, **more) -> str:
        with pytest.raises(SalverError) as raised:
            what(*given, **more)
        return raised.value.code


@pytest.fixture
def house(home, database) -> House:
    made = House(home, database)
    made.register(b"one", b"shared")
    made.register(b"two", b"shared")
    made.promote("1.0.0", "archived")
    return made


def test_the_bytes_go_at_a_collection_an_hour_later_and_everything_else_stays(house: House) -> None:
    before = house.admin.do(SHOW_VERSION, OfVersion("m", "1.0.0"))
    house.clock.advance(house.home.blobs_path.stat().st_mtime + 86_400.0 - house.clock.wall_s())
    deleted = house.delete("1.0.0")
    assert house.collect().blobs == 0
    house.clock.advance(3601.0)
    assert house.collect().blobs == 1
    assert [house.has(each) for each in (b"one", b"shared", b"two")] == [False, True, True]
    page = house.admin.do(SHOW_VERSION, OfVersion("m", "1.0.0"))
    assert page.manifest == before.manifest
    assert (page.stage, page.deleted) == ("archived", "too large")
    (record,) = [each for each in house.admin.records.journal.records(100) if each.action == "delete"]
    assert (record.subject, record.actor, record.details["why"]) == ("m@1.0.0", "root", "too large")
    assert house.admin.records.lineage.of("m", "1.0.0").root == "version:m@1.0.0"
    assert house.delete("1.0.0", "again") == deleted, "once is enough"


def test_a_deleted_version_is_neither_deployed_nor_read_nor_brought_back(house: House) -> None:
    house.delete("1.0.0")
    records = house.admin.records
    assert (
        house.refusal(records.deployments.deploy, house.root, DeploymentSpec("e", "m", "1.0.0")) == "REFUSED_BY_POLICY"
    )
    assert house.refusal(records.pages.attestation, "m", "1.0.0") == "REFUSED_BY_POLICY"
    assert house.refusal(house.promote, "1.0.0", "staging") == "REFUSED_BY_POLICY"


def test_its_number_is_never_given_again_and_its_bytes_may_come_back_under_another(house: House) -> None:
    house.promote("1.0.1", "archived")
    house.delete("1.0.1")
    assert house.refusal(house.register, b"two", b"shared", version="1.0.1") == "ALREADY_EXISTS"
    assert house.register(b"two", b"shared").manifest.version == "1.0.2"


def test_a_backup_has_what_was_not_deleted(house: House) -> None:
    house.delete("1.0.0")
    with house.database.read() as connection:
        count, blobs = read_blobs(connection)
    assert count == 2
    assert blobs.keys() == {hashlib.sha256(each).hexdigest() for each in (b"two", b"shared")}


def test_what_is_used_or_held_is_not_deleted(house: House) -> None:
    assert house.refusal(house.delete, "1.0.1") == "CONFLICT", "it is in development"
    house.admin.records.holds.hold(house.root, "m", "1.0.0", "case 7")
    assert house.refusal(house.delete, "1.0.0") == "REFUSED_BY_POLICY"
    house.admin.records.holds.release(house.root, "m", "1.0.0")
    house.admin.do(MOVE_ALIAS, AliasMove("m", "champion", "1.0.0"))
    assert house.refusal(house.delete, "1.0.0") == "CONFLICT"
    house.admin.do(REMOVE_ALIAS, AliasRemoval("m", "champion"))
    assert house.delete("1.0.0").reference == "m@1.0.0"


def test_deleting_takes_an_administrator_and_a_reason(house: House) -> None:
    assert house.refusal(house.delete, "1.0.0", by=person("olga", "operator")) == "PERMISSION_DENIED"
    assert house.refusal(house.delete, "1.0.0", " ") == "INVALID_PARAMETER"
    assert house.refusal(house.delete, "3.0.0") == "NOT_FOUND"
