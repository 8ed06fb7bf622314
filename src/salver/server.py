"""`salver.Server`: a serving home from Python, for notebooks, tests and embedding."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from salver.protocol.errors import CATALOGUE, SalverError

__all__ = ["Server"]

_START_S: Final = 180.0
_STOP_S: Final = 60.0


class Server:
    """`salver serve` on a home for as long as the block lasts.

    The very processes that the command starts, so nothing here behaves differently; they end
    with this process whatever becomes of it. `http`, `grpc`, `control`, `pid`, `pids` and `failed` are
    those of the command's ready line. Entering raises `SalverError` with what the command
    refused to start with, leaving `RuntimeError` when serving could not be ended cleanly.

    Examples:
        >>> async def first_prediction(home):
        ...     async with Server(home=home) as server:
        ...         return server.http
    """

    def __init__(
        self,
        home: Path | str,
        *,
        http: int = 0,
        grpc: int | None = None,
        control: int = 0,
        processes: int = 1,
        lame_duck_s: float = 0.0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._home = Path(home)
        self._arguments = ["--http", str(http), "--control", str(control), "--until-stdin-closes"]
        if processes != 1:
            self._arguments += ["--processes", str(processes)]
        if grpc is not None:
            self._arguments += ["--grpc", str(grpc)]
        self._environment = {"SALVER_SERVER_LAME_DUCK_S": str(lame_duck_s)} | (environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self._log: _Log | None = None
        self.http = ""
        self.grpc: str | None = None
        self.control = ""
        self.pid = 0
        self.pids: dict[str, Any] = {}
        self.failed: list[dict[str, str]] = []

    async def __aenter__(self) -> Self:
        self._log = _Log()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "salver", "--json", "--home", str(self._home), "serve"),
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=self._log.write_end,
                env=os.environ | self._environment,
                process_group=0,  # Ctrl-C is for this process, which ends that one
            )
        finally:
            self._log.begin()
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), _START_S)
        except BaseException:
            await self._stop()
            raise
        if not line:
            code = await self._process.wait()
            raise self._log.refusal() or SalverError("NOT_READY", f"salver serve ended with code {code}", "see its log")
        ready = msgspec.json.decode(line)
        self.http, self.grpc, self.control = ready["http"], ready["grpc"], ready["control"]
        self.pid, self.pids, self.failed = ready["pid"], ready["pids"], ready["failed"]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = await self._stop()
        if code and error is None:
            raise RuntimeError(f"salver serve ended with code {code}")

    async def _stop(self) -> int:
        process = self._process
        assert process is not None
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            return await process.wait()

    def __repr__(self) -> str:
        return f"<Server {self._home} at {self.http or 'nowhere yet'}>"


class _Log:
    """Passes the log of the processes on to this process's standard error, and finds the refusal in it.

    A thread, because nobody may wait for this process's event loop in order to log.
    """

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        self._last = b""
        self._thread = threading.Thread(target=self._pass_on, name="salver log", daemon=True)

    def begin(self) -> None:
        """Begin to read; REQUIRES that the processes have the other end now."""
        os.close(self.write_end)
        self._thread.start()

    def _pass_on(self) -> None:
        with os.fdopen(self._read_end, "rb") as lines:
            for line in lines:
                self._last = line
                with contextlib.suppress(ValueError, OSError):  # standard error may be closed
                    sys.stderr.write(line.decode(errors="replace"))

    def refusal(self) -> SalverError | None:
        """What the command said last, if that was why it refused; REQUIRES that it has ended."""
        self._thread.join(timeout=5.0)
        with contextlib.suppress(msgspec.DecodeError, KeyError, TypeError):
            said = msgspec.json.decode(self._last)["error"]
            if said["code"] in CATALOGUE:
                return SalverError(said["code"], said["message"], said["remedy"])
        return None
