"""A replica in a worker process of its own: the server's side of the worker.

Isolation is what it is for. A worker that crashes, exits, is killed for memory or stops
answering costs the batch it had; it is replaced at once, and after repeated deaths with growing
pauses, while the version is reported unavailable.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final, cast

import msgspec

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.frames import (
    ARENA_BYTES,
    PREFIX,
    SHARED_ABOVE_BYTES,
    ArrayHeader,
    FrameKind,
    describe_arrays,
    pack_frame,
    read_arrays,
)
from salver.protocol.tables import DeploymentSpec, VersionManifest
from salver.runtime.batch import Batch
from salver.runtime.pool import Pool
from salver.runtime.worker import BEAT_S, LoadOrder
from salver.telemetry.logs import log_event

__all__ = ["WorkerReplica", "restart_delay_s"]

_SILENCE_S: Final = 10 * BEAT_S
"""A worker not heard of for so long is stopped or starved beyond use, and is replaced."""
_PASSED_ON: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
)
"""Environment a worker inherits. Nothing else: the server's environment may hold secrets."""
_CRASH_WINDOW_S: Final = 60.0
_CRASHES_TO_OPEN: Final = 5
_LONGEST_PAUSE_S: Final = 60.0


def restart_delay_s(deaths_lately: int) -> float:
    """Seconds before the next start after so many deaths within a minute.

    >>> [restart_delay_s(n) for n in (1, 2, 3, 4, 9)]
    [0.0, 1.0, 2.0, 4.0, 60.0]
    """
    return 0.0 if deaths_lately <= 1 else min(2.0 ** (deaths_lately - 2), _LONGEST_PAUSE_S)


class WorkerReplica(asyncio.Protocol):
    """One worker process at a time, and what it runs. Lives on the event loop."""

    def __init__(self, pool: Pool, blobs: Path, scratch: Path, clock: Clock) -> None:
        self._pool = pool
        self._order = _order(pool.spec, pool.manifest, blobs, scratch)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._requests, self._answers = _Arena(), _Arena()
        self._buffer = bytearray()
        self._loaded: asyncio.Future[None] | None = None
        self._heard_s = 0.0
        self._deaths: list[float] = []
        self._watch: asyncio.TimerHandle | None = None
        self._restart: asyncio.TimerHandle | None = None
        self._stopped = False
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """The worker's process id while there is one."""
        return self._process.pid if self._process else None

    # Starting.

    async def launch(self) -> None:
        """Start a worker and wait until it has loaded the version.

        Raises what the loading refused with, or LOAD_FAILED when the worker died of it. On
        cancellation the worker is killed.
        """
        ours, theirs = socket.socketpair()
        self._loaded = self._loop.create_future()
        self._buffer.clear()
        self._heard_s = self._clock.monotonic_s()
        inherited = (theirs.fileno(), self._requests.fd, self._answers.fd)
        command = [sys.executable, "-m", "salver.runtime.worker", *map(str, inherited)]
        # On the loop's own thread: the kernel ties the worker's life to the thread that started it.
        self._process = subprocess.Popen(
            command, pass_fds=inherited, stdin=subprocess.DEVNULL, env=_environment(self._order), start_new_session=True
        )
        theirs.close()
        ours.setblocking(False)
        await self._loop.create_connection(lambda: self, sock=ours)
        assert self._transport is not None
        self._transport.write(pack_frame(FrameKind.LOAD, self._order))
        self._watch = self._loop.call_later(BEAT_S, self._look)
        try:
            await self._loaded
        except BaseException:
            self._kill()
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket to the worker is ready."""
        # uvloop's transports satisfy asyncio.Transport without being subclasses of it.
        self._transport = cast("asyncio.Transport", transport)

    # Running.

    def start(self, batch: Batch) -> None:
        """Send `batch` to the worker."""
        assert self._transport is not None
        entries, parts = describe_arrays(batch.inputs)
        total = sum(entry.size_bytes for entry in entries)
        if SHARED_ABOVE_BYTES < total <= ARENA_BYTES:
            self._requests.write(parts)
            self._transport.write(pack_frame(FrameKind.RUN, ArrayHeader(entries, shared=True)))
        else:
            self._transport.write(b"".join((pack_frame(FrameKind.RUN, ArrayHeader(entries), total), *parts)))

    def data_received(self, data: bytes) -> None:
        """asyncio: the worker says something."""
        self._heard_s = self._clock.monotonic_s()
        self._buffer += data
        while len(self._buffer) >= PREFIX.size:
            kind, header_bytes, body_bytes = PREFIX.unpack_from(self._buffer)
            end = PREFIX.size + header_bytes + body_bytes
            if len(self._buffer) < end:
                return
            frame = bytes(memoryview(self._buffer)[PREFIX.size : end])
            del self._buffer[:end]
            self._take(FrameKind(kind), frame[:header_bytes], frame[header_bytes:])

    def _take(self, kind: FrameKind, header: bytes, body: bytes) -> None:
        if kind is FrameKind.RESULT:
            result = msgspec.msgpack.decode(header, type=ArrayHeader)
            content = self._answers.read(sum(entry.size_bytes for entry in result.arrays)) if result.shared else body
            self._pool.finished(self, read_arrays(result.arrays, content), result.seconds)
        elif kind is FrameKind.RAISED:
            self._pool.raised(self, msgspec.msgpack.decode(header, type=str))
        elif kind is FrameKind.BAD_OUTPUT:
            self._pool.bad_output(self, msgspec.msgpack.decode(header, type=str))
        elif self._loaded is not None and not self._loaded.done():
            if kind is FrameKind.LOADED:
                self._loaded.set_result(None)
            elif kind is FrameKind.REFUSED:
                self._loaded.set_exception(SalverError(*msgspec.msgpack.decode(header, type=tuple[str, str, str])))

    # Dying.

    def _look(self) -> None:
        if self._clock.monotonic_s() - self._heard_s > _SILENCE_S:
            log_event("worker_silent", version=self._pool.manifest.reference, pid=self.pid)
            self._kill()
        self._watch = self._loop.call_later(BEAT_S, self._look)

    def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def give_up(self) -> None:
        """Kill the worker, whose batch hangs; a new one is started."""
        self._kill()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the worker is gone, or about to be."""
        del exc
        if self._watch is not None:
            self._watch.cancel()
        self._kill()
        process, self._process, self._transport = self._process, None, None
        assert process is not None
        task = self._loop.create_task(self._bury(process))
        task.add_done_callback(_report_failure)

    async def _bury(self, process: subprocess.Popen[bytes]) -> None:
        code = await self._loop.run_in_executor(None, process.wait)
        if self._stopped:
            return
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if self._loaded is not None and not self._loaded.done():
            self._loaded.set_exception(
                SalverError("LOAD_FAILED", f"the worker died while it loaded the model: {cause}")
            )
            return
        log_event("worker_died", version=self._pool.manifest.reference, pid=process.pid, cause=cause)
        self._pool.lost(self, cause)
        self._schedule_restart()

    def _schedule_restart(self) -> None:
        now_s = self._clock.monotonic_s()
        self._deaths = [at for at in self._deaths if now_s - at < _CRASH_WINDOW_S] + [now_s]
        delay_s = restart_delay_s(len(self._deaths))
        if len(self._deaths) >= _CRASHES_TO_OPEN:
            self._pool.unavailable(
                SalverError(
                    "NOT_READY",
                    f"the workers of {self._pool.manifest.reference} died {len(self._deaths)} times within a minute",
                    f"a new one starts in {delay_s:g} s; see the server's log",
                )
            )
        self._restart = self._loop.call_later(delay_s, self._begin_restart)

    def _begin_restart(self) -> None:
        self._loop.create_task(self._relaunch()).add_done_callback(_report_failure)

    async def _relaunch(self) -> None:
        self.restarts += 1
        try:
            await asyncio.wait_for(self.launch(), self._pool.spec.load_timeout_s)
        except (SalverError, TimeoutError, OSError) as error:
            log_event("worker_restart_failed", version=self._pool.manifest.reference, problem=str(error))
            if not self._stopped:
                self._schedule_restart()
            return
        self._pool.ready(self)

    def stop(self) -> None:
        """Let the worker unload and end."""
        self._stopped = True
        if self._restart is not None:
            self._restart.cancel()
        if self._transport is not None:
            self._transport.write(pack_frame(FrameKind.STOP))
            self._transport.close()
        else:
            self._kill()

    def __repr__(self) -> str:
        return f"<WorkerReplica {self._pool.manifest.reference} pid {self.pid}>"


class _Arena:
    """A memory file shared with the worker; anonymous, so nothing is left behind by any death."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("salver-arena", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, ARENA_BYTES)
        self._map = mmap.mmap(self.fd, ARENA_BYTES)

    def write(self, parts: list[bytes]) -> None:
        self._map.seek(0)
        for part in parts:
            self._map.write(part)

    def read(self, count: int) -> bytes:
        return self._map[:count]

    def __del__(self) -> None:
        self._map.close()
        os.close(self.fd)


def _order(spec: DeploymentSpec, manifest: VersionManifest, blobs: Path, scratch: Path) -> LoadOrder:
    return LoadOrder(manifest, spec.runtime, str(blobs), str(scratch), spec.worker_memory_bytes)


def _environment(order: LoadOrder) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    threads = str(order.options.threads)
    return kept | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}


def _report_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log_event("worker_task_failed", error=error)
