"""The supervisor: binds the ports, starts the controller and the server process, replaces them.

It holds the listening sockets and the home's lock for its whole life, so a child that dies is
replaced behind the same ports: connections wait in the kernel meanwhile. A server process that
died or hung while a version computed in it leaves that version's name in the flight recorder,
and the version is moved to a worker of its own before the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from salver.clock import Clock
from salver.config import Settings
from salver.processes.order import Order, Report, write_order
from salver.protocol.errors import SalverError
from salver.protocol.tables import Tables
from salver.runtime.recorder import read_recorder
from salver.security.binding import Binding, check_binding
from salver.storage.home import Home, Serving
from salver.storage.isolation import isolate
from salver.storage.publication import read_tables
from salver.telemetry.logs import log_event

__all__ = ["Supervisor"]

_ROLES: Final = {"controller": "salver.processes.controller", "server": "salver.processes.server"}
_LOOK_S: Final = 0.25
_STOP_CHILD_S: Final = 5.0
_CALM_S: Final = 10.0
"""A child that lived for so long is replaced at once; one that died younger, after a pause."""
_LONGEST_PAUSE_S: Final = 30.0
_LONGEST_SOCKET_PATH: Final = 90
"""Unix socket paths hold 107 bytes; beyond this the sockets go to a temporary directory."""


class _Child:
    """One child process by role: restarted under the same order."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0
        self.deaths = 0
        self.not_before_s = 0.0
        self.report: Report | None = None


class Supervisor:
    """One `salver serve`. `run` returns the exit code when everything has ended."""

    def __init__(self, home: Home, settings: Settings, clock: Clock) -> None:
        self._home = home
        self._settings = settings
        self._clock = clock
        self._children = {role: _Child(role) for role in _ROLES}
        self._stopping = False
        self._announced = False
        self._order: Order | None = None
        self._urls: dict[str, str] = {}
        self._pipe_rest = b""

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; a second signal ends everything at once with 1.

        Raises CONFLICT when another process holds the home, REFUSED_BY_POLICY for an unsafe
        listener, INVALID_SETTING for a port or certificate that cannot be used.
        """
        insecure = self._check_bindings()
        with self._home.lock("serve"), self._run_dir() as run_dir, contextlib.ExitStack() as sockets:
            read_end, write_end = os.pipe()
            data, control = self._bind_both(sockets)
            inner = sockets.enter_context(socket.socket(socket.AF_UNIX))
            self._order = Order(
                home=str(self._home.path),
                run_dir=run_dir,
                settings=self._settings,
                http_fd=data.fileno(),
                control_fd=control.fileno(),
                control_socket_fd=inner.fileno(),
                ready_fd=write_end,
                supervisor_pid=os.getpid(),
                credentials_in_clear=insecure,
            )
            inner.bind(self._order.control_socket)
            inner.listen(64)
            write_order(self._order, self._order_path)
            loop = asyncio.get_running_loop()
            loop.add_reader(read_end, self._read_reports, read_end)
            stopped = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_signal, number, stopped)
            try:
                for child in self._children.values():
                    self._start(child)
                await self._watch(stopped)
                data.close()
                return await self._shut_down()
            finally:
                self._kill_all()
                self._home.clear_serving()

    # Listeners.

    def _check_bindings(self) -> bool:
        server = self._settings.server
        tokens = (read_tables(self._home) or Tables()).tokens
        bindings: list[Binding] = [
            check_binding(
                server.host,
                has_tls=bool(server.tls_cert),
                has_credentials=server.require_token and bool(tokens),
                insecure=server.insecure,
            ),
            # The control listener always asks for a token.
            check_binding(
                server.control_host, has_tls=bool(server.tls_cert), has_credentials=True, insecure=server.insecure
            ),
        ]
        insecure = any(binding.insecure for binding in bindings)
        if insecure:
            log_event("insecure", problem="listening beyond this machine without TLS or tokens")
        return insecure

    def _bind_both(self, sockets: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
        server = self._settings.server
        scheme = "https" if server.tls_cert else "http"
        bound = []
        for name, host, port in (
            ("http", server.host, server.http),
            ("control", server.control_host, server.control),
        ):
            listener = sockets.enter_context(_bind(host, port))
            shown = f"[{host}]" if ":" in host else host
            self._urls[name] = f"{scheme}://{shown}:{listener.getsockname()[1]}"
            bound.append(listener)
        return bound[0], bound[1]

    @contextlib.contextmanager
    def _run_dir(self) -> Iterator[str]:
        path = self._home.path / "run"
        shutil.rmtree(path, ignore_errors=True)
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            path = Path(tempfile.mkdtemp(prefix="salver-"))
        else:
            path.mkdir(mode=0o700)
        try:
            yield str(path)
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @property
    def _order_path(self) -> Path:
        assert self._order is not None
        return Path(self._order.run_dir) / "order.json"

    # Children.

    def _start(self, child: _Child) -> None:
        order = self._order
        assert order is not None
        passed = {
            "server": (order.http_fd, order.ready_fd),
            "controller": (order.control_fd, order.control_socket_fd, order.ready_fd),
        }[child.role]
        child.report = None
        child.started_s = self._clock.monotonic_s()
        child.process = subprocess.Popen(
            [sys.executable, "-m", _ROLES[child.role], str(self._order_path)],
            pass_fds=passed,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
        )

    async def _watch(self, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            now_s = self._clock.monotonic_s()
            self._check_heartbeat(now_s)
            for child in self._children.values():
                if child.process is not None and child.process.poll() is not None:
                    self._note_death(child, now_s)
                if child.process is None and now_s >= child.not_before_s:
                    self._start(child)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), _LOOK_S)

    def _note_death(self, child: _Child, now_s: float) -> None:
        assert child.process is not None
        code = child.process.returncode
        child.deaths = 1 if now_s - child.started_s > _CALM_S else child.deaths + 1
        pause_s = min(0.5 * 2.0 ** (child.deaths - 2), _LONGEST_PAUSE_S) if child.deaths > 1 else 0.0
        log_event("child_died", child=child.role, pid=child.process.pid, code=code, restart_in_s=pause_s)
        child.process = None
        child.not_before_s = now_s + pause_s
        if child.role == "server":
            self._isolate_suspects()

    def _isolate_suspects(self) -> None:
        assert self._order is not None
        with contextlib.suppress(OSError):
            _, running = read_recorder(self._order.recorder_path)
            if running:
                log_event("versions_isolated", digests=sorted(running))
                isolate(self._home, running)

    def _check_heartbeat(self, now_s: float) -> None:
        assert self._order is not None
        child = self._children["server"]
        hang_s = self._settings.server.hang_s
        if child.process is None or now_s - child.started_s < hang_s:
            return
        try:
            beat_s, _ = read_recorder(self._order.recorder_path)
        except OSError:
            return
        if now_s - max(beat_s, child.started_s) > hang_s:
            log_event("server_hung", pid=child.process.pid, seconds=now_s - beat_s)
            child.process.kill()

    # Reports and readiness.

    def _read_reports(self, read_end: int) -> None:
        *lines, self._pipe_rest = (self._pipe_rest + os.read(read_end, 65536)).split(b"\n")
        for line in lines:
            report = msgspec.json.decode(line, type=Report)
            self._children[report.role].report = report
        if not self._announced and all(child.report for child in self._children.values()):
            self._announce()

    def _announce(self) -> None:
        """Print the one line that says that everything is ready."""
        self._announced = True
        assert self._order is not None
        server, controller = self._children["server"], self._children["controller"]
        assert server.report is not None
        assert server.process is not None
        assert controller.process is not None
        self._home.write_serving(
            Serving(os.getpid(), self._urls["http"], self._urls["control"], run_dir=self._order.run_dir)
        )
        line: dict[str, Any] = {
            "ready": True,
            "http": self._urls["http"],
            "grpc": None,
            "control": self._urls["control"],
            "pid": os.getpid(),
            "pids": {
                "controller": controller.process.pid,
                "servers": [server.process.pid],
                "workers": list(server.report.workers),
            },
            "failed": list(server.report.failed),
        }
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()

    # The end.

    def _on_signal(self, number: signal.Signals, stopped: asyncio.Event) -> None:
        if self._stopping:
            log_event("stopped_at_once", signal=number.name)
            self._kill_all()
            os._exit(1)
        self._stopping = True
        if number is signal.SIGINT:
            self._drop_lame_duck()
        stopped.set()

    def _drop_lame_duck(self) -> None:
        """On Ctrl-C somebody waits at a terminal: no pause for load balancers."""
        assert self._order is not None
        server = self._children["server"].process
        if server is not None and server.poll() is None:
            server.send_signal(signal.SIGUSR1)

    async def _shut_down(self) -> int:
        server = self._settings.server
        patience = {"server": server.lame_duck_s + server.drain_s + _STOP_CHILD_S, "controller": _STOP_CHILD_S}
        clean = True
        for role in ("server", "controller"):
            process = self._children[role].process
            if process is None or process.poll() is not None:
                continue
            process.terminate()
            clean &= await self._wait(process, patience[role])
        return 0 if clean else 1

    async def _wait(self, process: subprocess.Popen[bytes], patience_s: float) -> bool:
        until_s = self._clock.monotonic_s() + patience_s
        while process.poll() is None:
            if self._clock.monotonic_s() > until_s:
                process.kill()
                process.wait()
                return False
            await asyncio.sleep(0.01)
        return process.returncode == 0

    def _kill_all(self) -> None:
        for child in self._children.values():
            if child.process is not None and child.process.poll() is None:
                child.process.kill()
                child.process.wait()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        raise SalverError(
            "INVALID_SETTING",
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            "free the port, choose another, or use 0 for any free one",
        ) from None
    return listener
