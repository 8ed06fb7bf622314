"""`python -m salver.processes.server ORDER`: the server process. Data path only."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

from salver.app import DataPlane
from salver.clock import SYSTEM_CLOCK
from salver.gateway.acceptor import Acceptor
from salver.gateway.exchange import Exchange
from salver.gateway.gateway import Gateway
from salver.gateway.limits import Limits
from salver.gateway.repository import ask_controller
from salver.gateway.routes import HttpRoute, HttpRouteTable
from salver.processes.listeners import tls_context
from salver.processes.order import Order, Report, tell
from salver.processes.places import Places
from salver.processes.siblings import Siblings, StandIn
from salver.runtime.environment import die_with_parent, keep_one_heap
from salver.runtime.recorder import FlightRecorder
from salver.runtime.status import LoadState, ProcessState, ProcessStatus
from salver.security.access import ANONYMOUS
from salver.security.unpickling import forbid_unpickling
from salver.storage.home import Home
from salver.telemetry.logs import AccessSample, configure_logs, log_event
from salver.telemetry.metrics import Metrics

__all__ = ["main"]

_HEAD_START_S: Final = 2.0
"""How long connections wait in the kernel for the versions to load, where no other process takes them."""
_LOOK_S: Final = 0.1


def main() -> None:
    """Serve until told to stop."""
    order = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Order)
    die_with_parent(order.supervisor_pid)
    several = len(order.http_fds) > 1
    configure_logs(f"server-{order.slot}" if several else "server", level=order.settings.server.log_level)
    forbid_unpickling()
    if order.settings.server.memory_bytes:
        keep_one_heap()
    uvloop.run(_serve(order))
    # Everything owed has been given. A load that is still under way in a thread, perhaps for
    # ever, would keep the interpreter from ending.
    sys.stderr.flush()
    os._exit(0)


async def _serve(order: Order) -> None:
    home = Home.open(order.home)
    server = order.settings.server
    scratch = home.scratch_path / str(order.slot)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700, parents=True)
    several = len(order.http_fds) > 1
    plane = DataPlane(
        home,
        order.settings,
        FlightRecorder(order.recorder_path),
        scratch,
        SYSTEM_CLOCK,
        pepper=home.pepper(),
        open_to_anyone=not server.require_token,
        controller=functools.partial(ask_controller, order.control_socket) if server.repository_on_data else None,
        siblings=Siblings(order).pictures if several else None,
        counts_path=order.counts_path if several else None,
    )
    plane.metrics.insecure = order.credentials_in_clear
    plane.start()
    places = Places(order.places_path, len(order.http_fds))
    make = functools.partial(_data_acceptors, order, plane)
    acceptors = make(order.slot)
    stand_in = StandIn(places, [slot for slot in range(len(order.http_fds)) if slot != order.slot], make)
    internal = _internal_acceptor(order, plane)
    stopping = asyncio.Event()
    hurried = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    loop.add_signal_handler(signal.SIGUSR1, hurried.set)
    settled = asyncio.ensure_future(plane.host.settled())
    stop = asyncio.ensure_future(stopping.wait())
    await _head_start(settled, stop, places, order.slot)
    for acceptor in acceptors:
        acceptor.start()
    places.take(order.slot)
    stand_in.start()
    await asyncio.wait((settled, stop), return_when=asyncio.FIRST_COMPLETED)
    if settled.done():
        # What is loaded now stays: collections need not look at it again and again.
        gc.collect()
        gc.freeze()
        tell(order, _ready_report(plane))
        await stop
    settled.cancel()
    loop.add_signal_handler(signal.SIGTERM, os._exit, 1)
    places.leave(order.slot)
    acceptors += stand_in.leave()
    # Where only this process leaves, the others accept for it from now on.
    lame_duck_s = server.lame_duck_s if places.closing and not hurried.is_set() else 0.0
    await _drain(plane, acceptors, lame_duck_s, server.drain_s)
    if several:
        plane.leave_counts()
    await internal.stop()
    plane.stop()
    shutil.rmtree(scratch, ignore_errors=True)


async def _head_start(settled: asyncio.Future[None], stop: asyncio.Future[Any], places: Places, slot: int) -> None:
    """Wait until connections are better accepted than left in the kernel.

    What loads quickly answers the first connection, and a process that replaces another goes
    unnoticed. Where others accept meanwhile, everything that loads may take its time.
    """
    until_s = SYSTEM_CLOCK.monotonic_s() + _HEAD_START_S
    while not settled.done() and not stop.done():
        left_s = until_s - SYSTEM_CLOCK.monotonic_s()
        if left_s <= 0 and not places.others_serve(slot):
            break
        await asyncio.wait(
            (settled, stop), return_when=asyncio.FIRST_COMPLETED, timeout=left_s if left_s > 0 else _LOOK_S
        )


def _data_acceptors(order: Order, plane: DataPlane, slot: int) -> list[Acceptor]:
    server = order.settings.server
    acceptors = [Acceptor(socket.socket(fileno=order.http_fds[slot]), plane.gateway, tls_context(server))]
    if order.grpc_fds:
        from salver.gateway.grpc.lane import GrpcLane, grpc_refusal  # noqa: PLC0415 - only this listener needs protobuf

        lane = functools.partial(GrpcLane, methods=plane.grpc_methods())
        listener = socket.socket(fileno=order.grpc_fds[slot])
        acceptors.append(Acceptor(listener, plane.gateway, tls_context(server, "h2"), lane, grpc_refusal))
    return acceptors


def _internal_acceptor(order: Order, plane: DataPlane) -> Acceptor:
    """The Unix socket on which the controller asks what this process does, and the others what it has counted."""

    def status(exchange: Exchange) -> None:
        state = ProcessState.LEAVING if plane.gateway.draining else ProcessState.SERVING
        exchange.reply_json(
            ProcessStatus(order.slot, os.getpid(), state, len(plane.gateway.lanes), tuple(plane.status()))
        )

    def counts(exchange: Exchange) -> None:
        # Written down before it is told: what was shown once is never taken back.
        exchange.reply(plane.leave_counts(), content_type=b"application/msgpack")

    listener = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(FileNotFoundError):
        Path(order.server_socket).unlink()
    listener.bind(order.server_socket)
    listener.listen(16)
    gateway = Gateway(
        HttpRouteTable(
            [
                HttpRoute("GET", "/status", None, status, "What this process and each endpoint does now"),
                HttpRoute("GET", "/counts", None, counts, "What it has counted"),
            ]
        ),
        Limits(connections=16),
        Metrics(),
        SYSTEM_CLOCK,
        authenticate=lambda _, __: ANONYMOUS,
        open_to_anyone=True,
        id_prefix="internal",
        access=AccessSample(0),
    )
    plane.swept.append(gateway)
    acceptor = Acceptor(listener, gateway)
    acceptor.start()
    return acceptor


def _ready_report(plane: DataPlane) -> Report:
    status = plane.status()
    failed = tuple(
        {
            "endpoint": row.endpoint,
            "version": row.wanted,
            "code": row.code or "",
            "error": row.problem or "",
            "cause": row.cause or "",
        }
        for row in status
        if row.state is LoadState.FAILED
    )
    return Report(failed=failed, workers=tuple(pid for row in status for pid in row.workers))


async def _drain(plane: DataPlane, acceptors: Iterable[Acceptor], lame_duck_s: float, drain_s: float) -> None:
    """Readiness goes first, then new connections, then what is in flight."""
    gateway = plane.gateway
    gateway.drain()
    plane.jobs.stop_taking()
    log_event("draining", lame_duck_s=lame_duck_s)
    await asyncio.sleep(lame_duck_s)
    for acceptor in acceptors:
        await acceptor.stop()
    gateway.close_idle()
    until_s = SYSTEM_CLOCK.monotonic_s() + drain_s
    while gateway.owes and SYSTEM_CLOCK.monotonic_s() < until_s:
        await asyncio.sleep(0.01)
        gateway.close_idle()
    if gateway.owes:
        log_event("drain_timed_out", unanswered=gateway.owes)
    await plane.jobs.close(max(0.0, until_s - SYSTEM_CLOCK.monotonic_s()))
    await plane.host.close(timeout_s=5.0)


if __name__ == "__main__":
    main()
