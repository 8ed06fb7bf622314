"""Where a child process stands: what it inherits, what it may run, and that it dies with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from salver.protocol.errors import SalverError

__all__ = [
    "allow_users_code",
    "become_subreaper",
    "child_environment",
    "die_with_parent",
    "ending_copies",
    "environment_without_settings",
    "give_back_freed_memory",
    "hear_of_parents_death",
    "keep_one_heap",
    "own_children",
    "require_users_code",
]

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
_PR_SET_CHILD_SUBREAPER: Final = 36
_M_ARENA_MAX: Final = -8
_allowed: Final = threading.Event()


def child_environment(threads: int = 1) -> dict[str, str]:
    """The environment of a process that runs users' code with so many computing threads."""
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if path := kept.get("PYTHONPATH"):  # whose entries are to mean the same where the process runs
        kept["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, path.split(os.pathsep)))
    settings = {"PYTHONUNBUFFERED": "1", "ORT_DISABLE_TELEMETRY": "1"}
    return kept | settings | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}


def environment_without_settings() -> dict[str, str]:
    """The environment of this process but for Salver's own settings: they name another home's database, and tokens."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SALVER_")}


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when its parent dies; exit if that has happened already."""
    if not hear_of_parents_death(parent_pid, signal.SIGKILL):
        os._exit(1)


def hear_of_parents_death(parent_pid: int, by: signal.Signals) -> bool:
    """Ask the kernel for a signal when this process's parent dies; False if that has happened already.

    The kernel ties this to the parent's thread that started the process, so that must be one that lasts.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    return os.getppid() == parent_pid


def become_subreaper(*, adopting: bool = True) -> None:
    """Have orphans below this process become its children, so that none can hide; or no longer."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(adopting), 0, 0, 0)


def own_children() -> list[int]:
    """The process ids of this process's children, by /proc: not every kernel lists them for us."""
    me = os.getpid()
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            # A process may end while it is looked at.
            with contextlib.suppress(OSError):
                # pid (name, which may hold anything) state parent ...
                if int((path / "stat").read_bytes().rpartition(b")")[2].split()[1]) == me:
                    found.append(int(path.name))
    return found


def keep_one_heap() -> None:
    """Have all threads take memory from one heap: what one has freed is there for all. With glibc's malloc only.

    Of others than the first, `give_back_freed_memory` leaves the end. To be called before there are threads.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_back_freed_memory() -> None:
    """Let the kernel have what this process has freed and malloc holds for later; without glibc's malloc, nothing.

    To be called when much was freed. A threshold from which on each piece of memory is taken from the kernel by
    itself would make it needless, and cost requests with large bodies three times their processor time.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def ending_copies() -> Iterator[None]:
    """End a process that the model has forked and let come back: it would answer in this one's place."""
    pid = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != pid:
            os._exit(1)


def allow_users_code() -> None:
    """Say that this process exists to run code that comes with artifacts. Never called in a server process."""
    _allowed.set()


def require_users_code(what: str) -> None:
    """Raise REFUSED_BY_POLICY unless `allow_users_code` was called; `what` is named in the refusal.

    Whatever imports, unpickles or builds what an artifact names asks here first: a mistake made before,
    in a manifest or in choosing a place, then costs a load and lets no code in.
    """
    if not _allowed.is_set():
        raise SalverError(
            "REFUSED_BY_POLICY",
            f"{what} is code that came with an artifact, and such code never runs outside a worker process",
            "register it anew with `salver register`, which finds out what is code",
        )
