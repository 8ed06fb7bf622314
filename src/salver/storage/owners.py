"""Which process holds something, in a form that can be asked for its life.

A process id alone is taken again by others; with the time at which the kernel started the
process it names one process of one boot.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["boot_id", "lives", "this_process"]


def this_process() -> str:
    """This process, as `lives` knows it."""
    return f"{os.getpid()}.{_started(os.getpid()) or 0}"


def lives(owner: str) -> bool:
    """Whether the process still runs; one that is only waited for does not."""
    pid, _, started = owner.partition(".")
    return pid.isdecimal() and started.isdecimal() and _started(int(pid)) == int(started)


def boot_id() -> str:
    """Names this boot of the machine: monotonic times of another one mean nothing now."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _started(pid: int) -> int | None:
    """When a living process was started, in the kernel's ticks; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # pid (name, which may hold anything) state ... the 20th field from the state on is the start.
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
