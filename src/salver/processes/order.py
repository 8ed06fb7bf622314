"""What the supervisor tells a child, and what the child reports."""

from __future__ import annotations

from pathlib import Path

import msgspec

from salver.config import Settings
from salver.storage.home import control_socket
from salver.storage.snapshot import write_all

__all__ = ["Order", "Report", "tell", "write_order"]


class Order(msgspec.Struct, frozen=True):
    """Everything a child needs: where the home is, its inherited sockets, the settings.

    `run_dir` is a private directory for Unix sockets and the children's pulses; it goes with the
    supervisor. `ready_fd` is the child's own pipe for its `Report`. There is one listener of each
    kind for each server process.
    """

    home: str
    run_dir: str
    settings: Settings
    http_fds: tuple[int, ...]
    grpc_fds: tuple[int, ...]
    control_fd: int
    control_socket_fd: int
    ready_fd: int
    supervisor_pid: int
    credentials_in_clear: bool = False
    """Listening beyond this machine with --insecure."""
    slot: int = 0
    """Which of the server processes this is for: its own listeners are those of this number."""

    @property
    def recorder_path(self) -> Path:
        """The flight recorder of the slot's server process, its pulse included."""
        return Path(self.run_dir) / f"recorder-{self.slot}"

    @property
    def pulse_path(self) -> Path:
        """The controller's pulse: a flight recorder in which nothing computes."""
        return Path(self.run_dir) / "pulse"

    @property
    def server_socket(self) -> str:
        """Where the slot's server process answers the controller and its siblings."""
        return f"{self.run_dir}/server-{self.slot}.sock"

    @property
    def counts_path(self) -> Path:
        """What the slot's server process has counted; it outlives the process."""
        return Path(self.run_dir) / f"counts-{self.slot}"

    @property
    def places_path(self) -> Path:
        """Which slots have a process that accepts, see `Places`."""
        return Path(self.run_dir) / "places"

    def of(self, slot: int) -> Order:
        """The same for another slot."""
        return msgspec.structs.replace(self, slot=slot)

    @property
    def control_socket(self) -> str:
        """Where the controller answers the server process."""
        return control_socket(self.run_dir)


class Report(msgspec.Struct, frozen=True):
    """What a child tells the supervisor through its pipe, as one line of JSON: that it has begun its work.

    The server process adds the endpoints that could not be loaded and the pids of its workers.
    """

    failed: tuple[dict[str, str], ...] = ()
    workers: tuple[int, ...] = ()


def write_order(order: Order, path: Path) -> None:
    """Write an order for a child to read."""
    path.write_bytes(msgspec.json.encode(order))


def tell(order: Order, report: Report) -> None:
    """Send the report to the supervisor, whatever its size."""
    write_all(order.ready_fd, msgspec.json.encode(report) + b"\n")
