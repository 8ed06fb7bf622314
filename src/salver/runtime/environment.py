"""Where a child process stands: what it inherits from its parent, and that it dies with it."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

__all__ = ["child_environment", "die_with_parent"]

_PASSED_ON: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
)
"""Environment that is inherited. Nothing else: the parent's environment may hold secrets."""
_PR_SET_PDEATHSIG: Final = 1


def child_environment(threads: int = 1) -> dict[str, str]:
    """The environment of a process that runs users' code with so many computing threads."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    settings = {"PYTHONUNBUFFERED": "1", "ORT_DISABLE_TELEMETRY": "1"}
    return kept | settings | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies; exit if that has happened already.

    The kernel ties the life of a process to the parent's thread that started it, so that must be one
    that lasts.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
