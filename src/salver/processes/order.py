"""What the supervisor tells a child, and how a child dies with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

import msgspec

from salver.config import Settings

__all__ = ["Order", "Report", "die_with_parent", "tell", "write_order"]

_PR_SET_PDEATHSIG = 1


class Order(msgspec.Struct, frozen=True):
    """Everything a child needs: where the home is, its inherited sockets, the settings.

    `run_dir` is a private directory for Unix sockets and the flight recorder; it goes with the
    supervisor.
    """

    home: str
    run_dir: str
    settings: Settings
    http_fd: int
    control_fd: int
    control_socket_fd: int
    ready_fd: int
    supervisor_pid: int
    credentials_in_clear: bool = False
    """Listening beyond this machine with --insecure."""

    @property
    def recorder_path(self) -> Path:
        """The flight recorder of the server process."""
        return Path(self.run_dir) / "recorder"

    @property
    def server_socket(self) -> str:
        """Where the server process answers the controller."""
        return f"{self.run_dir}/server.sock"

    @property
    def control_socket(self) -> str:
        """Where the controller answers the server process."""
        return f"{self.run_dir}/control.sock"


class Report(msgspec.Struct, frozen=True):
    """What a child tells the supervisor through its pipe, one JSON line each."""

    role: str
    ready: bool
    failed: tuple[dict[str, str], ...] = ()
    workers: tuple[int, ...] = ()


def write_order(order: Order, path: Path) -> None:
    """Write an order for a child to read."""
    path.write_bytes(msgspec.json.encode(order))


def tell(order: Order, report: Report) -> None:
    """Send a report to the supervisor."""
    os.write(order.ready_fd, msgspec.json.encode(report) + b"\n")


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies; exit if that has happened already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
