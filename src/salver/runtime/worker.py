"""`python -m salver.runtime.worker SOCKET REQUESTS ANSWERS PARENT`: a worker process.

It loads one version, warms it up, and runs batches that come over the inherited Unix socket,
one at a time; large ones come and go through the two inherited memory files. This is the only
place where users' code runs. It dies with its server, the process PARENT: the kernel is asked to
kill it then, and a thread that sends a heartbeat ends it when the socket is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.protocol.frames import (
    ARENA_BYTES,
    PREFIX,
    SHARED_ABOVE_BYTES,
    ArrayHeader,
    FrameKind,
    ProblemHeader,
    describe_arrays,
    pack_frame,
    read_arrays,
)
from salver.protocol.tables import RuntimeOptions, VersionManifest
from salver.runtime.batch import problem_of
from salver.runtime.environment import allow_users_code, die_with_parent
from salver.runtime.formats import Loaded
from salver.runtime.loader import load_version
from salver.runtime.warmup import warm_up
from salver.storage.blobs import BlobStore

__all__ = ["LoadOrder", "main"]

_PR_SET_NO_NEW_PRIVS = 38


class LoadOrder(msgspec.Struct, frozen=True):
    """What a worker is told to load, the largest batch to try it with, and the memory it may take."""

    manifest: VersionManifest
    options: RuntimeOptions
    blobs: str
    scratch: str
    max_batch: int
    memory_bytes: int
    beat_s: float = 1.0
    """Seconds between two signs of life."""


class _Connection:
    """The worker's end of the socket; sending is locked because the heartbeat sends too."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()

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

    def send(self, *parts: bytes) -> None:
        with self._lock:
            self._sock.sendall(b"".join(parts))


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
    answers = mmap.mmap(int(sys.argv[3]), ARENA_BYTES)
    _, header, _ = connection.receive()
    order = msgspec.msgpack.decode(header, type=LoadOrder)
    threading.Thread(target=_beat, args=(connection, order.beat_s), daemon=True).start()
    _limit_memory(order.memory_bytes)
    loaded = _load(connection, order)
    if loaded is not None:
        _serve(connection, loaded, requests, answers)
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
        with _ending_copies():
            loaded = load_version(order.manifest, order.options, BlobStore(Path(order.blobs)), Path(order.scratch))
            measured = warm_up(loaded, order.manifest, order.max_batch, SYSTEM_CLOCK)
    except SalverError as error:
        connection.send(pack_frame(FrameKind.REFUSED, (error.code, error.message, error.remedy)))
    except Exception as error:  # noqa: BLE001 - user code may raise anything
        problem = f"{type(error).__name__} while it was loaded"
        sys.excepthook(type(error), error, error.__traceback__)
        connection.send(pack_frame(FrameKind.REFUSED, ("LOAD_FAILED", problem, "see the server's log")))
    else:
        connection.send(pack_frame(FrameKind.LOADED, measured))
        return loaded
    return None


@contextlib.contextmanager
def _ending_copies() -> Iterator[None]:
    """End a process that the model has forked and let come back: it would answer in this one's place."""
    pid = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != pid:
            os._exit(1)


def _serve(connection: _Connection, loaded: Loaded, requests: mmap.mmap, answers: mmap.mmap) -> None:
    while True:
        kind, header, body = connection.receive()
        if kind is FrameKind.STOP:
            return
        asked = msgspec.msgpack.decode(header, type=ArrayHeader)
        if asked.shared:
            # A copy: the next batch comes to the same memory, and a model may keep what it was given.
            body = requests[: sum(entry.size_bytes for entry in asked.arrays)]
        inputs = read_arrays(asked.arrays, body)
        began_s = SYSTEM_CLOCK.monotonic_s()
        try:
            with _ending_copies():
                outputs = loaded.run(inputs)
        except Exception as error:  # noqa: BLE001 - whatever a model raises fails its requests
            connection.send(pack_frame(FrameKind.RAISED, ProblemHeader(asked.batch, problem_of(error))))
            continue
        seconds = SYSTEM_CLOCK.monotonic_s() - began_s
        try:
            entries, parts = describe_arrays(outputs)
        except (TypeError, ValueError) as error:
            problem = f"the model's answer cannot be served: {error}"
            connection.send(pack_frame(FrameKind.BAD_OUTPUT, ProblemHeader(asked.batch, problem)))
            continue
        total = sum(entry.size_bytes for entry in entries)
        shared = SHARED_ABOVE_BYTES < total <= ARENA_BYTES
        if shared:
            answers.seek(0)
            for part in parts:
                answers.write(part)
            parts, total = [], 0
        connection.send(pack_frame(FrameKind.RESULT, ArrayHeader(asked.batch, entries, shared, seconds), total), *parts)


if __name__ == "__main__":
    main()
