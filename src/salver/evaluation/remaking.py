"""Making an artifact again by the user's own command."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Final

from salver.protocol.errors import SalverError
from salver.runtime.environment import environment_without_settings

__all__ = ["ARTIFACT_VARIABLE", "make_again"]

ARTIFACT_VARIABLE: Final = "SALVER_ARTIFACT"
"""The environment variable that tells the command where its artifact is expected."""


def make_again(command: str, artifact: Path, timeout_s: float) -> None:
    """Run a command, without a shell, that is to write `artifact`; what it prints goes to standard error.

    It runs here with the environment of its caller, but for Salver's own settings, which hold tokens. Raises
    INVALID_PARAMETER for no command, one that does not start, fails or takes longer, and one that leaves the artifact
    as it was; whatever it has started ends with it.
    """
    words = _words(command)
    before = _stamp(artifact)
    environment = environment_without_settings() | {ARTIFACT_VARIABLE: str(artifact.absolute())}
    try:
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=2, env=environment, start_new_session=True)
    except OSError as error:
        raise SalverError(
            "INVALID_PARAMETER", f"{words[0][:80]!r} does not start: {error.strerror}", "check the command"
        ) from None
    try:
        code = child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise SalverError(
            "INVALID_PARAMETER", f"the command was not done within {timeout_s:g} s", "give --timeout more"
        ) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if code:
        raise SalverError("INVALID_PARAMETER", f"the command ended with code {code}", "see what it printed")
    if _stamp(artifact) in (None, before):
        raise SalverError(
            "INVALID_PARAMETER",
            f"the command wrote nothing to {artifact.name!r}",
            f"have it write to ${ARTIFACT_VARIABLE}, or say with --artifact where it writes",
        )


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SalverError("INVALID_PARAMETER", f"the command cannot be read: {error}", "close the quotes") from None
    if not words:
        raise SalverError("INVALID_PARAMETER", "the command is empty", "give a program and its arguments")
    return words


def _stamp(artifact: Path) -> tuple[tuple[str, int, int], ...] | None:
    """What tells whether a file, or any in a directory, was written since; None where there is nothing."""
    if not artifact.exists():
        return None
    files = sorted(artifact.rglob("*")) if artifact.is_dir() else [artifact]
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_ino) for file in files if file.is_file())
