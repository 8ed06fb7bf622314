"""Running a user's retraining command: told the verdict on its standard input, asked for an artifact.

It has a directory of its own, a scrubbed environment and a time limit, ends with whoever started it, and of what it
prints only the last part is kept.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from salver.control.retraining_hooks import RetrainingHook
from salver.protocol.errors import SalverError
from salver.runtime.child import Ending, last_line, run_child

__all__ = ["ARTIFACT_VARIABLE", "Made", "run_command"]

ARTIFACT_VARIABLE: Final = "SALVER_ARTIFACT"
"""The environment variable that tells the command where its artifact is looked for, if it names no other place."""
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
    variables = {name: os.environ[name] for name in hook.environment if name in os.environ}
    ended = run_child(
        hook.command,
        limit_s=hook.timeout_s,
        sent=told,
        directory=room,
        variables=variables | {ARTIFACT_VARIABLE: str(artifact)},
        memory_bytes=None,  # what training takes is for the operator who set it up
        held=(lock,),
    )
    said = last_line(ended.output)
    if ended.ending is Ending.LATE:
        raise SalverError("INVALID_PARAMETER", f"the command {ended.how}", "set a longer --timeout")
    if ended.ending is Ending.ABSENT:
        raise SalverError(
            "INVALID_PARAMETER", f"the command {hook.command[0][:80]!r} {ended.how}", "salver retrain set"
        )
    if not ended.well:
        last = last_line(ended.complaint) or said
        raise SalverError("INVALID_PARAMETER", f"the command {ended.how}: {last[:_LONGEST_NOTE] or 'it said nothing'}")
    return _made(said, room, artifact)


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
