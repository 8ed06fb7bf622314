"""One child of the supervisor, by role: started, watched, replaced after a pause that grows."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from salver.processes.order import Order, Report, write_order
from salver.telemetry.logs import log_event

__all__ = ["Child", "restart_pause_s"]

_CALM_S: Final = 10.0
"""A child that lived for so long is replaced at once; one that died younger, after a pause."""
_LONGEST_PAUSE_S: Final = 30.0
_TOLD_TO_STOP: Final = frozenset({0, -signal.SIGTERM, -signal.SIGUSR1})
"""How a child ends that was told to: by itself, or of the signal when it was too young to catch it."""


def restart_pause_s(young_deaths: int) -> float:
    """Seconds to wait after so many deaths in a row that followed a start closely.

    >>> [restart_pause_s(deaths) for deaths in (0, 1, 2, 3, 4, 9)]
    [0.0, 0.0, 0.5, 1.0, 2.0, 30.0]
    """
    # Bounded before it is a power: deaths go on for days where nobody looks.
    return 0.0 if young_deaths <= 1 else min(0.5 * 2.0 ** min(young_deaths - 2, 16), _LONGEST_PAUSE_S)


class Child:
    """The process of one role, and what is known of it.

    Each process has a report pipe of its own, so what one wrote when it was killed, perhaps half
    a line, is never read as part of what another one says.
    """

    def __init__(self, role: str, module: str, slot: int | None = None) -> None:
        self.role = role
        """What it is called, in logs too."""
        self.slot = slot
        """Of a server process."""
        self._module = module
        self.process: subprocess.Popen[bytes] | None = None
        self.report: Report | None = None
        """What it said when it had begun its work."""
        self.pipe: int | None = None
        """Where its report can be read; None once that is over."""
        self._said = b""
        self.started_s = 0.0
        self.not_before_s = 0.0
        self.failures = 0
        """Deaths since it last was ready."""
        self._young_deaths = 0
        self.hung = False
        """Whether it is being killed because its event loop stood still."""
        self.told = False
        """Whether it was told to end, for another to take its place."""

    def start(self, order: Order, passed: tuple[int, ...], now_s: float) -> None:
        """Start it with `order` and the file descriptors `passed`. REQUIRES that none lives."""
        self.report, self._said = None, b""
        self.hung = self.told = False
        self.started_s = now_s
        self.close()
        self.pipe, told = os.pipe()
        try:
            order_path = Path(order.run_dir) / f"{self.role}.order"
            write_order(msgspec.structs.replace(order, ready_fd=told), order_path)
            self.process = subprocess.Popen(
                [sys.executable, "-m", self._module, str(order_path)],
                pass_fds=(*passed, told),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                # Ctrl-C at a terminal is for the supervisor, which ends the others in order.
                process_group=0,
            )
        finally:
            os.close(told)

    def hear(self) -> bool:
        """Take what it says, once its pipe can be read; whether it has just begun its work.

        REQUIRES a pipe. A report that is none is logged and counts as not made.
        """
        assert self.pipe is not None
        heard = os.read(self.pipe, 65536)
        if not heard:
            self.close()
            return False
        line, ended, self._said = (self._said + heard).partition(b"\n")
        if not ended:
            self._said = line
            return False
        try:
            self.report = msgspec.json.decode(line, type=Report)
        except msgspec.DecodeError as error:
            log_event("report_garbled", level=logging.WARNING, child=self.role, problem=str(error))
            return False
        self.failures = 0
        return True

    def close(self) -> None:
        """Give back the pipe; whoever watches it must have stopped."""
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None

    @property
    def pid(self) -> int | None:
        """Its process id while there is one."""
        return self.process.pid if self.process else None

    @property
    def lives(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def bury(self, now_s: float) -> float:
        """Note its death; returns the seconds until it may start again."""
        if self.told and self.ended_well:
            self._young_deaths = 0
        else:
            self.failures += 1
            self._young_deaths = 1 if now_s - self.started_s > _CALM_S else self._young_deaths + 1
        self.process = self.report = None
        pause_s = restart_pause_s(self._young_deaths)
        self.not_before_s = now_s + pause_s
        return pause_s

    @property
    def ended_well(self) -> bool:
        """Whether it ended as it was told to; REQUIRES that it has ended."""
        return self.process is None or self.process.returncode in _TOLD_TO_STOP

    def tell_to_end(self) -> None:
        """Let it finish what it has and end."""
        if self.process is not None and self.lives:
            self.told = True
            self.process.terminate()

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
