from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from types import SimpleNamespace

from salver.processes.server import _internal_acceptor


def test_the_connections_of_the_controller_are_swept_with_the_others(tmp_path: Path) -> None:
    plane = SimpleNamespace(swept=[])
    path = str(tmp_path / "server.sock")

    async def drive() -> None:
        acceptor = _internal_acceptor(SimpleNamespace(server_socket=path), plane)
        (gateway,) = plane.swept
        with socket.socket(socket.AF_UNIX) as slow:
            slow.connect(path)
            slow.sendall(b"GET /status HTTP/1.1\r\n")
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            while not any(lane._target for lane in gateway.lanes):
                await asyncio.sleep(0)
            for lane in gateway.lanes:
                lane._since_s -= gateway.limits.header_timeout_s + 1
            gateway.sweep()
            assert (await loop.sock_recv(slow, 100)).startswith(b"HTTP/1.1 408 ")
        await acceptor.stop()
        Path(path).unlink()

    asyncio.run(asyncio.wait_for(drive(), 10))
