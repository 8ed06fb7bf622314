"""Running a user's retraining command: told the verdict on its standard input, asked for an artifact.

It has a directory of its own, a scrubbed environment, a time limit and a process group, ends with whoever started it,
and of what it prints only the last part is kept.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import psutil

from salver.control.retraining_hooks import RetrainingHook
from salver.protocol.errors import SalverError
from salver.runtime.environment import child_environment
from salver.runtime.leashed import NOT_STARTED

__all__ = ["ARTIFACT_VARIABLE", "Made", "run_command"]

ARTIFACT_VARIABLE: Final = "SALVER_ARTIFACT"
"""The environment variable that tells the command where its artifact is looked for, if it names no other place."""
_KEPT_BYTES: Final = 64 * 1024
_LONGEST_NOTE: Final = 500


class Made(msgspec.Struct, frozen=True):
    """What a command says that it has made: the last line that it prints, a path or such a JSON object."""

    artifact: str = ""
    run_id: str = ""
    format: str | None = None
    description: dict[str, Any] = {}
    """Fields as `salver describe` takes them, such as metrics and training_data."""


def run_command(hook: RetrainingHook, told: bytes, room: Path, lock: int) -> tuple[Path, Made]:
    """The artifact that the command makes, and what it says of it; blocks for as long as it runs.

    `room` is its working directory, `lock` a descriptor that it and all it starts keep open. Raises INVALID_PARAMETER
    for a command that does not start, fails, takes too long or makes nothing. REQUIRES a thread that lasts.
    """
    artifact = room / "artifact"
    environment = child_environment() | {ARTIFACT_VARIABLE: str(artifact)}
    environment |= {name: os.environ[name] for name in hook.environment if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "salver.runtime.leashed", str(os.getpid()), *hook.command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=room,
        env=environment,
        start_new_session=True,
        pass_fds=(lock,),
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        said, complaint = _Tail(process.stdout), _Tail(process.stderr)
        telling = threading.Thread(target=_tell, args=(process.stdin, told), daemon=True)
        telling.start()
        try:
            code = process.wait(hook.timeout_s)
        except subprocess.TimeoutExpired:
            raise SalverError(
                "INVALID_PARAMETER", f"the command was not done within {hook.timeout_s:g} s", "set a longer --timeout"
            ) from None
        finally:
            _end(process)
            for each in (telling, said.thread, complaint.thread):
                each.join(5)
    if code:
        last = complaint.last_line() or said.last_line()
        what = "does not start" if code == NOT_STARTED else f"ended with code {code}"
        raise SalverError("INVALID_PARAMETER", f"the command {what}: {last[:_LONGEST_NOTE] or 'it said nothing'}")
    return _made(said.last_line(), room, artifact)


def _made(line: str, room: Path, default: Path) -> tuple[Path, Made]:
    made = Made(line)
    if line.startswith("{"):
        try:
            made = msgspec.json.decode(line, type=Made)
        except msgspec.DecodeError as error:
            raise SalverError(
                "INVALID_PARAMETER", f"the last line of the command is no answer: {error}", "see docs/delivery.md"
            ) from None
    named = room / made.artifact if made.artifact else default
    # What else a command prints at its end is no path; then the artifact is where it was asked for.
    path = default if not line.startswith("{") and not named.exists() else named
    if not path.exists():
        raise SalverError(
            "INVALID_PARAMETER",
            "the command has made no artifact",
            f"have it write to ${ARTIFACT_VARIABLE}, or print the path as its last line",
        )
    return path, made


def _tell(stdin: IO[bytes], told: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), stdin:  # whoever does not read it need not
        stdin.write(told)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command with all that it started."""
    below: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        below = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for each in below:
        with contextlib.suppress(psutil.Error):
            each.kill()


class _Tail:
    """The last part of what comes out of a pipe, read to its end."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._kept = bytearray()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with contextlib.suppress(ValueError, OSError):  # closed when the command has ended and left others behind
            while piece := os.read(self._pipe.fileno(), 1 << 16):
                self._kept += piece
                del self._kept[:-_KEPT_BYTES]

    def last_line(self) -> str:
        """The last line that is not blank."""
        lines = self._kept.decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""
