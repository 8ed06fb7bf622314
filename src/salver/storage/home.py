"""The one data directory: its layout, its lock, its secrets.

    salver-home.json   marks the directory as a home; names the layout's version
    salver.db          registry, desired state, tokens, audit journal
    storage.toml       where database and artifacts are, if not here; see `salver.storage.settings`
    blobs/             content-addressed artifacts, or the cache of those that are elsewhere
    tables.json        the published snapshot that servers read
    serve.json         who serves: pid and addresses
    isolated.json      versions that crashed or hung once and run in a process of their own
    usage/             counts of requests on their way into the database
    retraining.json    which commands of this machine's retrain which models; retraining/ has their locks
    jobs.db            jobs: what was asked, and answers until they expire
    lock               flock of the one process that may change this home
    run/               sockets and pulses of the processes that serve; gone when they are
    scratch/           versions as they are loaded; gone when nobody serves
    admin.token        the first administrator's token (0600)
    secrets/           private keys (0600 in 0700), each made once by whoever needs it first
    secrets/pepper     key of the token hashes; the others are those of `salver.security.keys`
    audit/heads.jsonl  signed tree heads of the journal, and beside it the public keys of who signed them
    trust/             public keys whose signed versions are taken; see `salver.storage.trust`

The directory may be moved and is backed up by copying. Paths never appear in errors.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from salver.protocol.errors import SalverError
from salver.storage.snapshot import (
    TEMPORARY_SUFFIX,
    create_once,
    discard_temporaries,
    full_disk_is_reported,
    read_json,
    sync_directory,
    write_atomically,
    write_json,
)

__all__ = ["Holder", "Home", "Serving", "control_socket"]

_MARKER: Final = "salver-home.json"
_LAYOUT: Final = 1
_PEPPER_BYTES: Final = 32
_LOCK_ATTEMPTS: Final = 200
"""How often a lock whose record names no living process is tried again: it is being taken or looked at."""


class _Marker(msgspec.Struct, frozen=True):
    layout: int


class Holder(msgspec.Struct, frozen=True):
    """Who holds the lock of a home, and for what."""

    pid: int
    purpose: str


class Serving(msgspec.Struct, frozen=True):
    """Who serves from a home. It may outlive its writer: only `Home.holder` tells who lives."""

    pid: int
    http: str | None
    control: str | None
    grpc: str | None = None
    run_dir: str = ""
    """The private directory with the Unix sockets of the serving processes."""

    @property
    def control_socket(self) -> str:
        """Where the controller takes commands of this machine."""
        return control_socket(self.run_dir)


def control_socket(run_dir: str) -> str:
    """The Unix socket on which the controller of these serving processes answers."""
    return f"{run_dir}/control.sock"


class Home:
    """A data directory and the names of what is in it. Made by `Home.open`."""

    __slots__ = (
        "admin_token_path",
        "blobs_path",
        "database_path",
        "isolated_path",
        "jobs_path",
        "lock_path",
        "path",
        "pepper_path",
        "run_path",
        "scratch_path",
        "secrets_path",
        "serving_path",
        "tables_path",
        "trust_path",
        "usage_path",
    )

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database_path = path / "salver.db"
        self.blobs_path = path / "blobs"
        self.tables_path = path / "tables.json"
        self.serving_path = path / "serve.json"
        self.isolated_path = path / "isolated.json"
        self.jobs_path = path / "jobs.db"
        self.lock_path = path / "lock"
        self.run_path = path / "run"
        self.usage_path = path / "usage"
        self.scratch_path = path / "scratch"
        self.admin_token_path = path / "admin.token"
        self.secrets_path = path / "secrets"
        self.pepper_path = self.secrets_path / "pepper"
        self.trust_path = path / "trust"

    def __repr__(self) -> str:
        return f"<Home {self.path}>"

    @classmethod
    def open(cls, path: Path | str) -> Home:
        """Open the home at `path`, creating it (mode 0700) when there is none.

        Safe against a second process that opens it at the same moment, and against death
        half-way: the next call completes it. Raises REFUSED_BY_POLICY for a directory with
        other content, for one written by a newer Salver, and for one whose pepper is gone
        or damaged while its database is there; INVALID_SETTING for a path that is no directory.
        """
        home = cls(Path(path).expanduser().absolute())
        with full_disk_is_reported():
            home._claim()
            home._complete()
        return home

    @classmethod
    def existing(cls, path: Path | str) -> Home:
        """The same, where there is something at `path`; NOT_FOUND where there is nothing."""
        if not Path(path).expanduser().exists():
            raise SalverError(
                "NOT_FOUND",
                f"there is no home {path}",
                "`salver register` makes one there; --home, home= or SALVER_HOME names another",
            )
        return cls.open(path)

    def _claim(self) -> None:
        """Make the directory ours, or find that it is."""
        try:
            self.path.mkdir(mode=0o700, parents=True)
        except (FileExistsError, NotADirectoryError) as error:
            if not self.path.is_dir():
                raise SalverError(
                    "INVALID_SETTING",
                    f"home {self.path.name!r} is not a directory",
                    "name a directory with --home or SALVER_HOME",
                ) from error
        marker_path = self.path / _MARKER
        if not marker_path.exists() and self._is_unclaimed():
            # A mount point may belong to somebody else; the secrets have modes of their own.
            with contextlib.suppress(PermissionError):
                self.path.chmod(0o700)
            create_once(marker_path, msgspec.json.encode(_Marker(_LAYOUT)))
            sync_directory(self.path.parent)
        marker = read_json(marker_path, _Marker)
        if marker is None:
            raise SalverError(
                "REFUSED_BY_POLICY",
                f"directory {self.path.name!r} is not empty and is no Salver home",
                "name an empty or new directory with --home or SALVER_HOME",
            )
        if marker.layout > _LAYOUT:
            raise SalverError(
                "REFUSED_BY_POLICY",
                f"home {self.path.name!r} has layout {marker.layout}; this Salver knows up to {_LAYOUT}",
                "use the newer Salver that wrote it, or another home",
            )

    @staticmethod
    def is_marked(directory: Path) -> bool:
        """Whether a directory is a home."""
        return (directory / _MARKER).exists()

    def mark(self) -> None:
        """Make the directory a home, durably: the last step of whoever filled it with all that a home has."""
        create_once(self.path / _MARKER, msgspec.json.encode(_Marker(_LAYOUT)))
        sync_directory(self.path.parent)

    def make_pepper(self) -> None:
        """Make a new key of the token hashes if there is none; no token that is known then works any more."""
        self.secrets_path.mkdir(mode=0o700, exist_ok=True)
        create_once(self.pepper_path, secrets.token_bytes(_PEPPER_BYTES))
        sync_directory(self.path)

    def _is_unclaimed(self) -> bool:
        """Whether the directory holds nothing but its settings, a marker being written and what a fresh volume has."""
        return all(
            path.name in ("lost+found", "storage.toml")
            or (path.name.startswith(f".{_MARKER}.") and path.name.endswith(TEMPORARY_SUFFIX))
            for path in self.path.iterdir()
        )

    def _complete(self) -> None:
        had_database = self.database_path.exists()  # asked first: a racing opener makes the pepper before it
        self.blobs_path.mkdir(mode=0o700, exist_ok=True)
        self.secrets_path.mkdir(mode=0o700, exist_ok=True)
        _keep_private(self.secrets_path, 0o700)
        if not self.pepper_path.exists():
            if had_database:
                raise SalverError(
                    "REFUSED_BY_POLICY",
                    "the home has a database but no secrets/pepper, so no token could be checked",
                    "restore secrets/pepper from the backup of this home; "
                    "without one put 32 random bytes there and create new tokens",
                )
            self.make_pepper()
        _keep_private(self.pepper_path, 0o600)

    def pepper(self) -> bytes:
        """The key of the token hashes; raises REFUSED_BY_POLICY unless it has its 32 bytes."""
        pepper = self.pepper_path.read_bytes()
        if len(pepper) != _PEPPER_BYTES:
            raise SalverError(
                "REFUSED_BY_POLICY",
                f"secrets/pepper has {len(pepper)} bytes; {_PEPPER_BYTES} are needed",
                "restore it from the backup of this home",
            )
        return pepper

    def secret(self, name: str, fresh: Callable[[], bytes]) -> bytes:
        """The bytes of secrets/`name`, made of `fresh()` if there is no such file.

        Of two racing processes one makes it and both return the same. Raises STORAGE_FULL.
        """
        path = self.secrets_path / name
        if not path.exists():
            create_once(path, fresh())
        _keep_private(path, 0o600)
        return path.read_bytes()

    def replace_secret(self, name: str, data: bytes) -> None:
        """Put `data` in the place of secrets/`name`, durably; whoever reads has the old one or the new."""
        write_atomically(self.secrets_path / name, data)

    @contextlib.contextmanager
    def lock(self, purpose: str) -> Iterator[None]:
        """Hold this home for changes, until the block ends or the process dies.

        Raises CONFLICT, naming the holder, when another one has it; never waits for it. The
        descriptor is closed in programs that this process starts. REQUIRES that the process
        does not fork without exec meanwhile: such a child would keep the lock.
        """
        descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._take(descriptor)
            record = msgspec.json.encode(Holder(os.getpid(), purpose))
            with full_disk_is_reported():
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, record, 0)
            try:
                yield
            finally:
                os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    def _take(self, descriptor: int) -> None:
        for _ in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _read_holder(descriptor)
                if holder is not None and _lives(holder.pid):
                    break
                os.sched_yield()
            else:
                return
        holder = _read_holder(descriptor)
        named = f"process {holder.pid} ({holder.purpose})" if holder else "another process"
        raise SalverError(
            "CONFLICT",
            f"the home is held by {named}",
            "stop that process, or use another home with --home or SALVER_HOME",
        )

    def holder(self) -> Holder | None:
        """Who holds the lock now; None when nobody does. Takes nothing and waits for nothing."""
        try:
            descriptor = os.open(self.lock_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(descriptor) or Holder(0, "unknown")
        else:
            return None
        finally:
            os.close(descriptor)

    def write_serving(self, serving: Serving) -> None:
        """Record who serves. REQUIRES the lock."""
        write_json(self.serving_path, serving)

    def read_serving(self) -> Serving | None:
        """Who serves from this home, if the recorded process still holds the lock."""
        serving = read_json(self.serving_path, Serving)
        holder = self.holder()
        return serving if serving and holder and serving.pid == holder.pid else None

    def discard_temporaries(self) -> None:
        """Remove what processes left that were killed while they replaced a file of the home."""
        for directory in (self.path, self.secrets_path, self.trust_path, self.usage_path, self.path / "audit"):
            discard_temporaries(directory)

    def clear_serving(self) -> None:
        """Remove the record of who serves. REQUIRES the lock."""
        self.serving_path.unlink(missing_ok=True)


def _keep_private(path: Path, mode: int) -> None:
    """Take back rights that a copy or a restore may have widened."""
    if path.stat().st_mode & 0o077:
        path.chmod(mode)


def _read_holder(descriptor: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(descriptor, 4096, 0), type=Holder)
    except msgspec.DecodeError:
        return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
