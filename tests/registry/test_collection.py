"""Garbage collection against registrations: whatever the order, nothing acknowledged is lost."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from salver.control.action import Nothing
from salver.control.actions.models import MODELS, VERSIONS, OfVersions
from salver.control.actions.registration import REGISTER
from salver.control.administration import LocalAdministration
from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import FileEntry, Tables
from salver.registry.catalog import Catalog
from salver.registry.collection import CollectionRequest, collect
from salver.registry.draft import VersionDraft
from salver.registry.references import referenced_digests, references_of_digests
from salver.security.access import Principal
from salver.storage.blobs import BlobStore
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.journal import Journal, JournalQuery
from salver.storage.publication import publish
from salver.storage.snapshot import write_atomically
from salver.testing import ManualClock

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 2)),))
HOUR_S = 3600.0


class House:
    """A home, and a clock that says when its files were made."""

    def __init__(self, home: Home, database: Database, admin: Principal) -> None:
        self.home, self.database, self.principal = home, database, admin
        self.blobs = BlobStore(home.blobs_path)
        self.clock = ManualClock()
        self.admin = LocalAdministration(home, database, admin, self.clock)

    def store(self, data: bytes, *, age_s: float = 0.0) -> FileEntry:
        source = self.home.path / f"source-{threading.get_ident()}"
        source.write_bytes(data)
        blob = self.blobs.put_file(source)
        stored_s = self.clock.wall_s() - age_s
        os.utime(self.home.blobs_path / blob.sha256, (stored_s, stored_s))
        return FileEntry("model.onnx", blob.sha256, blob.size_bytes)

    def draft(self, *files: FileEntry, **fields: str) -> VersionDraft:
        return VersionDraft(model="m", format="onnx", files=files, signature=SIGNATURE, **fields)

    def collect(self, **asked: object):
        request = CollectionRequest(**asked)
        return collect(self.home, self.database, self.principal, self.clock, request)


@pytest.fixture
def house(home: Home, database: Database, admin: Principal) -> House:
    return House(home, database, admin)


def test_every_file_of_every_version_is_referenced(house: House) -> None:
    one, both = house.store(b"one"), FileEntry("both.bin", house.store(b"both").sha256, 4)
    house.admin.do(REGISTER, house.draft(one, both))
    house.admin.do(REGISTER, house.draft(house.store(b"two"), both))
    with house.database.read() as connection:
        found = references_of_digests(connection)
        assert found[both.sha256] == ("m@1.0.0", "m@1.0.1")
        assert found[one.sha256] == ("m@1.0.0",)
        assert referenced_digests(connection, 0.0) == {
            hashlib.sha256(data).hexdigest() for data in (b"one", b"two", b"both")
        }


def test_what_no_version_has_goes_after_its_hour_and_is_recorded(house: House, journal: Journal) -> None:
    kept = house.store(b"kept", age_s=2 * HOUR_S)
    house.admin.do(REGISTER, house.draft(kept))
    old, young = house.store(b"old", age_s=HOUR_S + 1), house.store(b"young", age_s=HOUR_S - 1)
    planned = house.collect(dry_run=True)
    assert (planned.blobs, planned.size_bytes, planned.digests) == (1, 3, (old.sha256,))
    assert house.blobs.size_bytes(old.sha256) == 3, "nothing went yet"
    assert house.collect().digests == (old.sha256,)
    assert [house.blobs.size_bytes(each.sha256) for each in (kept, old, young)] == [4, None, 5]
    (record,) = journal.find(JournalQuery(action="collect"))
    assert (record.actor, record.details["bytes"], record.details["digests"]) == ("a-admin", 3, [old.sha256])
    assert house.collect().blobs == 0


def test_a_clock_that_went_back_makes_nothing_old(house: House) -> None:
    house.store(b"from the future", age_s=-10 * HOUR_S)
    assert house.collect().blobs == 0


def test_what_is_deployed_stays_even_if_the_database_does_not_know_it(house: House) -> None:
    deployed = house.store(b"deployed", age_s=10 * HOUR_S)
    publish(house.home, Tables(10_000, (house.draft(deployed).manifest("1.0.0", 1),)))
    assert house.collect().blobs == 0
    write_atomically(house.home.tables_path, b"damaged")
    with pytest.raises(SalverError) as raised:
        house.collect()
    assert raised.value.code == "CORRUPT_ARTIFACT"
    house.home.tables_path.unlink()
    assert house.collect().blobs == 1


def test_a_registration_that_took_too_long_is_refused_and_not_half_done(house: House) -> None:
    slow = house.store(b"slow", age_s=HOUR_S + 1)
    assert house.collect().digests == (slow.sha256,)
    with pytest.raises(SalverError, match="not in the store"):
        house.admin.do(REGISTER, house.draft(slow))
    assert house.admin.do(REGISTER, house.draft(house.store(b"slow"))).created


def test_files_that_go_between_the_look_and_the_row_are_noticed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = house.store(b"slow", age_s=HOUR_S + 1)
    add_version: Callable[..., object] = Catalog.add_version

    def collected_just_before(self: Catalog, *given: object, **named: object) -> object:
        assert house.collect().blobs == 1
        return add_version(self, *given, **named)

    monkeypatch.setattr(Catalog, "add_version", collected_just_before)
    with pytest.raises(SalverError, match="not in the store"):
        house.admin.do(REGISTER, house.draft(slow))
    assert house.admin.do(MODELS, Nothing()) == ()


def test_a_version_registered_while_collecting_keeps_its_files(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = house.store(b"slow", age_s=HOUR_S + 1)
    read = referenced_digests

    def registered_just_after(connection: object, deleted_until_s: float) -> frozenset[str]:
        found = read(connection, deleted_until_s)  # type: ignore[arg-type]
        if not house.admin.do(MODELS, Nothing()):
            thread = threading.Thread(target=house.admin.do, args=(REGISTER, house.draft(slow)))
            thread.start()
            thread.join()
        return found

    monkeypatch.setattr("salver.registry.collection.referenced_digests", registered_just_after)
    assert house.collect().blobs == 0
    house.blobs.verify(slow.sha256)


def test_registering_and_collecting_all_the_time_loses_nothing(house: House) -> None:
    done, failures = threading.Event(), list[BaseException]()

    def collecting() -> None:
        try:
            while not done.is_set():
                house.collect(grace_s=0)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=collecting)
    thread.start()
    registered = 0
    try:
        for n in range(25):
            file = house.store(f"content {n}".encode(), age_s=10)
            try:
                house.admin.do(REGISTER, house.draft(file))
                registered += 1
            except SalverError as error:
                assert error.code == "NOT_FOUND", "it was collected first, and that was told"
    finally:
        done.set()
        thread.join()
    assert failures == []
    manifests = house.admin.do(VERSIONS, OfVersions(model="m")) if registered else ()
    assert len(manifests) == registered
    for manifest in manifests:
        house.blobs.verify(manifest.files[0].sha256)


def test_only_who_operates_collects(house: House, principal: Callable[[str], Principal]) -> None:
    with pytest.raises(SalverError) as raised:
        collect(house.home, house.database, principal("developer"), house.clock)
    assert raised.value.code == "PERMISSION_DENIED"


def test_what_killed_writers_left_goes_too(house: House) -> None:
    incoming = Path(house.home.blobs_path / "incoming")
    incoming.mkdir(exist_ok=True)
    (incoming / "left").write_bytes(b"half")
    assert house.collect().unfinished == 1
    assert list(incoming.iterdir()) == []
