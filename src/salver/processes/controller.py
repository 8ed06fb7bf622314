"""`python -m salver.processes.controller ORDER`: the controller. Takes changes, publishes tables.

Serving does not depend on it: while it is away nothing can be changed, and that is all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx2
import msgspec
import uvloop

from salver.clock import SYSTEM_CLOCK
from salver.control.administration import LocalAdministration
from salver.control.api import control_app
from salver.control.change_deliveries import ChangeDeliveries
from salver.control.job_deliveries import JobDeliveries
from salver.control.listener import ControlLimits, ControlServer
from salver.control.model_store import ModelStore
from salver.control.republishing import Republishing
from salver.control.retraining import Retraining
from salver.control.sealing import keep_sealed, seal_at_end
from salver.control.waiting import Watch
from salver.control.webhook_sender import Sender
from salver.processes.embedder import ServedEmbedder
from salver.processes.order import Order, Report, tell
from salver.protocol.errors import SalverError
from salver.protocol.jobs import JobLimits
from salver.registry.webhooks import WebhookRecord
from salver.runtime.environment import die_with_parent
from salver.runtime.recorder import FlightRecorder
from salver.runtime.status import ProcessState, ProcessStatus
from salver.security.access import Principal, local_principal
from salver.security.guessing import GuessLimit
from salver.security.tokens import TokenVerifier
from salver.security.unpickling import forbid_unpickling
from salver.storage.database import open_database
from salver.storage.home import Home
from salver.storage.job_ledger import JobLedger
from salver.storage.opening import open_blobs
from salver.storage.owners import this_process
from salver.storage.publication import PublishedTables
from salver.telemetry.logs import configure_logs, log_event

__all__ = ["main"]

_ASK_TIMEOUT_S: Final = 2.0
_BEAT_S: Final = 0.5
_USAGE_S: Final = 5.0


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
        open_database(home),
        local_principal(),
        SYSTEM_CLOCK,
        processes=_ProcessReader(order),
        job_limits=order.settings.jobs,
        embed=ServedEmbedder(home, server.tls_cert),
    )
    administration.begin()
    authenticate = _PublishedTokens(home)
    app = control_app(
        administration,
        authenticate,
        server.control_host,
        Watch(administration.endpoints),
        repository_moved=server.repository_on_data,
        store=ModelStore(Path(server.model_store), open_blobs(home)) if server.model_store else None,
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
    background = [
        *(asyncio.ensure_future(each.run()) for each in _deliveries(home, administration, order.settings.jobs)),
        asyncio.ensure_future(_keep_usage(administration)),
        asyncio.ensure_future(Retraining(home, administration, SYSTEM_CLOCK).run()),
        asyncio.ensure_future(keep_sealed(administration.records.audit)),
    ]
    republishing = Republishing(administration.records.deployments.revision, administration.publish)
    background.append(asyncio.ensure_future(republishing.run()))
    await asyncio.gather(*tasks)
    for task in background:
        task.cancel()
    await seal_at_end(administration.records.audit)


def _deliveries(
    home: Home, administration: LocalAdministration, limits: JobLimits
) -> tuple[JobDeliveries, ChangeDeliveries]:
    """What tells webhooks of jobs, and of changes."""

    def webhooks() -> dict[str, WebhookRecord]:
        return {webhook.name: webhook for webhook in administration.records.webhooks.list()}

    ledger = JobLedger(home.jobs_path, limits, SYSTEM_CLOCK, this_process())
    sender = Sender(home.pepper(), limits.delivery_s, SYSTEM_CLOCK)
    return (
        JobDeliveries(ledger, webhooks, limits, sender, SYSTEM_CLOCK),
        ChangeDeliveries(administration.records.change_positions, sender, limits.deliveries, SYSTEM_CLOCK),
    )


async def _keep_usage(administration: LocalAdministration) -> None:
    """Take what the server processes have counted into the database, for as long as this process lives."""
    while True:
        try:
            await asyncio.to_thread(administration.keep_usage)
        except (SalverError, OSError) as error:
            log_event("usage_unreadable", level=logging.WARNING, problem=str(error))
        except Exception as error:  # noqa: BLE001 - the next look may succeed
            log_event("fault", level=logging.ERROR, error=error)
        await asyncio.sleep(_USAGE_S)


def _beat(loop: asyncio.AbstractEventLoop, pulse: FlightRecorder) -> None:
    """Show the supervisor, from now on, that the event loop turns."""
    pulse.beat(SYSTEM_CLOCK.monotonic_s())
    loop.call_later(_BEAT_S, _beat, loop, pulse)


def _stop(servers: list[ControlServer]) -> None:
    for each in servers:
        each.should_exit = True


class _ProcessReader:
    """Asks the server processes, all at once, what they do; whoever does not answer is absent."""

    def __init__(self, order: Order) -> None:
        self._sockets = [order.of(slot).server_socket for slot in range(len(order.http_fds))]
        self._clients = [
            httpx2.Client(base_url="http://localhost", transport=httpx2.HTTPTransport(uds=path), timeout=_ASK_TIMEOUT_S)
            for path in self._sockets
        ]
        self._threads = ThreadPoolExecutor(len(self._clients), thread_name_prefix="processes")

    def __call__(self) -> tuple[ProcessStatus, ...]:
        return tuple(self._threads.map(self._ask, range(len(self._clients))))

    def _ask(self, slot: int) -> ProcessStatus:
        try:
            answer = self._clients[slot].get("/status")
            return msgspec.json.decode(answer.content, type=ProcessStatus)
        except (httpx2.HTTPError, msgspec.DecodeError):
            return ProcessStatus(slot, 0, ProcessState.ABSENT)


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
