"""Running what may be users' code in a process of its own: one order in, one answer out, and nothing left."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import psutil

from salver.evaluation.rows import Array
from salver.protocol.errors import SalverError
from salver.protocol.tensor import Tensor
from salver.runtime.environment import child_environment

__all__ = ["SentArray", "ask_child", "become_subreaper", "end_descendants", "take_order"]

_MOST_ANSWERED_BYTES: Final = 2**30
_PR_SET_CHILD_SUBREAPER: Final = 36

Answer = TypeVar("Answer")


class SentArray(msgspec.Struct, frozen=True):
    """A tensor on its way to a child or back."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, name: str, array: Array) -> SentArray:
        """Raises WRONG_DATATYPE for types that the protocol lacks."""
        tensor = Tensor.from_numpy(name, array)
        return cls(name, tensor.datatype, tensor.shape, bytes(tensor.data))

    def numpy(self) -> Array:
        """The array, to be read only."""
        return Tensor(self.name, self.datatype, self.shape, self.data).numpy()


Order = TypeVar("Order")


def ask_child(
    module: str,
    order: msgspec.Struct,
    answer: type[Answer],
    *,
    room: Path,
    limit_s: float,
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """What `python -m MODULE PARENT` answers; it runs in the directory `room`, and is killed with all it started.

    Raises LOAD_FAILED where it dies or does not answer in time. REQUIRES a thread that lasts: the child dies with it.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", module, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**child_environment(), **(environment or {})},
        cwd=room,
        start_new_session=True,
    )
    with child:
        try:
            said, _ = child.communicate(msgspec.msgpack.encode(order), limit_s)
        except subprocess.TimeoutExpired:
            raise SalverError("LOAD_FAILED", f"it did not end within {limit_s:g} s", "see what it printed") from None
        finally:
            # With what it has started, in sessions of their own too.
            with contextlib.suppress(psutil.NoSuchProcess):
                _kill(psutil.Process(child.pid))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    if len(said) > _MOST_ANSWERED_BYTES:
        raise SalverError("LOAD_FAILED", f"it answered {len(said)} bytes", "evaluate fewer rows")
    try:
        return msgspec.msgpack.decode(said, type=answer)
    except msgspec.DecodeError:
        how = f"signal {signal.Signals(-child.returncode).name}" if child.returncode < 0 else f"code {child.returncode}"
        raise SalverError("LOAD_FAILED", f"it ended with {how} and no answer", "see what it printed") from None


def take_order(kind: type[Order]) -> tuple[Order, Any]:
    """In the child: the order, and where to write the answer. What anybody prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return msgspec.msgpack.decode(sys.stdin.buffer.read(), type=kind), answers


def become_subreaper() -> None:
    """In the child: have orphans below it become its children, so that none can hide."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants() -> list[str]:
    """In the child: kill whatever still runs below it; returns the names. REQUIRES to be a subreaper."""
    return _kill(psutil.Process())


def _kill(process: psutil.Process) -> list[str]:
    names = []
    for each in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.status() != psutil.STATUS_ZOMBIE:
                names.append(each.name())
                each.kill()
    return names
