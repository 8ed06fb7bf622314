"""`python -m salver.processes.controller ORDER`: the controller. Takes changes, publishes tables.

Serving does not depend on it: while it is away nothing can be changed, and that is all.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec
import uvloop

from salver.clock import SYSTEM_CLOCK
from salver.control.administration import LocalAdministration
from salver.control.api import control_app
from salver.control.listener import ControlLimits, ControlServer
from salver.control.waiting import Watch
from salver.processes.order import Order, Report, tell
from salver.runtime.environment import die_with_parent
from salver.runtime.recorder import FlightRecorder
from salver.runtime.status import EndpointStatus
from salver.security.access import Principal, local_principal
from salver.security.guessing import GuessLimit
from salver.security.tokens import TokenVerifier
from salver.security.unpickling import forbid_unpickling
from salver.storage.database import Database
from salver.storage.home import Home
from salver.storage.publication import PublishedTables
from salver.telemetry.logs import configure_logs

__all__ = ["main"]

_ASK_TIMEOUT_S: Final = 2.0
_BEAT_S: Final = 0.5


def main() -> None:
    """Take changes until told to stop."""
    order = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Order)
    die_with_parent(order.supervisor_pid)
    configure_logs("controller", level=order.settings.server.log_level)
    forbid_unpickling()
    uvloop.run(_control(order))
    sys.stderr.flush()
    os._exit(0)  # a request that still waits in a thread has been answered for by its connection's end


async def _control(order: Order) -> None:
    home = Home.open(order.home)
    server = order.settings.server
    administration = LocalAdministration(
        home,
        Database.open(home.database_path),
        local_principal(),
        SYSTEM_CLOCK,
        endpoints=_EndpointReader(order.server_socket),
    )
    administration.begin()
    authenticate = _PublishedTokens(home)
    app = control_app(
        administration,
        authenticate,
        server.control_host,
        Watch(administration.endpoints),
        repository_moved=server.repository_on_data,
    )
    shared = order.settings.limits
    limits = ControlLimits(
        header_timeout_s=shared.header_timeout_s,
        body_grace_s=shared.body_grace_s,
        body_bytes_per_s=shared.body_bytes_per_s,
        write_stall_s=shared.write_stall_s,
        linger_s=shared.linger_s,
    )
    tls = {"ssl_certfile": server.tls_cert, "ssl_keyfile": server.tls_key} if server.tls_cert else {}
    listeners: tuple[tuple[socket.socket, dict[str, Any]], ...] = (
        # The command line of this machine comes through the Unix socket; its directory is private.
        (socket.socket(fileno=order.control_fd), tls),
        (socket.socket(fileno=order.control_socket_fd), {}),
    )
    servers = [ControlServer(app, limits, options) for _, options in listeners]
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, _stop, servers)
    tasks = [
        asyncio.ensure_future(each.serve(sockets=[listener]))
        for each, (listener, _) in zip(servers, listeners, strict=True)
    ]
    # uvicorn has no event for "started", only the attribute.
    while not all(each.started for each in servers) and not any(task.done() for task in tasks):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    _beat(loop, FlightRecorder(order.pulse_path))
    tell(order, Report())
    await asyncio.gather(*tasks)


def _beat(loop: asyncio.AbstractEventLoop, pulse: FlightRecorder) -> None:
    """Show the supervisor, from now on, that the event loop turns."""
    pulse.beat(SYSTEM_CLOCK.monotonic_s())
    loop.call_later(_BEAT_S, _beat, loop, pulse)


def _stop(servers: list[ControlServer]) -> None:
    for each in servers:
        each.should_exit = True


class _EndpointReader:
    """Asks the server process what its endpoints do; nothing while it does not answer."""

    def __init__(self, server_socket: str) -> None:
        self._http = httpx2.Client(
            base_url="http://localhost", transport=httpx2.HTTPTransport(uds=server_socket), timeout=_ASK_TIMEOUT_S
        )

    def __call__(self) -> tuple[EndpointStatus, ...]:
        try:
            answer = self._http.get("/status")
            return msgspec.json.decode(answer.content, type=tuple[EndpointStatus, ...])
        except (httpx2.HTTPError, msgspec.DecodeError):
            return ()


class _PublishedTokens:
    """Checks tokens against the published snapshot, reading it again when it has changed; slows down who guesses."""

    def __init__(self, home: Home) -> None:
        self._tables = PublishedTables(home)
        self._pepper = home.pepper()
        self._verifier = TokenVerifier((), self._pepper, SYSTEM_CLOCK)
        self._limit = GuessLimit(SYSTEM_CLOCK)

    def __call__(self, peer: str | None, token: str) -> Principal | None:
        tables = self._tables.news()
        if tables is not None:
            self._verifier = TokenVerifier(tables.tokens, self._pepper, SYSTEM_CLOCK, self._verifier)
        return self._limit.principal(peer, token, self._verifier)


if __name__ == "__main__":
    main()
