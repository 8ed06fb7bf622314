from __future__ import annotations

import io
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.storage.house import House, house, state_of

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.storage.backup import make_backup
from salver.storage.backup_archive import BackupManifest
from salver.storage.database import open_database
from salver.storage.home import Home
from salver.storage.job_file import open_jobs
from salver.storage.journal import Journal
from salver.storage.restore import restore_backup

__all__ = ["house"]

PASSPHRASE = b"correct horse battery"


def rewritten(backup: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> Path:
    """The same archive with members changed or left out."""
    other = backup.with_name("rewritten.tar")
    with tarfile.open(backup) as source, tarfile.open(other, "w") as target:
        for member in source:
            changed = change(member.name, source.extractfile(member).read())
            if changed is not None:
                info = tarfile.TarInfo(changed[0])
                info.size = len(changed[1])
                target.addfile(info, io.BytesIO(changed[1]))
    return other


def refused(backup: Path, destination: Path, code: str = "INVALID_ARTIFACT", **options: Any) -> SalverError:
    with pytest.raises(SalverError) as raised:
        restore_backup(backup, destination, **options)
    assert raised.value.code == code, raised.value
    assert raised.value.remedy
    return raised.value


@pytest.mark.parametrize("name", ["all.tar", "all.tar.gz", "all.tgz"])
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_all_of_a_home_comes_back(house: House, tmp_path: Path, name: str, passphrase: bytes | None) -> None:
    open_jobs(house.home.jobs_path).close()
    shown: list[tuple[int, int]] = []
    backup = tmp_path / name
    options: dict[str, Any] = {"passphrase": passphrase, "on_progress": lambda *both: shown.append(both)}
    made = make_backup(house.home, backup, SYSTEM_CLOCK, **options)
    assert (made.versions, made.records, made.secrets) == (4, house.journal.head()[0], True)
    assert shown[-1][0] == shown[-1][1] > 0
    assert backup.stat().st_mode & 0o077 == 0
    assert restore_backup(backup, tmp_path / "new", passphrase=passphrase) == made
    assert state_of(tmp_path / "new") == house.state()
    assert (tmp_path / "new" / "jobs.db").exists()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert {p.name for p in tmp_path.iterdir()} == {"home", "new", name}


def test_bytes_that_two_versions_share_are_in_it_once(house: House, tmp_path: Path) -> None:
    made = make_backup(house.home, tmp_path / "all.tar", SYSTEM_CLOCK)
    assert sum(member.name.startswith("blobs/") for member in made.members) == 3


def test_an_encrypted_backup_shows_nothing_and_needs_its_passphrase(house: House, tmp_path: Path) -> None:
    backup = tmp_path / "all.tar"
    make_backup(house.home, backup, SYSTEM_CLOCK, passphrase=PASSPHRASE)
    data = backup.read_bytes()
    assert b"digits" not in data
    assert b"weights" not in data
    assert "encrypted" in refused(backup, tmp_path / "new", "INVALID_SETTING").message
    refused(backup, tmp_path / "new", passphrase=b"wrong")
    for cut in (10, 40, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.tar").write_bytes(data[:cut])
        refused(tmp_path / "cut.tar", tmp_path / "new", passphrase=PASSPHRASE)
    assert not (tmp_path / "new").exists()


def test_without_secrets_none_is_in_it_and_new_ones_are_made(house: House, tmp_path: Path) -> None:
    made = make_backup(house.home, tmp_path / "all.tar", SYSTEM_CLOCK, secrets=False)
    assert not any(m.name.startswith("secrets/") or m.name == "admin.token" for m in made.members)
    assert house.home.pepper() not in (tmp_path / "all.tar").read_bytes()
    restore_backup(tmp_path / "all.tar", tmp_path / "new")
    found, there = state_of(tmp_path / "new"), house.state()
    assert found["versions"] == there["versions"]
    assert found["pepper"] != there["pepper"]
    assert found["admin"] != there["admin"]


def test_a_home_that_encrypts_its_artifacts_gives_them_out_only_when_that_is_said(house: House, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(os.urandom(32).hex())
    (tmp_path / "key").chmod(0o600)
    (house.home.path / "storage.toml").write_text(f'encryption_key = "file:{tmp_path / "key"}"')
    house.register("secret", b"secret weights" * 1000)
    with pytest.raises(SalverError, match="keeps its artifacts encrypted") as raised:
        make_backup(house.home, tmp_path / "all.tar", SYSTEM_CLOCK)
    assert raised.value.code == "REFUSED_BY_POLICY"
    make_backup(house.home, tmp_path / "all.tar", SYSTEM_CLOCK, passphrase=PASSPHRASE)
    (tmp_path / "new").mkdir()
    shutil.copy(house.home.path / "storage.toml", tmp_path / "new")
    restore_backup(tmp_path / "all.tar", tmp_path / "new", passphrase=PASSPHRASE)
    assert state_of(tmp_path / "new") == house.state()
    kept = [p.read_bytes() for p in (tmp_path / "new" / "blobs").iterdir() if p.is_file()]
    assert not any(b"weights" in data for data in kept)
    make_backup(house.home, tmp_path / "plain.tar", SYSTEM_CLOCK, plain=True)


# What is wrong is found before there is a home.


def test_any_changed_byte_is_found(house: House, tmp_path: Path) -> None:
    backup = tmp_path / "all.tar"
    made = make_backup(house.home, backup, SYSTEM_CLOCK)
    for member in made.members:

        def flip(name: str, data: bytes, wanted: str = member.name) -> tuple[str, bytes]:
            middle = len(data) // 2
            changed = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if name == wanted else data
            return name, changed

        refused(rewritten(backup, flip), tmp_path / "new")
        refused(
            rewritten(backup, lambda name, data, gone=member.name: None if name == gone else (name, data)),
            tmp_path / "new",
        )
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda name, data: None if name == "manifest.json" else (name, data),
        lambda name, data: (name, b"{}") if name == "manifest.json" else (name, data),
        lambda name, data: ("../outside" if name == "tables.json" else name, data),
        lambda name, data: ("/outside" if name == "tables.json" else name, data),
        lambda name, data: ("secrets/../../outside" if name == "tables.json" else name, data),
        lambda name, data: ("lock" if name == "tables.json" else name, data),
    ],
)
def test_what_is_no_backup_makes_no_home(house: House, tmp_path: Path, change) -> None:
    backup = tmp_path / "all.tar"
    make_backup(house.home, backup, SYSTEM_CLOCK)
    refused(rewritten(backup, change), tmp_path / "deep" / "new")
    assert not (tmp_path / "deep" / "new").exists()
    assert not list(tmp_path.rglob("outside"))


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 1000, b"\x1f\x8bno gzip", b"salver backup 1\n"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "all.tar").write_bytes(content)
    refused(tmp_path / "all.tar", tmp_path / "new", passphrase=PASSPHRASE)
    assert not (tmp_path / "new").exists()
    refused(tmp_path / "none.tar", tmp_path / "new", "NOT_FOUND")


def test_a_cut_off_archive_is_refused_wherever_it_was_cut(house: House, tmp_path: Path) -> None:
    for name in ("all.tar", "all.tar.gz"):
        make_backup(house.home, tmp_path / name, SYSTEM_CLOCK)
        data = (tmp_path / name).read_bytes()
        for cut in range(0, len(data) - 2048, len(data) // 7):
            (tmp_path / "cut.tar").write_bytes(data[:cut])
            refused(tmp_path / "cut.tar", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_journal_that_was_rewritten_is_not_restored(house: House, tmp_path: Path) -> None:
    house.database.close()
    with sqlite3.connect(house.home.database_path) as connection:
        connection.executescript("DROP TRIGGER journal_no_update; UPDATE journal SET record = '{}' WHERE seq = 3;")
    connection.close()
    make_backup(house.home, tmp_path / "all.tar", SYSTEM_CLOCK)
    error = refused(tmp_path / "all.tar", tmp_path / "new", "CORRUPT_ARTIFACT")
    assert "not whole at record 3" in error.message


def test_a_damaged_blob_is_named_and_there_is_no_backup(house: House, tmp_path: Path) -> None:
    blob = next(p for p in house.home.blobs_path.iterdir() if len(p.name) == 64)
    blob.chmod(0o644)
    blob.write_bytes(b"rot")
    with pytest.raises(SalverError, match=blob.name) as raised:
        make_backup(house.home, tmp_path / "all.tar", SYSTEM_CLOCK)
    assert raised.value.code == "CORRUPT_ARTIFACT"
    assert {p.name for p in tmp_path.iterdir()} == {"home"}


def test_a_restore_writes_over_nothing(house: House, tmp_path: Path) -> None:
    backup = tmp_path / "all.tar"
    make_backup(house.home, backup, SYSTEM_CLOCK)
    before = house.state()
    refused(backup, house.home.path, "REFUSED_BY_POLICY")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").write_text("precious")
    refused(backup, tmp_path / "used", "REFUSED_BY_POLICY")
    refused(backup, backup, "REFUSED_BY_POLICY")
    assert (tmp_path / "used" / "mine").read_text() == "precious"
    assert house.state() == before
    with pytest.raises(SalverError, match="there is a file"):
        make_backup(house.home, backup, SYSTEM_CLOCK)
    for wrong in ("all.zip", "all", "nowhere/all.tar"):
        with pytest.raises(SalverError):
            make_backup(house.home, tmp_path / wrong, SYSTEM_CLOCK)


# From one database to the other.


def test_a_home_moves_to_postgresql_and_back(house: House, tmp_path: Path, postgres_url: str, monkeypatch) -> None:
    monkeypatch.delenv("SALVER_STORAGE_DATABASE", raising=False)
    there = house.state()
    make_backup(house.home, tmp_path / "one.tar", SYSTEM_CLOCK)
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "storage.toml").write_text(f'database = "{postgres_url}"')
    restore_backup(tmp_path / "one.tar", moved)
    assert not (moved / "salver.db").exists()
    assert state_of(moved) == there
    again = House(moved)
    again.deploy(again.register("digits", b"later weights" * 100))
    there = again.state()
    make_backup(again.home, tmp_path / "two.tar.gz", SYSTEM_CLOCK)
    again.close()
    restore_backup(tmp_path / "two.tar.gz", tmp_path / "back")
    assert (tmp_path / "back" / "salver.db").exists()
    assert state_of(tmp_path / "back") == there
    # A database that is in use is not filled.
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(moved / "storage.toml", other)
    refused(tmp_path / "one.tar", other, "ALREADY_EXISTS")
    assert [p.name for p in other.iterdir()] == ["storage.toml"]


def test_a_backup_that_an_older_salver_made_is_brought_up_to_date(tmp_path: Path, house: House) -> None:
    make_backup(house.home, tmp_path / "all.tar", SYSTEM_CLOCK)
    old = tmp_path / "old.db"
    connection = sqlite3.connect(old)
    connection.executescript((Path(__file__).parent / "old_homes" / "schema_3.sql").read_text(encoding="utf-8"))
    connection.executescript("DROP TRIGGER versions_no_delete; DELETE FROM deployments; DELETE FROM versions;")
    connection.executescript(
        "CREATE TRIGGER versions_no_delete BEFORE DELETE ON versions "
        "BEGIN SELECT RAISE(ABORT, 'rows of versions are written once'); END;"
    )
    connection.close()
    import hashlib

    data = old.read_bytes()

    def age(name: str, content: bytes) -> tuple[str, bytes] | None:
        if name == "salver.db":
            return name, data
        if name != "manifest.json":
            return name, content
        manifest = msgspec.json.decode(content, type=BackupManifest)
        members = tuple(
            msgspec.structs.replace(m, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            if m.name == "salver.db"
            else m
            for m in manifest.members
        )
        return name, msgspec.json.encode(msgspec.structs.replace(manifest, members=members, records=34, schema="0001"))

    restore_backup(rewritten(tmp_path / "all.tar", age), tmp_path / "new")
    database = open_database(Home.open(tmp_path / "new"))
    assert Journal(database, SYSTEM_CLOCK).verify().records == 34
    database.close()
    assert not list((tmp_path / "new").glob("salver.db.before*"))
