"""The data path of one server process, whole and in this process, whose time a test turns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from salver.app import DataPlane
from salver.cli import main
from salver.config import read_settings
from salver.gateway.lane import Lane
from salver.runtime.recorder import FlightRecorder
from salver.runtime.status import EndpointStatus
from salver.storage.home import Home
from salver.telemetry.metrics import VersionMetrics
from salver.testing import ManualClock, ManualLoop, eventually

HIGH_WATER_BYTES = 64 * 2**10


class House:
    """A home, the clock, and the data plane that serves it: what the server process wires, without processes.

    Changes go through the command line, as they do while no server runs.
    """

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self.home = Home.open(path)
        self.clock = clock
        self.loop: ManualLoop
        self.plane: DataPlane
        self.clients: list[MemoryClient] = []

    async def open(self, settings: Mapping[str, str] | None = None, **wired: Any) -> None:
        """Begin to serve what is deployed, with `settings` of the environment.

        `wired` is what the process is wired to beside, if anything.
        """
        self.home.scratch_path.mkdir(exist_ok=True)
        self.plane = DataPlane(
            self.home,
            read_settings(None, settings or {}),
            FlightRecorder(self.home.path / "recorder"),
            self.home.scratch_path,
            self.clock,
            pepper=self.home.pepper(),
            open_to_anyone=True,
            **wired,
        )
        self.plane.start()
        await self.plane.host.settled()

    async def close(self) -> None:
        """Free everything."""
        for client in self.clients:
            client.leave()
        await self.loop.turn(0.5)  # in which those who have left are dropped
        closing = self.loop.create_task(self.plane.host.close(timeout_s=5.0))
        await eventually(closing.done)
        closing.result()
        self.plane.stop()
        await self.loop.calm()

    def salver(self, *words: str | Path) -> None:
        """Run a command on the home."""
        assert main(["--json", "--home", str(self.home.path), *map(str, words)]) == 0

    async def deploy(self, *words: str) -> None:
        """Deploy, and wait until the data plane has noticed and converged."""
        self.salver("deploy", *words)
        await self.notice()

    async def notice(self) -> None:
        """Wait until a change of the tables has had its effect."""
        await self.loop.turn(0.25)
        await self.plane.host.settled()
        await self.loop.calm()

    def client(self) -> MemoryClient:
        """A new connection."""
        self.clients.append(MemoryClient(self.plane, self.loop))
        return self.clients[-1]

    async def ask(self, endpoint: str, values: Any, **parameters: Any) -> Reply:
        """One request on a connection of its own, which needs no time to be answered."""
        client = self.client()
        client.infer(endpoint, values, **parameters)
        await self.loop.calm()
        return client.reply

    def status(self, endpoint: str) -> EndpointStatus:
        (found,) = [row for row in self.plane.status() if row.endpoint == endpoint]
        return found

    def counted(self, endpoint: str, version: str = "1.0.0") -> VersionMetrics:
        return self.plane.metrics.version(endpoint, version)


class Reply:
    """One HTTP reply."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def code(self) -> str | None:
        return self.headers.get("x-salver-error")

    @property
    def data(self) -> list[float]:
        assert self.status == 200, self.body
        return json.loads(self.body)["outputs"][0]["data"]

    @property
    def version(self) -> str:
        return json.loads(self.body)["model_version"]


class MemoryClient(asyncio.Transport):
    """A client and its connection to the gateway, in memory. It reads unless told otherwise."""

    def __init__(self, plane: DataPlane, loop: ManualLoop) -> None:
        super().__init__()
        self._loop = loop
        self._received = b""
        self._unread = b""
        self._reads = True
        self._closing = False
        self.gone = False
        """Whether the connection has ended."""
        self._lane = Lane(plane.gateway)
        self._lane.connection_made(self)

    # The client.

    def send(self, data: bytes) -> None:
        self._lane.data_received(data)

    def infer(self, endpoint: str, values: Any, **parameters: Any) -> None:
        array = np.asarray(values, np.float32).reshape(-1, 2)
        tensor = {"name": "x", "datatype": "FP32", "shape": list(array.shape), "data": array.ravel().tolist()}
        body = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
        self.send(b"POST /v2/models/%b/infer HTTP/1.1\r\nHost: h\r\n" % endpoint.encode())
        self.send(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    def get(self, path: str, **headers: str) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode())

    def stop_reading(self) -> None:
        self._reads = False

    def read(self, count: int) -> None:
        """Read so many bytes, though not in general."""
        self._take(count)

    def leave(self) -> None:
        """Reset the connection."""
        self.abort()

    @property
    def replies(self) -> list[Reply]:
        """All replies so far, which must be whole."""
        found, rest = [], self._received
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            status, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            length = int(headers["content-length"])
            assert len(rest) >= length, "half a reply"
            found.append(Reply(int(status.split()[1]), headers, rest[:length]))
            rest = rest[length:]
        return found

    @property
    def reply(self) -> Reply:
        """The one reply so far."""
        (reply,) = self.replies
        return reply

    # The transport, as the gateway sees it.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        before = len(self._unread)
        self._unread += data
        if self._reads:
            self._take(len(self._unread))
        elif before <= HIGH_WATER_BYTES < len(self._unread):
            self._lane.pause_writing()

    def _take(self, count: int) -> None:
        before = len(self._unread)
        self._received += self._unread[:count]
        self._unread = self._unread[count:]
        if before > HIGH_WATER_BYTES >= len(self._unread):
            self._lane.resume_writing()
        if self._closing and not self._unread:
            self._end()

    def get_write_buffer_size(self) -> int:
        return len(self._unread)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._unread:
                self._end()

    def abort(self) -> None:
        self._closing = True
        self._end()

    def _end(self) -> None:
        if not self.gone:
            self.gone = True
            self._loop.call_soon(self._lane.connection_lost, None)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default
