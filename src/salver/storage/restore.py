"""A home from a backup: all of it checked, and only then a home.

A directory is a home by the file that marks it, which is written last. Until then it is marked by a
directory `.restoring`, whose content tells the next attempt that what is there may be removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from salver.protocol.errors import SalverError
from salver.storage.backup import FORMAT, Progress, read_blobs
from salver.storage.backup_archive import MANIFEST, BackupManifest, Member, open_archive
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.opening import open_blobs
from salver.storage.settings import FILE_NAME, read_storage_settings
from salver.storage.snapshot import full_disk_is_reported, sync_directory
from salver.storage.transfer import copy_rows, has_rows_of
from salver.storage.verification import verify_journal

__all__ = ["restore_backup"]

_STAGE: Final = ".restoring"
_LOCK: Final = "lock"
_CHUNK_BYTES: Final = 1 << 20


def restore_backup(
    file: Path, destination: Path, *, passphrase: bytes | None = None, on_progress: Progress | None = None
) -> BackupManifest:
    """Make the directory `destination` the home that `file` is a backup of; returns what is in it.

    The directory may be absent, empty, the remnant of a restore that died, or hold nothing but a `storage.toml`,
    which is heeded: so a home moves from SQLite to PostgreSQL and back, and from a directory to S3. Checks every
    digest, the database, its journal and that no version lacks a file; raises INVALID_ARTIFACT or CORRUPT_ARTIFACT
    when something is wrong, REFUSED_BY_POLICY for a directory with other content, ALREADY_EXISTS for a database
    on a server that is in use, STORAGE_FULL. Then the directory is as it was.
    """
    home = Home(destination.expanduser().absolute())
    with full_disk_is_reported(), _claimed(home) as stage:
        manifest = _unpack(file, home, stage, passphrase, on_progress)
        _check_database(home, stage, manifest)
        _put_in_place(home, stage)
        if not manifest.secrets:
            home.make_pepper()
        home.mark()
    return manifest


@contextlib.contextmanager
def _claimed(home: Home) -> Iterator[Path]:
    """The stage in a directory that is ours until the block ends; when it raises, all is as it was."""
    there = home.path.is_dir()
    stage = home.path / _STAGE
    _check_empty(home.path)
    stage.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(stage / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SalverError(
                "CONFLICT", f"another restore fills {home.path.name!r}", "wait for it, or name another directory"
            ) from None
        _check_empty(home.path)  # again: another restore may have ended before the lock was ours
        _clear(home.path)
        try:
            yield stage
        except BaseException:
            _clear(home.path)
            shutil.rmtree(stage)
            if not there:
                with contextlib.suppress(OSError):
                    home.path.rmdir()
            raise
        shutil.rmtree(stage)
        sync_directory(home.path)
    finally:
        os.close(descriptor)


def _check_empty(directory: Path) -> None:
    if not directory.exists():
        return
    content = {path.name for path in directory.iterdir()} if directory.is_dir() else {"file"}
    if Home.is_marked(directory) or (_STAGE not in content and content - {FILE_NAME, "lost+found"}):
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{directory.name!r} is not an empty directory, and a restore writes over nothing",
            f"name a new directory with --home; of what is there only {FILE_NAME} may stay",
        )


def _clear(directory: Path) -> None:
    """Remove what a restore has made."""
    for path in directory.iterdir():
        if path.name not in (_STAGE, FILE_NAME, "lost+found"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for path in (directory / _STAGE).iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _unpack(
    file: Path, home: Home, stage: Path, passphrase: bytes | None, on_progress: Progress | None
) -> BackupManifest:
    """Put blobs into the store of the new home and everything else onto the stage."""
    home.path.chmod(0o700)
    store = open_blobs(home)
    found: dict[str, Member] = {}
    manifest = None
    done, total = 0, file.stat().st_size if file.exists() else 0
    with open_archive(file, passphrase) as members:
        for name, source in members:
            if manifest is not None or name in found:
                raise _wrong(f"it has more than it should: {name}")
            if name == MANIFEST:
                manifest = _read_manifest(source.read())
                continue
            target = stage / name
            target.parent.mkdir(mode=0o700, exist_ok=True)
            found[name] = _write(name, source, target)
            if name.startswith("blobs/"):
                if store.put_file(target).sha256 != target.name:
                    raise _wrong(f"{name} holds other bytes than its name says")
                target.unlink()
            done += found[name].size_bytes
            if on_progress is not None:
                on_progress(min(done, total), total)  # what is compressed comes to less than what it holds
    if manifest is None:
        raise _wrong("its manifest is missing, so it was cut off")
    for member in manifest.members:
        if found.get(member.name) != member:
            raise _wrong(f"{member.name} is missing or was changed")
    if len(found) != len(manifest.members):
        raise _wrong("it holds files that its manifest does not name")
    return manifest


def _read_manifest(data: bytes) -> BackupManifest:
    try:
        manifest = msgspec.json.decode(data, type=BackupManifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _wrong("its manifest cannot be read") from error
    if manifest.format > FORMAT:
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"the backup has format {manifest.format}; this Salver knows {FORMAT}",
            f"use Salver {manifest.salver}",
        )
    return manifest


def _write(name: str, source: BinaryIO, target: Path) -> Member:
    digest, size_bytes = hashlib.sha256(), 0
    with target.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
            size_bytes += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return Member(name, size_bytes, digest.hexdigest())


def _check_database(home: Home, stage: Path, manifest: BackupManifest) -> None:
    """Bring the database to this Salver's schema, look that all in it is sound, and fill a server with it."""
    place = stage / "salver.db"
    if not place.exists():
        raise _wrong("it has no database")
    _check_file(place)
    store = open_blobs(home)
    database = Database.open(place)
    try:
        with database.read() as connection:
            check = verify_journal(connection)
            if not check.ok:
                raise SalverError(
                    "CORRUPT_ARTIFACT",
                    f"the journal in the backup is not whole at record {check.bad_seq}: {check.reason}",
                    "use a backup from before it was changed",
                )
            if check.records != manifest.records:
                raise _wrong(f"its journal has {check.records} records and should have {manifest.records}")
            _, blobs = read_blobs(connection)
        missing = [sha256 for sha256 in blobs if store.size_bytes(sha256) is None]
        if missing:
            raise _wrong(f"{len(missing)} blobs of its versions are missing, the first is {missing[0]}")
        url = read_storage_settings(home.path).database
        if url:
            _fill_server(database, url)
    finally:
        database.close()


def _check_file(place: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(place)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            dangling = connection.execute("PRAGMA foreign_key_check").fetchone()
    except sqlite3.DatabaseError as error:
        raise _wrong("its database cannot be read") from error
    if verdict != "ok" or dangling is not None:
        raise _wrong("its database is damaged")


def _fill_server(database: Database, url: str) -> None:
    server = Database.open(url)
    try:
        with database.read() as source, server.begin() as target:
            if not has_rows_of(source, target):  # a restore that died after this step has done it
                copy_rows(source, target)
    finally:
        server.close()


def _put_in_place(home: Home, stage: Path) -> None:
    """Move everything from the stage to where a home has it, durably."""
    if read_storage_settings(home.path).database:
        (stage / "salver.db").unlink()
    for path in sorted(stage.iterdir()):
        if path.name == _LOCK or path.name.startswith("salver.db-") or path.name.startswith("salver.db."):
            continue  # and what opening or upgrading the database has left
        if path.name == "blobs":
            path.rmdir()
            continue
        if path.is_dir():
            sync_directory(path)
        path.rename(home.path / path.name)
    sync_directory(home.path)


def _wrong(why: str) -> SalverError:
    return SalverError(
        "INVALID_ARTIFACT", f"the file is no sound backup: {why}", "use another backup; this one restores nothing"
    )
