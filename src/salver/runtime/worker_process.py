"""One worker process from its start to its death: the server's end of its socket and memory."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from typing import Final, Protocol, cast

import msgspec

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.frames import (
    ARENA_BYTES,
    PREFIX,
    SHARED_ABOVE_BYTES,
    ArrayHeader,
    FrameKind,
    ProblemHeader,
    StreamHeader,
    describe_arrays,
    pack_frame,
    read_arrays,
)
from salver.runtime.environment import child_environment
from salver.runtime.model import Arrays
from salver.runtime.worker import LoadOrder, LoadReport
from salver.telemetry.logs import log_event

__all__ = ["LoadFailedError", "WorkerListener", "WorkerProcess"]

_LOOKS: Final = 10
"""Looks at a worker's silence within the time that is too long."""
_STOP_S: Final = 5.0
"""How long a worker may take to unload when it is told to stop."""
_LAST_WORDS_S: Final = 1.0
"""How long what a dead worker has said may take to be read."""


class LoadFailedError(SalverError):
    """A version could not be loaded. `cause` is what was raised, which only those who run the server may be told."""

    def __init__(self, code: str, message: str, remedy: str = "", cause: str = "") -> None:
        super().__init__(code, message, remedy)
        self.cause = cause


class WorkerListener(Protocol):
    """Who is told what a launched worker does."""

    def answered(self, outputs: Arrays, seconds: float) -> None:
        """The batch was computed."""

    def raised(self, problem: str, refusal: str) -> None:
        """The batch raised an exception; `refusal` is what it says to the client, if anything."""

    def bad_output(self, problem: str) -> None:
        """The batch returned something that is no arrays by name."""

    def chunk(self, stream: int, outputs: Arrays, seconds: float) -> None:
        """A stream goes on; raises ValueError for one that has no credit."""

    def ended(self, stream: int, kind: FrameKind, problem: str, refusal: str) -> None:
        """A stream has had its last word, `kind`; raises ValueError for one that is not open."""

    def arriving(self) -> None:
        """More of an answer has come, and there is more to come."""

    def leaving(self) -> None:
        """The worker takes no more batches. It may still answer, and `died` follows."""

    def died(self, cause: str) -> None:
        """The worker has ended; nothing more comes from it."""


class WorkerProcess(asyncio.Protocol):
    """One worker process, for one launch. Lives on the event loop.

    What it takes from the machine - a process group, a socket, shared memory, a private
    directory under `order.scratch` - is given back when it ends, however it ends.
    """

    def __init__(self, order: LoadOrder, clock: Clock, listener: WorkerListener, silence_s: float) -> None:
        self._order = order
        self._clock = clock
        self._listener = listener
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._requests, self._answers = _Arena(), _Arena()
        self._room = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._asked = self._told = 0
        """The batch asked last and the one answered last."""
        self._loaded: asyncio.Future[LoadReport] = self._loop.create_future()
        self._spawned = self._launched = self._leaving = self._exited = self._disconnected = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._heard_s = self._looked_s = 0.0
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def pid(self) -> int:
        """The worker's process id; 0 before it was started."""
        return self._process.pid if self._process else 0

    # Starting.

    async def launch(self) -> LoadReport:
        """Start the worker, wait until it has loaded the version, and return what it says of that.

        Raises what the loading refused with, or LOAD_FAILED when the worker died of it. After a
        failure, cancellation included, nothing of the worker is left.
        """
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            self._give_back()
            raise
        ours.setblocking(False)
        try:
            with theirs:
                await self._loop.create_connection(lambda: self, sock=ours)
                self._spawn(theirs.fileno())
            self._look()
            report = await self._loaded
            self._require_alive()
        except BaseException:
            if self._spawned:
                self.kill()
            else:
                self._unwind(ours)
            await asyncio.shield(self._ended)
            raise
        self._launched = True
        return report

    def _unwind(self, ours: socket.socket) -> None:
        """Give back what a start that failed half-way has taken."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._transport is None:
            ours.close()
        else:
            self._transport.abort()
        self._give_back()

    def _require_alive(self) -> None:
        if self._leaving:
            raise SalverError("LOAD_FAILED", "the worker died as soon as it had loaded the model")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket is ready, before the worker is."""
        # uvloop's transports satisfy asyncio.Transport without being subclasses of it.
        self._transport = cast("asyncio.Transport", transport)

    def _spawn(self, socket_fd: int) -> None:
        assert self._transport is not None
        inherited = (socket_fd, self._requests.fd, self._answers.fd)
        command = [sys.executable, "-m", "salver.runtime.worker", *map(str, (*inherited, os.getpid()))]
        self._room = tempfile.mkdtemp(prefix="worker-", dir=self._order.scratch)
        # On the loop's own thread: the kernel ties the worker's life to the thread that started it.
        self._process = subprocess.Popen(
            command,
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            env=child_environment(self._order.options.threads),
            start_new_session=True,
        )
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._spawned = True
        self._heard_s = self._looked_s = self._clock.monotonic_s()
        order = msgspec.structs.replace(self._order, scratch=self._room, beat_s=self._silence_s / _LOOKS)
        self._transport.write(pack_frame(FrameKind.LOAD, order))

    # Running.

    def run(self, arrays: Arrays) -> None:
        """Send a batch to the worker; the listener hears of it once."""
        assert self._transport is not None
        self._asked += 1
        entries, parts = describe_arrays(arrays)
        total = sum(entry.size_bytes for entry in entries)
        if SHARED_ABOVE_BYTES < total <= ARENA_BYTES:
            self._requests.write(parts)
            self._transport.write(pack_frame(FrameKind.RUN, ArrayHeader(self._asked, entries, shared=True)))
        else:
            self._transport.write(
                b"".join((pack_frame(FrameKind.RUN, ArrayHeader(self._asked, entries), total), *parts))
            )

    def open_stream(self, number: int, arrays: Arrays) -> None:
        """Begin a stream with a number that no other has had; nothing of it runs before `grant`."""
        assert self._transport is not None
        entries, parts = describe_arrays(arrays)
        # Through the socket whatever their size: the shared memory is the batches'.
        total = sum(entry.size_bytes for entry in entries)
        self._transport.write(b"".join((pack_frame(FrameKind.OPEN, ArrayHeader(number, entries), total), *parts)))

    def grant(self, number: int, chunks: int) -> None:
        """Let so many more chunks of a stream come."""
        assert self._transport is not None
        self._transport.write(pack_frame(FrameKind.CREDIT, StreamHeader(number, chunks)))

    def cancel(self, number: int) -> None:
        """End a stream; its last word still comes."""
        assert self._transport is not None
        self._transport.write(pack_frame(FrameKind.CANCEL, StreamHeader(number)))

    def data_received(self, data: bytes) -> None:
        """asyncio: the worker says something."""
        self._heard_s = self._clock.monotonic_s()
        self._buffer += data
        try:
            while len(self._buffer) >= PREFIX.size:
                code, header_bytes, body_bytes = PREFIX.unpack_from(self._buffer)
                kind = FrameKind(code)
                if max(header_bytes, body_bytes) > self._order.memory_bytes:
                    raise ValueError(f"a frame of {header_bytes} and {body_bytes} bytes")  # noqa: TRY301 - garbled as well
                end = PREFIX.size + header_bytes + body_bytes
                if len(self._buffer) < end:
                    if self._launched:
                        self._listener.arriving()
                    return
                frame = bytes(memoryview(self._buffer)[PREFIX.size : end])
                del self._buffer[:end]
                self._take(kind, frame[:header_bytes], memoryview(frame)[header_bytes:])
        except (ValueError, TypeError, SalverError, msgspec.MsgspecError) as error:
            # The socket is the worker's own; whoever writes nonsense into it is not to be trusted.
            log_event("worker_garbled", pid=self.pid, error=error)
            self.kill()

    def _take(self, kind: FrameKind, header: bytes, body: memoryview) -> None:
        listener = self._listener
        if kind is FrameKind.RESULT:
            result = msgspec.msgpack.decode(header, type=ArrayHeader)
            self._require_asked(result.batch)
            listener.answered(self._read(result, body), result.seconds)
        elif kind in (FrameKind.RAISED, FrameKind.BAD_OUTPUT):
            told = msgspec.msgpack.decode(header, type=ProblemHeader)
            self._require_asked(told.batch)
            if kind is FrameKind.RAISED:
                listener.raised(told.problem, told.refusal)
            else:
                listener.bad_output(told.problem)
        elif kind is FrameKind.CHUNK:
            chunk = msgspec.msgpack.decode(header, type=ArrayHeader)
            listener.chunk(chunk.batch, self._read(chunk, body), chunk.seconds)
        elif kind is FrameKind.ENDED:
            listener.ended(msgspec.msgpack.decode(header, type=StreamHeader).stream, kind, "", "")
        elif kind in (FrameKind.STREAM_RAISED, FrameKind.STREAM_BAD_OUTPUT):
            told = msgspec.msgpack.decode(header, type=ProblemHeader)
            listener.ended(told.batch, kind, told.problem, told.refusal)
        elif not self._loaded.done():
            if kind is FrameKind.LOADED:
                self._loaded.set_result(msgspec.msgpack.decode(header, type=LoadReport))
            elif kind is FrameKind.REFUSED:
                refused = msgspec.msgpack.decode(header, type=tuple[str, str, str, str])
                self._loaded.set_exception(LoadFailedError(*refused))

    def _read(self, answer: ArrayHeader, body: memoryview) -> Arrays:
        if answer.shared:
            assert self._transport is not None
            body = memoryview(self._answers.read(sum(entry.size_bytes for entry in answer.arrays)))
            self._transport.write(pack_frame(FrameKind.TAKEN))
        return read_arrays(answer.arrays, body)

    def _require_asked(self, batch: int) -> None:
        """Raise ValueError for an answer to another batch than the one asked last, or a second one to that."""
        if batch != self._asked or batch == self._told:
            raise ValueError(f"an answer to batch {batch}; {self._asked} was asked")
        self._told = batch

    def _look(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s > self._silence_s / 2:
            # It was this loop that stood still: what the worker said meanwhile is yet to be read.
            self._heard_s = now_s
        self._looked_s = now_s
        if now_s - self._heard_s > self._silence_s:
            log_event("worker_silent", pid=self.pid, seconds=now_s - self._heard_s)
            self.kill()
        self._timers = [self._loop.call_later(self._silence_s / _LOOKS, self._look)]

    # Ending. It shows in two ways, in either order: the process exits, and the socket closes once
    # everything it said has been read.

    def kill(self) -> None:
        """End the worker and whatever it started, at once."""
        if self._pidfd >= 0:
            # Until it is waited for, its number belongs to nobody else.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Let the worker unload and end; kill it if that takes long."""
        if not self._leaving and self._transport is not None:
            self._transport.write(pack_frame(FrameKind.STOP))
            await asyncio.wait((self._ended,), timeout=_STOP_S)
        self.kill()
        await asyncio.shield(self._ended)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the socket is closed."""
        del exc
        self._disconnected = True
        if self._spawned:
            self._leave()

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._exited = True
        assert self._transport is not None
        # A process that it detached from its group may hold the socket open.
        self._timers.append(self._loop.call_later(_LAST_WORDS_S, self._transport.abort))
        self._leave()

    def _leave(self) -> None:
        if not self._leaving:
            self._leaving = True
            if self._launched:
                self._listener.leaving()
        self.kill()
        if self._exited and self._disconnected:
            self._bury()

    def _bury(self) -> None:
        assert self._process is not None
        code = self._process.wait()
        os.close(self._pidfd)
        self._pidfd = -1
        cause = _cause(code)
        if not self._loaded.done():
            self._loaded.set_exception(
                SalverError("LOAD_FAILED", f"the worker died while it loaded the model: {cause}")
            )
        self._give_back()
        if self._launched:
            self._listener.died(cause)

    def _give_back(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._requests.close()
        self._answers.close()
        if self._room:
            removed = self._loop.run_in_executor(None, functools.partial(shutil.rmtree, self._room, ignore_errors=True))
            removed.add_done_callback(lambda _: self._ended.set_result(None))
        else:
            self._ended.set_result(None)


class _Arena:
    """A memory file shared with the worker; anonymous, so nothing is left behind by any death."""

    def __init__(self) -> None:
        self._file = io.FileIO(os.memfd_create("salver-arena", os.MFD_CLOEXEC), "r+")
        self._file.truncate(ARENA_BYTES)
        self.fd = self._file.fileno()
        self._map = mmap.mmap(self.fd, ARENA_BYTES)

    def write(self, parts: list[bytes]) -> None:
        self._map.seek(0)
        for part in parts:
            self._map.write(part)

    def read(self, count: int) -> bytes:
        return self._map[:count]

    def close(self) -> None:
        self._map.close()
        self._file.close()


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"signal {-code}"
