"""`salver.Server`: a serving home from Python, for notebooks, tests and embedding."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from salver.protocol.errors import SalverError

__all__ = ["Server"]

_START_S: Final = 180.0
_STOP_S: Final = 60.0


class Server:
    """`salver serve` on a home for as long as the block lasts.

    The very processes that the command starts, so nothing here behaves differently. `http`,
    `control`, `pid`, `pids` and `failed` are those of the command's ready line. Entering raises
    `SalverError` with what the command refused to start with.

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
        control: int = 0,
        lame_duck_s: float = 0.0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self._home = Path(home)
        self._arguments = ("--http", str(http), "--control", str(control))
        self._environment = {"SALVER_SERVER_LAME_DUCK_S": str(lame_duck_s)} | (environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self.http = ""
        self.control = ""
        self.pid = 0
        self.pids: dict[str, Any] = {}
        self.failed: list[dict[str, str]] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "salver", "--json", "--home", str(self._home), "serve"),
            *self._arguments,
            stdout=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            env=os.environ | self._environment,
        )
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), _START_S)
        except BaseException:
            await self._stop()
            raise
        if not line:
            code = await self._process.wait()
            raise SalverError("NOT_READY", f"salver serve ended with code {code}", "see its standard error")
        ready = msgspec.json.decode(line)
        self.http, self.control = ready["http"], ready["control"]
        self.pid, self.pids, self.failed = ready["pid"], ready["pids"], ready["failed"]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    def __repr__(self) -> str:
        return f"<Server {self._home} at {self.http or 'nowhere yet'}>"
