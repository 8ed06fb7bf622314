"""A control listener in this process: the real application on real sockets, on a home of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import Answer, ask, until

from salver.clock import SYSTEM_CLOCK
from salver.control.actions.tokens import CREATE_TOKEN, TokenRequest
from salver.control.administration import LocalAdministration
from salver.control.api import control_app
from salver.control.listener import ControlLimits, ControlServer
from salver.control.uploads import Transfers
from salver.control.waiting import Watch
from salver.security.access import local_principal
from salver.security.tokens import TokenVerifier
from salver.storage.database import open_database
from salver.storage.home import Home

__all__ = ["Listening", "listening"]


class Listening:
    """The listener, its administration and its tokens."""

    def __init__(self, home: Path, transfers: Transfers | None, tls: dict[str, Any] | None) -> None:
        self.home = Home.open(home)
        self.database = open_database(self.home)
        self.admin = LocalAdministration(self.home, self.database, local_principal(), SYSTEM_CLOCK)
        self.admin.begin()
        listener = socket.create_server(("127.0.0.1", 0))
        # asyncio sets TCP_NODELAY only where the protocol is said; without it each answer takes 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, listener.detach())
        self._limits = ControlLimits()
        self._transfers = transfers
        self._tls = tls
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://localhost:{self._socket.getsockname()[1]}"
        self.server: ControlServer | None = None
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def _principal(self, _: str | None, token: str) -> Any:
        tokens = self.admin.records.deployments.tables().tokens
        return TokenVerifier(tokens, self.home.pepper(), SYSTEM_CLOCK).verify(token)

    async def _serve(self) -> None:
        app = control_app(
            self.admin, self._principal, "127.0.0.1", Watch(self.admin.endpoints), transfers=self._transfers
        )
        self.server = ControlServer(app, self._limits, self._tls)
        await self.server.serve(sockets=[self._socket])

    def token(self, role: str = "admin", name: str | None = None) -> str:
        return self.admin.do(CREATE_TOKEN, TokenRequest(name or f"{role}-{threading.get_ident()}", role)).token

    def ask(self, method: str, path: str, body: Any = None, *, token: str, **options: Any) -> Answer:
        return ask(self.url, method, path, body, token=token, **options)

    def blobs(self) -> list[str]:
        """All files of the artifact store but its lock, whether they are finished or not."""
        found = [path for path in self.home.blobs_path.rglob("*") if path.is_file()]
        return sorted(path.name for path in found if path.name != ".lock")


@contextlib.contextmanager
def listening(
    home: Path, *, transfers: Transfers | None = None, tls: dict[str, Any] | None = None
) -> Iterator[Listening]:
    """Serve until the block ends."""
    made = Listening(home, transfers, tls)
    made.thread.start()
    until(lambda: made.server and made.server.started, "the listener is there")
    try:
        yield made
    finally:
        assert made.server is not None
        made.server.should_exit = True
        made.thread.join(10)
        assert not made.thread.is_alive()
        made.database.close()
