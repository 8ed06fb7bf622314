"""Making an artifact again by the user's own command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Final

from salver.protocol.errors import SalverError
from salver.runtime.child import Ending, run_child
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
    ended = run_child(
        words,
        limit_s=timeout_s,
        directory=Path(),
        environment=environment_without_settings(),
        variables={ARTIFACT_VARIABLE: str(artifact.absolute())},
        memory_bytes=None,  # what training takes is for whoever typed the command
        shown=True,
    )
    if ended.ending is Ending.ABSENT:
        raise SalverError("INVALID_PARAMETER", f"{words[0][:80]!r} {ended.how}", "check the command")
    if not ended.well:
        remedy = "give --timeout more" if ended.ending is Ending.LATE else "see what it printed"
        raise SalverError("INVALID_PARAMETER", f"the command {ended.how}", remedy)
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
