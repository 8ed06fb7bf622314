"""A backup of a home that may be in use: one file that holds all of it, of one moment.

The order makes it sound. First what the database must not fall behind (the published tables, the
kept tree heads); then one snapshot of the database; then secrets and jobs; then the blobs that the
versions in that snapshot are made of, which exist before a version is registered and which the
garbage collection leaves alone as long as there is one. Nothing is locked, and nobody waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection, select

from salver import __version__
from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.tables import FileEntry
from salver.storage.backup_archive import ArchiveWriter, BackupManifest, check_name, write_archive
from salver.storage.database import Database, open_database
from salver.storage.home import Home
from salver.storage.opening import open_blobs
from salver.storage.registry_schema import deletions
from salver.storage.schema import SCHEMA_REVISION, journal_head, versions
from salver.storage.settings import read_storage_settings
from salver.storage.snapshot import TEMPORARY_SUFFIX, full_disk_is_reported, sync_directory
from salver.storage.sqlite import copy_database
from salver.storage.transfer import copy_rows

__all__ = ["ENDINGS", "FORMAT", "Progress", "make_backup", "read_blobs"]

FORMAT: Final = 1
ENDINGS: Final = (".tar", ".tar.gz", ".tgz")
_WORKPLACE: Final = ".salver-backup."
_LOCK: Final = "lock"

Progress = Callable[[int, int], None]
"""Told how many bytes are done, of how many."""


class _Stored(msgspec.Struct, frozen=True):
    """What of a version's manifest is looked at here."""

    files: tuple[FileEntry, ...]


def make_backup(
    home: Home,
    file: Path,
    clock: Clock,
    *,
    secrets: bool = True,
    passphrase: bytes | None = None,
    plain: bool = False,
    on_progress: Progress | None = None,
) -> BackupManifest:
    """Write a backup of `home` to the new file `file` (mode 0600) and return what is in it.

    Everything that was acknowledged before the call is in it. Durable on return; until then there is no `file`,
    also after a death at any point. With `passphrase` all of it is encrypted; a home that keeps its
    artifacts encrypted refuses to give them out otherwise, unless that is asked for as `plain`. Raises
    ALREADY_EXISTS, STORAGE_FULL, CORRUPT_ARTIFACT for a blob that is not what its name says, and what
    opening the database raises.
    """
    _check(home, file, passphrase, plain=plain)
    with full_disk_is_reported(), _workplace(file.parent) as work:
        finished = work / "backup"
        with finished.open("xb") as target:
            os.fchmod(target.fileno(), 0o600)
            with write_archive(target, file.name, clock.wall_s(), passphrase) as archive:
                manifest = _fill(archive, home, work, clock, secrets=secrets, on_progress=on_progress)
            target.flush()
            os.fsync(target.fileno())
        try:
            file.hardlink_to(finished)
        except FileExistsError:
            raise _exists(file) from None
        sync_directory(file.parent)
    return manifest


def _check(home: Home, file: Path, passphrase: bytes | None, *, plain: bool) -> None:
    if not file.name.endswith(ENDINGS):
        raise SalverError(
            "INVALID_SETTING", f"a backup cannot be named {file.name!r}", f"let the name end in {', '.join(ENDINGS)}"
        )
    if file.exists():
        raise _exists(file)
    if not file.parent.is_dir():
        raise SalverError("NOT_FOUND", f"there is no directory for {file.name!r}", "make it first")
    if passphrase is None and not plain and read_storage_settings(home.path).encryption_key:
        raise SalverError(
            "REFUSED_BY_POLICY",
            "the home keeps its artifacts encrypted, and the backup would hold them as they are",
            "give --passphrase-file FILE to encrypt the backup, or --plain if it is kept safe otherwise",
        )


def _fill(
    archive: ArchiveWriter, home: Home, work: Path, clock: Clock, *, secrets: bool, on_progress: Progress | None
) -> BackupManifest:
    made_s = clock.wall_s()
    _add_files(archive, home.path, ("tables.json", "audit/heads.jsonl", "audit/*.pub"))
    copy = work / "salver.db"
    _copy_database(home, copy)
    database = Database.open(copy)
    try:
        with database.read() as connection:
            records, last_hash = connection.execute(select(journal_head.c.seq, journal_head.c.hash)).one()
            count, blobs = read_blobs(connection)
    finally:
        database.close()
    _as_one_file(copy)
    archive.add_file("salver.db", copy)
    _add_files(archive, home.path, ("isolated.json", "trust/*", "usage/*"))
    if secrets:
        _add_files(archive, home.path, ("secrets/*", "admin.token"))
    if home.jobs_path.exists():
        copy_database(home.jobs_path, work / "jobs.db")
        archive.add_file("jobs.db", work / "jobs.db")
    _add_blobs(archive, home, work, blobs, on_progress)
    manifest = BackupManifest(
        FORMAT,
        __version__,
        made_s,
        SCHEMA_REVISION,
        secrets,
        records,
        last_hash,
        count,
        tuple(archive.members),
    )
    archive.add_manifest(manifest)
    return manifest


def _copy_database(home: Home, copy: Path) -> None:
    database = open_database(home, upgrade=False)
    try:
        if not database.shared:
            copy_database(home.database_path, copy)
            return
        mirror = Database.open(copy)
        try:
            with database.read() as source, mirror.begin() as target:
                copy_rows(source, target)
        finally:
            mirror.close()
    finally:
        database.close()


def _as_one_file(database: Path) -> None:
    """Put what is in the WAL into the file: closing the last connection has done it, and this makes sure."""
    if database.with_name(f"{database.name}-wal").exists():
        whole = database.with_name("whole.db")
        copy_database(database, whole)
        whole.replace(database)


def read_blobs(connection: Connection) -> tuple[int, dict[str, int]]:
    """How many versions there are, and the digests and sizes of the files of those that were not deleted."""
    count, blobs = 0, dict[str, int]()
    same = (deletions.c.model == versions.c.model) & (deletions.c.version == versions.c.version)
    query = select(versions.c.manifest, select(deletions.c.model).where(same).exists())
    for text, deleted in connection.execute(query):
        count += 1
        if deleted:
            continue
        blobs |= {each.sha256: each.size_bytes for each in msgspec.json.decode(text, type=_Stored).files}
    return count, blobs


def _add_files(archive: ArchiveWriter, root: Path, patterns: tuple[str, ...]) -> None:
    """Add small files as they are now; each is replaced whole by whoever writes it, and may vanish."""
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            name = path.relative_to(root).as_posix()
            if check_name(name) and path.is_file() and not path.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    archive.add_bytes(name, path.read_bytes())


def _add_blobs(
    archive: ArchiveWriter, home: Home, work: Path, blobs: dict[str, int], on_progress: Progress | None
) -> None:
    store = open_blobs(home)
    done, total = 0, sum(blobs.values())
    copy = work / "blob"
    for sha256, size_bytes in sorted(blobs.items()):
        store.copy_verified(sha256, copy)
        archive.add_file(f"blobs/{sha256}", copy)
        copy.unlink()
        done += size_bytes
        if on_progress is not None:
            on_progress(done, total)


@contextlib.contextmanager
def _workplace(parent: Path) -> Iterator[Path]:
    """A private directory beside the backup; those of backups that were killed are removed."""
    for left in parent.glob(f"{_WORKPLACE}*{TEMPORARY_SUFFIX}"):
        _remove_unless_held(left)
    work = Path(tempfile.mkdtemp(prefix=_WORKPLACE, suffix=TEMPORARY_SUFFIX, dir=parent))
    descriptor = os.open(work / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield work
    finally:
        os.close(descriptor)
        shutil.rmtree(work, ignore_errors=True)


def _remove_unless_held(work: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(work / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(work, ignore_errors=True)
        finally:
            os.close(descriptor)


def _exists(file: Path) -> SalverError:
    return SalverError("ALREADY_EXISTS", f"there is a file {file.name!r}", "name another one; a backup replaces none")
