"""`python -m salver.runtime.examine PARENT`: read an artifact that nobody on this machine has seen before.

The child process that takes an artifact apart which came over the network: nothing of it is parsed in the process
that asks, and nothing of it is run here unless the question says that somebody answers for it. The question is JSON
on standard input, the answer `Examined` or `{"code", "message", "remedy"}` on standard output, with exit code 1.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from salver.protocol.errors import CATALOGUE, SalverError
from salver.protocol.signature import Signature
from salver.runtime.artifact import read_artifact
from salver.runtime.batch import problem_of
from salver.runtime.declaration import Declaration
from salver.runtime.environment import child_environment, die_with_parent

__all__ = ["Examined", "examine_in_child", "main"]

_TIMEOUT_S: Final = 300.0


class _Question(msgspec.Struct, frozen=True):
    path: str
    format: str | None
    trust_code: bool
    may_run_code: bool


class Examined(msgspec.Struct, frozen=True):
    """What an artifact is, by its own content."""

    format: str
    signature: Signature
    declaration: Declaration
    executes_code: bool


def examine_in_child(path: Path, *, format: str | None, trust_code: bool, may_run_code: bool) -> Examined:
    """What the artifact at `path` is, as `read_artifact` finds it; blocks for as long as a process takes to start.

    `trust_code` vouches for a pickle, and `may_run_code` says that whoever asks may vouch for code at all: without it
    code is refused with PERMISSION_DENIED before any of it runs. Raises what `read_artifact` raises.
    """
    question = msgspec.json.encode(_Question(str(path), format, trust_code, may_run_code))
    process = subprocess.Popen(
        [sys.executable, "-m", "salver.runtime.examine", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=child_environment(),
        start_new_session=True,
    )
    with process:
        try:
            answer, _ = process.communicate(question, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise SalverError(
                "INVALID_ARTIFACT", f"the artifact was not read within {_TIMEOUT_S:.0f} s", "make it smaller"
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return _answer(process.returncode, answer)


def _answer(status: int, answer: bytes) -> Examined:
    try:
        if status == 0:
            return msgspec.json.decode(answer, type=Examined)
        problem = msgspec.json.decode(answer, type=dict[str, str])
        if problem["code"] in CATALOGUE:
            raise SalverError(problem["code"], problem["message"], problem["remedy"])
    except (msgspec.DecodeError, KeyError):
        pass
    ended_by = f"{signal.Signals(-status).name} ended" if status < 0 else "a fault ended"
    raise SalverError(
        "INVALID_ARTIFACT",
        f"the artifact is damaged: {ended_by} the child process that read it",
        "save the model anew",
    )


def main() -> int:
    """Examine what the question names."""
    die_with_parent(int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Whatever a library prints must not mix with the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=_Question)
    try:
        found = read_artifact(
            Path(asked.path),
            format=asked.format,
            trust_code=asked.trust_code,
            before_code=(lambda _: None) if asked.may_run_code else _refuse_code,
        )
        reply, status = Examined(found.format, found.signature, found.declaration, found.executes_code), 0
        said = msgspec.json.encode(reply)
    except SalverError as error:
        said, status = _refusal(error), 1
    except Exception as error:  # noqa: BLE001 - a crafted file may make a library raise anything
        said, status = _refusal(SalverError("INVALID_ARTIFACT", f"the artifact cannot be read: {problem_of(error)}")), 1
    os.write(answer, said)
    return status


def _refusal(error: SalverError) -> bytes:
    return msgspec.json.encode({"code": error.code, "message": error.message, "remedy": error.remedy})


def _refuse_code(what: str) -> None:
    raise SalverError(
        "PERMISSION_DENIED",
        f"{what} is code, for which this token may not vouch",
        "use a token with one of the roles admin, operator",
    )


if __name__ == "__main__":
    raise SystemExit(main())
