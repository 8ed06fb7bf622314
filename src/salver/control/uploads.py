"""Artifact files over the control listener: stored while they come, verified while they go, so many at once.

What a client sends goes through a pipe into the artifact store, which computes the digest of what it writes and keeps
nothing that is not what the client said it would be. Nothing is held in memory but a piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from salver.control.places import Places
from salver.protocol.errors import SalverError
from salver.protocol.tables import FileEntry
from salver.security.access import Principal
from salver.storage.blob_store import Blob, Blobs, check_digest
from salver.storage.opening import open_blobs
from salver.telemetry.logs import log_event

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration
    from salver.control.route import Call

__all__ = ["TransferLimits", "Transfers", "destination", "receive", "send", "size_of", "tell_size", "wanted_file"]

_IDENTITY: Final = ("", "identity")


class TransferLimits(msgspec.Struct, frozen=True):
    """How much is transferred at one time, half of it at most for one principal, and what one file may take."""

    uploads: int = 8
    downloads: int = 16
    largest_bytes: int = 64 * 2**30
    stall_s: float = 30.0
    """The longest pause within a body; the listener asks for a least pace besides."""


class Transfers:
    """The places for files on their way, and the threads that store them."""

    def __init__(self, limits: TransferLimits = TransferLimits()) -> None:  # noqa: B008 - frozen
        self.limits = limits
        self.threads = ThreadPoolExecutor(limits.uploads, thread_name_prefix="upload")
        self.uploads = Places("uploads", limits.uploads)
        self.downloads = Places("downloads", limits.downloads)


# In.


class Destination(NamedTuple):
    """Where a body goes."""

    blobs: Blobs
    sha256: str
    principal: Principal
    """Whose upload it is."""


def destination(admin: LocalAdministration, call: Call) -> Destination:
    """What `PUT /v1/blobs/{sha256}` is about."""
    return Destination(open_blobs(admin.home), check_digest(call.params["sha256"]), admin.principal)


async def receive(transfers: Transfers, request: Request, into: Destination) -> Response:
    """Store a body under the digest that the path says.

    Whatever is cut off, stalls, is too large or is something else leaves nothing: INVALID_ARTIFACT, BODY_TOO_LARGE,
    REQUEST_TIMEOUT, STORAGE_FULL.
    """
    limits = transfers.limits
    if request.headers.get("content-encoding", "").lower() not in _IDENTITY:
        raise SalverError("UNSUPPORTED_MEDIA_TYPE", "the body is compressed", "send the bytes as they are")
    if int(request.headers.get("content-length", "0")) > limits.largest_bytes:
        raise _too_large(limits)
    give_back = transfers.uploads.take(into.principal)
    try:
        blob = await _received(transfers, request, into)
    finally:
        give_back()
    return Response(msgspec.json.encode(blob), media_type="application/json")


async def _received(transfers: Transfers, request: Request, into: Destination) -> Blob:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    storing = asyncio.get_running_loop().run_in_executor(transfers.threads, _store, into, reading)
    try:
        try:
            await _pump(request, writing, transfers.limits)
        finally:
            os.close(writing)
    except BrokenPipeError:
        pass  # the store has stopped listening, and says why
    except BaseException:
        # What has come is cut off, so its digest is wrong, and it is not kept.
        with contextlib.suppress(SalverError):
            await asyncio.shield(storing)
        raise
    try:
        return await storing
    except SalverError as error:
        if error.code != "CORRUPT_ARTIFACT":
            raise
        raise SalverError(
            "INVALID_ARTIFACT",
            f"the body has another digest than {into.sha256}",
            "send the file again, whole, under the SHA-256 of its bytes",
        ) from None


def _store(into: Destination, reading: int) -> Blob:
    try:
        return into.blobs.receive(reading, into.sha256)
    finally:
        os.close(reading)


async def _pump(request: Request, writing: int, limits: TransferLimits) -> None:
    """Hand a body on as it comes. Raises BrokenPipeError when nobody takes it any more."""
    came_bytes = 0
    body = request.stream()
    while True:
        try:
            async with asyncio.timeout(limits.stall_s):
                piece = await anext(body, None)
        except TimeoutError:
            raise SalverError(
                "REQUEST_TIMEOUT", f"nothing came for {limits.stall_s:g} s", "send the body without pauses"
            ) from None
        if piece is None:
            return
        came_bytes += len(piece)
        if came_bytes > limits.largest_bytes:
            raise _too_large(limits)
        await _write(writing, piece)


async def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    loop = asyncio.get_running_loop()
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            writable: asyncio.Future[None] = loop.create_future()
            loop.add_writer(descriptor, _settle, writable)
            try:
                await writable
            finally:
                loop.remove_writer(descriptor)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _too_large(limits: TransferLimits) -> SalverError:
    return SalverError("BODY_TOO_LARGE", f"the file exceeds {limits.largest_bytes} bytes", "split the model")


def size_of(admin: LocalAdministration, call: Call) -> int:
    """What `HEAD /v1/blobs/{sha256}` is about; raises NOT_FOUND."""
    sha256 = check_digest(call.params["sha256"])
    size_bytes = open_blobs(admin.home).size_bytes(sha256)
    if size_bytes is None:
        raise SalverError("NOT_FOUND", f"blob {sha256} is not stored", "send it: PUT /v1/blobs/DIGEST")
    return size_bytes


async def tell_size(_: Transfers, __: Request, size_bytes: int) -> Response:
    """That a blob is there, and how large it is."""
    return Response(headers={"content-length": str(size_bytes)})


# Out.


class Outgoing(NamedTuple):
    """A file of a version, to be sent."""

    blobs: Blobs
    file: FileEntry
    principal: Principal
    """Whose download it is."""


def wanted_file(admin: LocalAdministration, call: Call) -> Outgoing:
    """What `GET .../files/{path}` is about; raises NOT_FOUND, REFUSED_BY_POLICY for a deleted version."""
    manifest = admin.records.pages.attestation(call.params["model"], call.params["version"]).manifest
    path = call.params["path"]
    for file in manifest.files:
        if file.path == path:
            return Outgoing(open_blobs(admin.home), file, admin.principal)
    raise SalverError("NOT_FOUND", f"{manifest.reference} has no file {path[:200]!r}", "its manifest lists the files")


async def send(transfers: Transfers, request: Request, wanted: Outgoing) -> Response:
    """Send a file, verified while it is read: of one that is not what it should be the end never goes out."""
    headers = {
        "content-length": str(wanted.file.size_bytes),
        "content-type": "application/octet-stream",
        "x-content-type-options": "nosniff",
        "etag": f'"{wanted.file.sha256}"',
    }
    if request.method == "HEAD":
        return Response(headers=headers)
    give_back = transfers.downloads.take(wanted.principal)
    pieces = wanted.blobs.pieces(wanted.file.sha256)
    try:
        first = await run_in_threadpool(next, pieces, b"")
    except BaseException:
        give_back()
        raise
    return _Sending(first, pieces, headers, give_back)


class _Sending(Response):
    """The bytes of a file on their way; gives its place back when they are through, or nobody wants them."""

    def __init__(
        self, first: bytes, pieces: Iterator[bytes], headers: dict[str, str], give_back: Callable[[], None]
    ) -> None:
        super().__init__(headers=headers)
        self._first = first
        self._pieces = pieces
        self._give_back = give_back

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        request = Request(scope, receive)
        piece = self._first
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while True:
                following = await run_in_threadpool(next, self._pieces, b"") if piece else b""
                await send({"type": "http.response.body", "body": piece, "more_body": bool(following)})
                if not following or await request.is_disconnected():
                    return
                piece = following
        except SalverError as error:
            # Not to end what was begun tells the client that it is not whole: the server closes the connection.
            log_event("download_cut_off", level=logging.ERROR, code=error.code, problem=error.message)
        finally:
            self._give_back()
            with contextlib.suppress(SalverError, ValueError):
                await run_in_threadpool(self._pieces.close)  # type: ignore[attr-defined]
