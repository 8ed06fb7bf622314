"""Where a registry is: a home on this machine, or a server's control listener."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import quote

import httpx2
import msgspec

from salver.control.action import Action
from salver.control.actions.registration import REGISTER, REGISTER_FILES, Upload
from salver.control.administration import Administration
from salver.control.holding import administration_of
from salver.control.registration import Registered, draft_version
from salver.control.remote import RemoteAdministration, refusal_of
from salver.protocol.description import Description
from salver.protocol.errors import SalverError
from salver.protocol.profile import ColumnProfiles
from salver.protocol.tables import FileEntry, VersionManifest
from salver.runtime.artifact import artifact_files
from salver.storage.home import Home
from salver.storage.opening import open_blobs
from salver.storage.snapshot import full_disk_is_reported

__all__ = ["Artifact", "HomePlace", "Place", "Progress", "ServerPlace"]

_PIECE_BYTES: Final = 1 << 20
_ATTEMPTS: Final = 4
_FIRST_PAUSE_S: Final = 0.25
_NEVER_BEGUN: Final = frozenset({"QUEUE_FULL", "OVERLOADED"})
"""Refused before anything was done: whatever it was, it may be asked again."""
_PASSING: Final = _NEVER_BEGUN | {"CONTROL_UNAVAILABLE", "STORE_UNAVAILABLE"}
"""Nobody knows whether it was done: asked again where that changes nothing."""
_REPEATABLE: Final = frozenset({"GET", "HEAD", "PUT"})

Progress = Callable[[str, int, int], None]
"""Called with a file's path, how many of its bytes have gone, and how many there are."""


class Artifact(msgspec.Struct, frozen=True):
    """What is to be published."""

    name: str
    path: Path
    version: str | None
    format: str | None
    trust_code: bool
    description: Description | None
    columns: ColumnProfiles | None
    """Of its training data."""
    tags: Mapping[str, str]
    progress: Progress


class Place(Protocol):
    """Where a registry is. Everything raises `SalverError`."""

    def administration(self, why: str) -> contextlib.AbstractContextManager[Administration]:
        """Whoever carries actions out there."""

    def publish(self, artifact: Artifact, why: str) -> Registered:
        """Store the files of an artifact and register the version that they make."""

    def fetch(self, manifest: VersionManifest, file: FileEntry, target: Path, progress: Progress) -> None:
        """Write a file of a version to the new file `target`, or raise and leave nothing there."""

    def close(self) -> None:
        """Let go of connections."""


def repeated(method: str, ask: Callable[[], Any]) -> Any:
    """What `ask` gives; asked again a few times where it was not begun, or where asking twice changes nothing."""
    for attempt in range(_ATTEMPTS):
        try:
            return ask()
        except SalverError as error:
            codes = _PASSING if method in _REPEATABLE else _NEVER_BEGUN
            if error.code not in codes or attempt == _ATTEMPTS - 1:
                raise
            threading.Event().wait((error.retry_after_s or 0.0) + _FIRST_PAUSE_S * 2.0**attempt)
    raise AssertionError


class HomePlace:
    """A home on this machine. Each call holds it for a moment, or asks the server that has it.

    Publishing makes the home where there is none; everything else raises NOT_FOUND.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        return str(self._path)

    def administration(self, why: str) -> contextlib.AbstractContextManager[Administration]:
        """See `Place`."""
        return administration_of(Home.existing(self._path), "Python client", why)

    def publish(self, artifact: Artifact, why: str) -> Registered:
        """See `Place`."""
        draft = draft_version(
            open_blobs(Home.open(self._path)),
            artifact.name,
            artifact.path,
            version=artifact.version,
            format=artifact.format,
            columns=artifact.columns,
            trust_code=artifact.trust_code,
        )
        draft = msgspec.structs.replace(draft, description=artifact.description, tags=dict(artifact.tags))
        with self.administration(why) as admin:
            return admin.do(REGISTER, draft)

    def fetch(self, manifest: VersionManifest, file: FileEntry, target: Path, progress: Progress) -> None:
        """See `Place`."""
        del manifest
        open_blobs(Home.existing(self._path)).copy_verified(file.sha256, target, 0o644)
        progress(file.path, file.size_bytes, file.size_bytes)

    def close(self) -> None:
        """See `Place`."""


class ServerPlace:
    """The control listener of a server. `http` has its address and token, and is closed with this."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    def __repr__(self) -> str:
        return str(self._http.base_url)

    def administration(self, why: str) -> contextlib.AbstractContextManager[Administration]:
        """See `Place`."""
        return contextlib.nullcontext(RemoteAdministration.through(self._http, why))

    def publish(self, artifact: Artifact, why: str) -> Registered:
        """See `Place`: files that the server has are not sent again."""
        found = artifact_files(artifact.path)
        entries = {relative: _entry(relative, path) for relative, path in found.items()}
        asked = Upload(
            artifact.name,
            tuple(entries.values()),
            artifact.version,
            artifact.format,
            artifact.trust_code,
            description=artifact.description,
            tags=dict(artifact.tags),
            columns=artifact.columns,
        )
        for attempt in (1, 2):
            for relative, path in found.items():
                self._send(entries[relative], path, artifact.progress)
            try:
                with self.administration(why) as admin:
                    return _registered(admin, asked)
            except SalverError as error:
                # What was there and nobody's may have been collected meanwhile.
                if error.code != "NOT_FOUND" or attempt == 2:
                    raise
        raise AssertionError

    def _send(self, entry: FileEntry, path: Path, progress: Progress) -> None:
        where = f"/v1/blobs/{entry.sha256}"

        def has() -> bool:
            with self._asked("HEAD", where) as answer:
                return answer.status_code == 200

        if repeated("HEAD", has):
            progress(entry.path, entry.size_bytes, entry.size_bytes)
            return

        def put() -> None:
            with path.open("rb") as file:
                pieces = _told(iter(lambda: file.read(_PIECE_BYTES), b""), entry, progress)
                with self._asked("PUT", where, pieces, {"content-length": str(entry.size_bytes)}) as answer:
                    answer.read()

        repeated("PUT", put)

    def fetch(self, manifest: VersionManifest, file: FileEntry, target: Path, progress: Progress) -> None:
        """See `Place`."""
        path = quote(file.path, safe="/")
        where = f"/v1/models/{quote(manifest.model, safe='')}/versions/{quote(manifest.version, safe='')}/files/{path}"

        def get() -> None:
            try:
                with self._asked("GET", where) as answer, full_disk_is_reported(), target.open("xb") as into:
                    _write(_told(answer.iter_raw(_PIECE_BYTES), file, progress), file, into)
            except BaseException:
                target.unlink(missing_ok=True)
                raise

        repeated("GET", get)

    @contextlib.contextmanager
    def _asked(
        self, method: str, path: str, content: Iterator[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx2.Response]:
        """An answer whose body is not read yet; what was refused is raised, but 404 to a HEAD."""
        given = {"accept-encoding": "identity"} | dict(headers or {})
        try:
            with self._http.stream(method, path, content=content, headers=given) as answer:
                if answer.status_code >= 400 and not (method == "HEAD" and answer.status_code == 404):
                    answer.read()
                    raise _refused(answer)
                yield answer
        except httpx2.HTTPError as error:
            raise SalverError(
                "CONTROL_UNAVAILABLE", f"the server was lost ({type(error).__name__})", "try again shortly"
            ) from error

    def close(self) -> None:
        """See `Place`."""
        self._http.close()


def _refused(answer: httpx2.Response) -> SalverError:
    """Why it was refused; the answer to a HEAD has no body that could say so."""
    error = refusal_of(answer)
    said = _REFUSED_HEADS.get(error.code) if answer.request.method == "HEAD" else None
    return SalverError(error.code, *said) if said else error


def _registered(admin: Administration, asked: Upload) -> Registered:
    # The same under the same number is the same version; without a number another one may have come between.
    method = "PUT" if asked.version is not None else "POST"
    found: Registered = repeated(method, lambda: admin.do(_REGISTER, asked))
    return found


_REFUSED_HEADS: Final = {
    "UNAUTHENTICATED": ("no valid token came with the request", "give one as `token`"),
    "PERMISSION_DENIED": ("the token may not register", "use one with the role admin, operator or developer"),
}
_REGISTER: Final[Action[Upload, Registered]] = REGISTER_FILES


def _entry(relative: str, path: Path) -> FileEntry:
    digest = hashlib.sha256()
    size_bytes = 0
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
                size_bytes += len(piece)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise SalverError("INVALID_ARTIFACT", f"file {relative!r} cannot be read: {reason}", "check it") from error
    return FileEntry(relative, digest.hexdigest(), size_bytes)


def _told(pieces: Iterator[bytes], entry: FileEntry, progress: Progress) -> Iterator[bytes]:
    gone_bytes = 0
    for piece in pieces:
        yield piece
        gone_bytes += len(piece)
        progress(entry.path, gone_bytes, entry.size_bytes)


def _write(pieces: Iterator[bytes], entry: FileEntry, into: Any) -> None:
    digest = hashlib.sha256()
    left_bytes = entry.size_bytes
    for piece in pieces:
        left_bytes -= len(piece)
        if left_bytes < 0:
            break
        digest.update(piece)
        into.write(piece)
    if left_bytes or digest.hexdigest() != entry.sha256:
        raise SalverError(
            "CORRUPT_ARTIFACT",
            f"file {entry.path!r} did not come as its manifest says: {entry.sha256}",
            "fetch it again; if it stays so, `salver storage verify` on the server",
        )
