"""The supervisor: binds the ports, starts the controller and the server processes, replaces them.

It holds the listening sockets and the home's lock for its whole life, so a child that dies is
replaced behind the same ports: connections wait in the kernel meanwhile. A server process that
died or hung while a version computed in it leaves that version's name in the flight recorder,
and the version is moved to a worker of its own before the next start. Nothing that a model
started outlives it, see `orphans`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from salver.clock import Clock
from salver.config import Settings
from salver.control.holding import hold_home
from salver.processes.child import Child
from salver.processes.listeners import Listeners, check_listeners, open_listeners
from salver.processes.order import Order
from salver.processes.orphans import Orphans
from salver.processes.places import Places
from salver.processes.pulse import PulseWatch
from salver.processes.rolling import Rolling
from salver.protocol.errors import SalverError
from salver.runtime.recorder import read_recorder
from salver.storage.home import Home, Serving
from salver.storage.isolation import Cause, isolate
from salver.storage.publication import read_tables
from salver.storage.snapshot import read_json
from salver.telemetry.logs import log_event

__all__ = ["Supervisor"]

_CONTROLLER: Final = "salver.processes.controller"
_SERVER: Final = "salver.processes.server"
_LOOK_S: Final = 0.25
_STOP_CHILD_S: Final = 5.0
_AWAIT_CONTROLLER_S: Final = 5.0
"""How long the server process waits for a controller to repair the published snapshot."""
_HOPELESS: Final = 2
"""After so many deaths of the controller before its first work, serving is announced without it."""
_LONGEST_SOCKET_PATH: Final = 90
"""Unix socket paths hold 107 bytes; beyond this the sockets go to a temporary directory."""
_TEMPORARY: Final = "salver-run-"


class Supervisor:
    """One `salver serve`. `run` returns the exit code when everything has ended.

    With `leash`, a file descriptor, serving also ends when the other end of that pipe closes.
    """

    def __init__(self, home: Home, settings: Settings, clock: Clock, *, leash: int | None = None) -> None:
        self._home = home
        self._settings = settings
        self._clock = clock
        self._leash = leash
        several = settings.server.processes > 1
        self._controller = Child("controller", _CONTROLLER)
        self._servers = [
            Child(f"server-{slot}" if several else "server", _SERVER, slot) for slot in range(settings.server.processes)
        ]
        self._children = {child.role: child for child in (self._controller, *self._servers)}
        self._stopped = asyncio.Event()
        self._announced = False
        self._order: Order | None = None
        self._listeners: Listeners | None = None
        self._orphans = Orphans(lambda: {child.pid for child in self._children.values() if child.pid}, clock)
        self._pulses = PulseWatch(settings.server.hang_s)
        self._rolling = Rolling(settings.server.drain_s + _STOP_CHILD_S)
        self._places: Places | None = None

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; a second signal ends everything at once with 1.

        Raises CONFLICT when another process holds the home, REFUSED_BY_POLICY for an unsafe
        listener, INVALID_SETTING for a port or certificate that cannot be used.
        """
        insecure = check_listeners(self._settings.server)
        with contextlib.ExitStack() as held:
            if hold_home(self._home, "serve", held, self._clock) is not None:
                held.enter_context(self._home.lock("serve"))  # raises, naming the holder
            run_dir = held.enter_context(self._run_dir())
            listeners = self._listeners = open_listeners(self._settings.server, held)
            self._order = self._make_order(listeners, run_dir, insecure, held)
            self._places = Places(self._order.places_path, len(self._servers))
            # From now on commands go to the controller: they wait for it in its socket's queue.
            held.callback(self._home.clear_serving)
            self._home.write_serving(
                Serving(os.getpid(), listeners.http_url, listeners.control_url, listeners.grpc_target, run_dir=run_dir)
            )
            self._listen_for_the_end()
            held.enter_context(self._orphans.adopted())
            held.callback(self._kill_all)
            self._start_all()
            await self._watch()
            self._places.close_all()
            for listener in (*listeners.http, *listeners.grpc):
                listener.close()
            return await self._shut_down()

    def _make_order(self, listeners: Listeners, run_dir: str, insecure: bool, held: contextlib.ExitStack) -> Order:
        inner = held.enter_context(socket.socket(socket.AF_UNIX))
        order = Order(
            home=str(self._home.path),
            run_dir=run_dir,
            settings=self._settings,
            http_fds=tuple(listener.fileno() for listener in listeners.http),
            grpc_fds=tuple(listener.fileno() for listener in listeners.grpc),
            control_fd=listeners.control.fileno(),
            control_socket_fd=inner.fileno(),
            ready_fd=-1,  # each child has its own
            supervisor_pid=os.getpid(),
            credentials_in_clear=insecure,
        )
        inner.bind(order.control_socket)
        inner.listen(64)
        return order

    @contextlib.contextmanager
    def _run_dir(self) -> Iterator[str]:
        path = self._home.run_path
        self._remove_left_behind(path)
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            path = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
        else:
            path.mkdir(mode=0o700)
        try:
            yield str(path)
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _remove_left_behind(self, path: Path) -> None:
        """Remove what a supervisor that was killed could not."""
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(SalverError):
            before = read_json(self._home.serving_path, Serving)
            if before is not None and Path(before.run_dir).name.startswith(_TEMPORARY):
                shutil.rmtree(before.run_dir, ignore_errors=True)

    # Children.

    def _start_all(self) -> None:
        shutil.rmtree(self._home.scratch_path, ignore_errors=True)
        now_s = self._clock.monotonic_s()
        for child in self._children.values():
            child.not_before_s = now_s
        try:
            sound = read_tables(self._home) is not None
        except SalverError as error:
            log_event("tables_unreadable", level=logging.ERROR, problem=str(error))
            sound = False
        if not sound:
            for server in self._servers:
                server.not_before_s += _AWAIT_CONTROLLER_S

    def _start(self, child: Child) -> None:
        order = self._order
        assert order is not None
        if child.slot is None:
            passed: tuple[int, ...] = (order.control_fd, order.control_socket_fd)
        else:
            # All of them: it accepts from those of the others while they have no process.
            order, passed = order.of(child.slot), (*order.http_fds, *order.grpc_fds)
        child.start(order, passed, self._clock.monotonic_s())
        assert child.pipe is not None
        asyncio.get_running_loop().add_reader(child.pipe, self._hear, child)

    async def _watch(self) -> None:
        while not self._stopped.is_set():
            now_s = self._clock.monotonic_s()
            self._pulses.look(now_s)
            for child in self._children.values():
                self._check_pulse(child, now_s)
                if child.process is not None and not child.lives:
                    self._note_death(child, now_s)
                if child.process is None and now_s >= child.not_before_s:
                    self._start(child)
            self._rolling.look(now_s)
            self._orphans.look(now_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), _LOOK_S)

    def _note_death(self, child: Child, now_s: float) -> None:
        assert child.process is not None
        pid, code, hung = child.process.pid, child.process.returncode, child.hung
        orderly = code == 0 or (child.told and child.ended_well)
        if child.slot is not None and self._places is not None:
            self._places.leave(child.slot)
        self._stop_hearing(child)
        pause_s = child.bury(now_s)
        self._orphans.bereaved(now_s)
        if orderly:
            log_event("child_ended", child=child.role, pid=pid)
        else:
            log_event("child_died", level=logging.ERROR, child=child.role, pid=pid, code=code, restart_in_s=pause_s)
        if child.slot is not None:
            self._isolate_suspects(child.slot, Cause.HUNG if hung else Cause.CRASHED)
        self._announce_if_ready()

    def _isolate_suspects(self, slot: int, cause: Cause) -> None:
        assert self._order is not None
        try:
            _, running = read_recorder(self._order.of(slot).recorder_path)
            if running:
                log_event("versions_isolated", level=logging.WARNING, digests=sorted(running))
                isolate(self._home, running, cause, self._clock.wall_s())
        except (OSError, SalverError) as error:
            log_event("isolation_not_recorded", level=logging.ERROR, problem=str(error))

    def _check_pulse(self, child: Child, now_s: float) -> None:
        """Kill a child whose event loop stands still: its death is noted like any other."""
        assert self._order is not None
        if child.process is None:
            return
        path = self._order.pulse_path if child.slot is None else self._order.of(child.slot).recorder_path
        silent_s = self._pulses.hung_s(path, child.started_s, now_s)
        if silent_s is not None:
            log_event("child_hung", level=logging.ERROR, child=child.role, pid=child.process.pid, seconds=silent_s)
            child.hung = True
            child.kill()

    # Reports and readiness.

    def _hear(self, child: Child) -> None:
        pipe = child.pipe
        began = child.hear()
        if child.pipe is None and pipe is not None:
            asyncio.get_running_loop().remove_reader(pipe)
        if began and child is self._controller:
            for server in self._servers:
                if server.process is None and server.failures == 0 and not self._stopped.is_set():
                    self._start(server)  # it waited for the snapshot
        self._announce_if_ready()

    def _stop_hearing(self, child: Child) -> None:
        if child.pipe is not None:
            asyncio.get_running_loop().remove_reader(child.pipe)
            child.close()

    def _announce_if_ready(self) -> None:
        """Print, once, the line that says that everything is ready.

        A controller that cannot begin does not keep a server process that can from serving.
        """
        controller = self._controller
        reports = [server.report for server in self._servers if server.report is not None]
        if self._announced or len(reports) < len(self._servers):
            return
        if controller.report is None and controller.failures < _HOPELESS:
            return
        assert self._listeners is not None
        self._announced = True
        line: dict[str, Any] = {
            "ready": True,
            "http": self._listeners.http_url,
            "grpc": self._listeners.grpc_target,
            "control": self._listeners.control_url,
            "pid": os.getpid(),
            "pids": {
                "controller": controller.pid,
                "servers": [server.pid for server in self._servers],
                "workers": [pid for report in reports for pid in report.workers],
            },
            # What fails in one process mostly fails in all.
            "failed": list({row.get("endpoint"): row for report in reports for row in report.failed}.values()),
        }
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()

    # The end.

    def _listen_for_the_end(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(signal.SIGUSR2, self._rolling.begin, self._servers)
        if self._leash is not None:
            try:
                loop.add_reader(self._leash, self._on_leash, self._leash)
            except OSError:
                raise SalverError(
                    "INVALID_SETTING", "standard input is no pipe, so it never closes", "leave --until-stdin-closes out"
                ) from None

    def _on_leash(self, leash: int) -> None:
        if not os.read(leash, 4096):
            asyncio.get_running_loop().remove_reader(leash)
            if not self._stopped.is_set():
                self._on_signal(signal.SIGINT)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopped.is_set():
            log_event("stopped_at_once", signal=number.name)
            self._kill_all()
            os._exit(1)
        self._stopped.set()
        for server in self._servers:
            if number is signal.SIGINT and server.lives and server.process is not None:
                # Somebody waits at a terminal: no pause for load balancers.
                server.process.send_signal(signal.SIGUSR1)

    async def _shut_down(self) -> int:
        settings = self._settings.server
        drained = await self._end(self._servers, settings.lame_duck_s + settings.drain_s + _STOP_CHILD_S)
        ended = await self._end([self._controller], _STOP_CHILD_S)
        shutil.rmtree(self._home.scratch_path, ignore_errors=True)
        return 0 if drained and ended else 1

    async def _end(self, children: Sequence[Child], patience_s: float) -> bool:
        for child in children:
            child.tell_to_end()
        in_time = await asyncio.gather(*(self._wait(child, patience_s) for child in children))
        return all(in_time) and all(child.ended_well for child in children)

    async def _wait(self, child: Child, patience_s: float) -> bool:
        until_s = self._clock.monotonic_s() + patience_s
        while child.lives:
            if self._clock.monotonic_s() > until_s:
                child.kill()
                return False
            await asyncio.sleep(0.01)
        return True

    def _kill_all(self) -> None:
        for child in self._children.values():
            self._stop_hearing(child)
            child.kill()
        self._orphans.end_all()
