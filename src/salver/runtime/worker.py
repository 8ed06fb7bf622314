"""`python -m salver.runtime.worker SOCKET REQUESTS ANSWERS PARENT`: a worker process.

It loads one version, warms it up, and runs batches that come over the inherited Unix socket,
one at a time, and open streams step by step between them; large ones come and go through the two
inherited memory files. This is the only place where users' code runs. It dies with its server, the
process PARENT: the kernel is asked to kill it then, and a thread that sends a heartbeat ends it when
the socket is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import select
import signal
import socket
import sys
import threading
from pathlib import Path

import msgspec

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.protocol.frames import (
    ARENA_BYTES,
    PREFIX,
    ArrayHeader,
    FrameKind,
    ProblemHeader,
    StreamHeader,
    pack_frame,
    read_arrays,
)
from salver.protocol.tables import RuntimeOptions, VersionManifest
from salver.runtime.batch import problem_of, refusal_of
from salver.runtime.curve import Measured
from salver.runtime.environment import allow_users_code, die_with_parent, ending_copies
from salver.runtime.formats import Loaded
from salver.runtime.loader import load_version
from salver.runtime.provenance import require_signed
from salver.runtime.warmup import warm_up
from salver.runtime.worker_streams import Answers, WorkerStreams
from salver.storage.blob_keys import GivenKeys
from salver.storage.blob_reader import BlobReader

__all__ = ["LoadOrder", "LoadReport", "main"]

_PR_SET_NO_NEW_PRIVS = 38


class LoadOrder(msgspec.Struct, frozen=True):
    """What a worker is told to load, the largest batch to try it with, and the memory it may take."""

    manifest: VersionManifest
    options: RuntimeOptions
    blobs: str
    scratch: str
    max_batch: int
    memory_bytes: int
    trusted: tuple[bytes, ...]
    """The public keys, as PEM, of which one must have signed the manifest."""
    keys: dict[str, bytes] = {}
    """The data keys of those of its files that are encrypted; the key that wraps them stays with the server."""
    beat_s: float = 1.0
    """Seconds between two signs of life."""


class LoadReport(msgspec.Struct, frozen=True):
    """What a worker says when it has loaded the version."""

    measured: Measured
    predicts: bool = True
    """Whether it answers batches; a version that streams need not."""


class _Connection:
    """The worker's end of the socket; sending is locked because the heartbeat sends too."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def has_more(self) -> bool:
        """Whether a frame, or the end, has begun to come."""
        return bool(self._poll.poll(0))

    def receive(self) -> tuple[FrameKind, bytes, bytes]:
        kind, header_bytes, body_bytes = PREFIX.unpack(self._exactly(PREFIX.size))
        return FrameKind(kind), self._exactly(header_bytes), self._exactly(body_bytes)

    def _exactly(self, count: int) -> bytes:
        buffer = bytearray(count)
        view = memoryview(buffer)
        at = 0
        while at < count:
            received = self._sock.recv_into(view[at:])
            if received == 0:
                raise EOFError
            at += received
        return bytes(buffer)

    def send(self, frame: bytes) -> None:
        with self._lock:
            self._sock.sendall(frame)


def main() -> None:
    """Serve batches until the server says stop or is gone; never returns."""
    code = 1
    try:
        die_with_parent(int(sys.argv[4]))
        _confine()
        allow_users_code()
        _work(_Connection(socket.socket(fileno=int(sys.argv[1]))))
        code = 0
    except (EOFError, ConnectionError):
        code = 0
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException as error:  # noqa: BLE001 - the last thing to be known of this process
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        # Threads that user code left behind must not keep a worker alive that nobody can reach.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code & 255)


def _work(connection: _Connection) -> None:
    requests = mmap.mmap(int(sys.argv[2]), ARENA_BYTES, prot=mmap.PROT_READ)
    memory = mmap.mmap(int(sys.argv[3]), ARENA_BYTES)
    _, header, _ = connection.receive()
    order = msgspec.msgpack.decode(header, type=LoadOrder)
    threading.Thread(target=_beat, args=(connection, order.beat_s), daemon=True).start()
    _limit_memory(order.memory_bytes)
    loaded = _load(connection, order)
    if loaded is not None:
        _serve(connection, loaded, requests, Answers(memory, order.memory_bytes))
        loaded.unload()


def _limit_memory(limit: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _confine() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What user code prints belongs to the log, not to the server's standard output.
    os.dup2(2, 1)


def _beat(connection: _Connection, beat_s: float) -> None:
    pause = threading.Event()
    while True:
        try:
            connection.send(pack_frame(FrameKind.BEAT))
        except OSError:
            os._exit(0)
        pause.wait(beat_s)


def _load(connection: _Connection, order: LoadOrder) -> Loaded | None:
    try:
        with ending_copies():
            require_signed(order.manifest, order.trusted)
            blobs = BlobReader(Path(order.blobs), GivenKeys(order.keys))
            loaded = load_version(order.manifest, order.options, blobs, Path(order.scratch))
            predicts = getattr(loaded, "predicts", True)
            measured = warm_up(loaded, order.manifest, order.max_batch, SYSTEM_CLOCK) if predicts else Measured()
    except SalverError as error:
        connection.send(pack_frame(FrameKind.REFUSED, (error.code, error.message, error.remedy, "")))
    except Exception as error:  # noqa: BLE001 - user code may raise anything
        problem = f"{order.manifest.reference} raised {type(error).__name__} while it was loaded"
        sys.excepthook(type(error), error, error.__traceback__)
        told = ("LOAD_FAILED", problem, "`salver status` and the server's log say more", problem_of(error))
        connection.send(pack_frame(FrameKind.REFUSED, told))
    else:
        connection.send(pack_frame(FrameKind.LOADED, LoadReport(measured, predicts)))
        return loaded
    return None


def _serve(connection: _Connection, loaded: Loaded, requests: mmap.mmap, answers: Answers) -> None:
    streams = WorkerStreams(loaded, connection.send, answers)
    while True:
        if not streams.can_step or connection.has_more():
            kind, header, body = connection.receive()
            if kind is FrameKind.STOP:
                streams.close()
                return
            if kind is FrameKind.RUN:
                _run(connection, loaded, answers, msgspec.msgpack.decode(header, type=ArrayHeader), body, requests)
            else:
                _heed(streams, answers, kind, header, body)
                continue
        # Also behind each batch: where one follows another, streams still get on.
        if streams.can_step:
            streams.step()


def _heed(streams: WorkerStreams, answers: Answers, kind: FrameKind, header: bytes, body: bytes) -> None:
    """Take a frame that is no batch."""
    if kind is FrameKind.OPEN:
        opened = msgspec.msgpack.decode(header, type=ArrayHeader)
        streams.open(opened.batch, read_arrays(opened.arrays, body))
    elif kind is FrameKind.CREDIT:
        granted = msgspec.msgpack.decode(header, type=StreamHeader)
        streams.credit(granted.stream, granted.chunks)
    elif kind is FrameKind.CANCEL:
        streams.cancel(msgspec.msgpack.decode(header, type=StreamHeader).stream)
    elif kind is FrameKind.TAKEN:
        answers.taken()


def _run(
    connection: _Connection, loaded: Loaded, answers: Answers, asked: ArrayHeader, body: bytes, requests: mmap.mmap
) -> None:
    if asked.shared:
        # A copy: the next batch comes to the same memory, and a model may keep what it was given.
        body = requests[: sum(entry.size_bytes for entry in asked.arrays)]
    inputs = read_arrays(asked.arrays, body)
    began_s = SYSTEM_CLOCK.monotonic_s()
    try:
        with ending_copies():
            outputs = loaded.run(inputs)
    except Exception as error:  # noqa: BLE001 - whatever a model raises fails its requests
        connection.send(pack_frame(FrameKind.RAISED, ProblemHeader(asked.batch, problem_of(error), refusal_of(error))))
        return
    seconds = SYSTEM_CLOCK.monotonic_s() - began_s
    try:
        frame = answers.frame(FrameKind.RESULT, asked.batch, outputs, seconds)
    except (TypeError, ValueError) as error:
        problem = f"the model's answer cannot be served: {error}"
        frame = pack_frame(FrameKind.BAD_OUTPUT, ProblemHeader(asked.batch, problem))
    # Not above: what fails half-way through a frame must end the worker.
    connection.send(frame)


if __name__ == "__main__":
    main()
