"""Foreign code in a child process: one command, in finite time, and nothing of it afterwards.

Whatever runs what came from users - a pickle, a damaged model, a suite in Python, a training command - is started
here and nowhere else, but for the workers that serve; git, asked about a checkout, is told to run nothing of it.
Each child has an environment without secrets, a temporary directory of its own, a time limit, a bound on what it
says, and no core dump. When it ends, when its time is over, when waiting for it is interrupted and when the process
that waits is killed, all that it has started is killed and its directory goes (`salver.runtime.leash`). What differs
is a parameter.
"""

from __future__ import annotations

import contextlib
import enum
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final, NamedTuple

import salver
from salver.clock import SYSTEM_CLOCK
from salver.runtime.environment import child_environment
from salver.runtime.leash import Leash

__all__ = ["LONGEST_PROBLEM", "MEMORY_BYTES", "Ended", "Ending", "last_line", "run_child"]

MEMORY_BYTES: Final = 8 * 2**30
"""What each process of a child may have, unless more is said."""
_KEPT_BYTES: Final = 64 * 1024
"""The last part of what a child prints that is kept."""
_SHOWN_BYTES: Final = 64 * 2**20
_PIECE_BYTES: Final = 1 << 16
_PIPE_BYTES: Final = 1 << 20
"""What a pipe may hold, and more than it does unless somebody asks for more."""
_END_S: Final = 10.0
"""How long the leash may take to end what it holds."""
LONGEST_PROBLEM: Final = 500
_LEASH: Final = (
    "import sys; sys.path.append(sys.argv[1]); from salver.runtime.leash import Leash; Leash.of(sys.argv[2:]).hold()"
)
"""Isolated from the child's environment, which may name another Python's packages, or none."""


class Ending(enum.Enum):
    """In which way a child has ended."""

    EXITED = "exited"
    KILLED = "killed"
    LATE = "late"
    TOO_LONG = "too long"
    """It said more than it may."""
    ABSENT = "absent"
    """It did not start."""
    RAISED = "raised"
    """An exception, of which it could tell: by `salver.runtime.asking` only."""


class Ended(NamedTuple):
    """A child that has ended, and what it said."""

    ending: Ending
    how: str
    """For a sentence of which the child is the subject, as in "ended with code 3"."""
    code: int = 0
    """Of the exit, or the number of the signal."""
    output: bytes = b""
    complaint: bytes = b""
    """The last of its standard error."""

    @property
    def well(self) -> bool:
        """Whether it ended by itself, with code 0."""
        return self.ending is Ending.EXITED and self.code == 0

    @property
    def why(self) -> str:
        """How it ended, with its last words."""
        last = last_line(self.complaint)
        return f"{self.how}: {last[:LONGEST_PROBLEM]}" if last else self.how


def last_line(said: bytes) -> str:
    """The last line that is not blank."""
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


def run_child(
    command: Sequence[str],
    *,
    limit_s: float,
    sent: bytes = b"",
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
    memory_bytes: int | None = MEMORY_BYTES,
    answer_bytes: int | None = None,
    shown: bool = False,
    confined: bool = False,
    held: Sequence[int] = (),
) -> Ended:
    """Run a command to its end and say how it ended; blocks. REQUIRES a thread that lasts: the child dies with it.

    `sent` is its standard input. It runs in `directory`, or in its temporary one, with `environment`, or what
    `child_environment` passes on, and `variables` beside. `memory_bytes` bounds each of its processes. Its output is
    an answer of `answer_bytes` at most or, without such a bound, something of which the last part is kept. What it
    prints is `shown` on this process's standard error as it comes. `confined`, where the kernel permits, it has no
    network and writes nowhere but where it runs. It keeps the descriptors `held`, and gets no others.
    """
    output = _Heard(answer_bytes or _KEPT_BYTES, whole=answer_bytes is not None, shown=shown and answer_bytes is None)
    complaint, report = _Heard(_KEPT_BYTES, shown=shown), _Heard(_KEPT_BYTES)
    told, tells = os.pipe()
    with (
        os.fdopen(told, "rb", buffering=0) as reports,
        tempfile.TemporaryDirectory(prefix="salver-child-", ignore_cleanup_errors=True) as room,
    ):
        leash = Leash(os.getpid(), tells, room, memory_bytes or 0, int(confined), tuple(command))
        given = child_environment() if environment is None else environment
        try:
            process = _start(leash, directory or Path(room), {**given, "TMPDIR": room, **(variables or {})}, held)
        except OSError as error:
            return Ended(Ending.ABSENT, f"does not start: {error.strerror}")
        finally:
            os.close(tells)
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            pipes = {process.stdout: output, process.stderr: complaint, reports: report}
            try:
                stopped = _listen(process.stdin, sent, pipes, reports, limit_s)
            finally:
                _end(process, report)
    return _ended(stopped, report, process.returncode, output, complaint)


def _start(
    leash: Leash, directory: Path, environment: Mapping[str, str], held: Sequence[int]
) -> subprocess.Popen[bytes]:
    packages = str(Path(salver.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LEASH, packages, *leash.words()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=directory,
        env=environment,
        # Not for Ctrl-C at a terminal, and of this session: a supervisor kills orphans of others before they are done.
        process_group=0,
        pass_fds=(leash.report, *held),
    )


class _Heard:
    """What has come out of a pipe: all of it, up to a bound, or the last part."""

    def __init__(self, most_bytes: int, *, whole: bool = False, shown: bool = False) -> None:
        self.said = bytearray()
        self.whole = whole
        self.most_bytes = most_bytes
        self._to_show_bytes = _SHOWN_BYTES if shown else 0

    @property
    def too_long(self) -> bool:
        """Whether more came than may."""
        return len(self.said) > self.most_bytes

    def take(self, piece: bytes) -> None:
        """Hear more of it."""
        self.said += piece
        if not self.whole:
            del self.said[: -self.most_bytes]
        if self._to_show_bytes > 0:
            self._to_show_bytes -= len(piece)
            with contextlib.suppress(OSError):
                os.write(2, piece)


def _listen(
    stdin: IO[bytes], sent: bytes, pipes: Mapping[IO[bytes], _Heard], reports: IO[bytes], limit_s: float
) -> tuple[Ending, str] | None:
    """Talk with a child until its leash has ended, which is when nobody can report any more; or say why not so long."""
    until_s = SYSTEM_CLOCK.monotonic_s() + limit_s
    with selectors.DefaultSelector() as selector:
        for pipe, heard in pipes.items():
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ, heard)
        os.set_blocking(stdin.fileno(), False)
        selector.register(stdin, selectors.EVENT_WRITE)
        to_send = memoryview(sent)
        while reports in selector.get_map():
            left_s = until_s - SYSTEM_CLOCK.monotonic_s()
            if left_s <= 0:
                return Ending.LATE, f"was not done within {limit_s:g} s"
            for key, _ in selector.select(left_s):
                if key.fileobj is stdin:
                    to_send = _write(key.fd, to_send)
                    if not to_send:
                        selector.unregister(stdin)
                        stdin.close()
                elif not _read(key.fd, key.data):
                    selector.unregister(key.fileobj)
                elif key.data.too_long:
                    return Ending.TOO_LONG, f"said more than {key.data.most_bytes} bytes"
    # What it said before its end is in the pipes still; somebody who got away may hold them open.
    for pipe, heard in pipes.items():
        for _ in range(_PIPE_BYTES // _PIECE_BYTES):
            if not _read(pipe.fileno(), heard):
                break
        if heard.too_long:
            return Ending.TOO_LONG, f"said more than {heard.most_bytes} bytes"
    return None


def _write(pipe: int, to_send: memoryview) -> memoryview:
    """What is left to send; nothing where nobody reads."""
    try:
        return to_send[os.write(pipe, to_send[:_PIECE_BYTES]) :]
    except BrokenPipeError:
        return memoryview(b"")


def _read(pipe: int, heard: _Heard) -> bool:
    """Take a piece, if there is one; whether it was not the end."""
    try:
        piece = os.read(pipe, _PIECE_BYTES)
    except BlockingIOError:
        return True
    heard.take(piece)
    return bool(piece)


def _end(process: subprocess.Popen[bytes], report: _Heard) -> None:
    """Have the leash end what it holds; where it does not, because somebody stopped or killed it, do so."""
    process.terminate()
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    finally:
        lines = report.said.split()
        process.kill()
        if lines and process.wait() < 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(int(lines[0]), signal.SIGKILL)


def _ended(stopped: tuple[Ending, str] | None, report: _Heard, code: int, output: _Heard, complaint: _Heard) -> Ended:
    said = bytes(output.said), bytes(complaint.said)
    if stopped:
        return Ended(*stopped, 0, *said)
    _, _, lines = report.said.decode(errors="replace").partition("\n")
    what, _, detail = lines.partition("\n")[0].partition(" ")
    if what == "absent":
        return Ended(Ending.ABSENT, f"does not start: {detail}", 0, *said)
    if what == "exited":
        return Ended(Ending.EXITED, f"ended with code {detail}", int(detail), *said)
    # Without a report the leash itself was killed, and the command with it.
    number = int(detail) if what == "killed" else -code
    names = {each.value: each.name for each in signal.Signals}
    return Ended(Ending.KILLED, f"was ended by {names.get(number, f'signal {number}')}", number, *said)
