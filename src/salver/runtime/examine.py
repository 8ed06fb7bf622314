"""`python -m salver.runtime.examine`: read an artifact that nobody on this machine has seen before.

The child process that takes an artifact apart which came over the network: nothing of it is parsed in the process
that asks, and nothing of it is run here unless the question says that somebody answers for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature
from salver.runtime.artifact import MOST_DESCRIBED_BYTES, memory_to_read, recognise
from salver.runtime.asking import answer_once, ask_child
from salver.runtime.child import Ended, Ending
from salver.runtime.declaration import Declaration

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
    code is refused with PERMISSION_DENIED before any of it runs, and what misuses a parser finds no network and no
    place to write. Raises what `read_artifact` raises.
    """
    found = ask_child(
        "salver.runtime.examine",
        _Question(str(path.absolute()), format, trust_code, may_run_code),
        Examined,
        limit_s=_TIMEOUT_S,
        answer_bytes=MOST_DESCRIBED_BYTES,
        memory_bytes=memory_to_read(path),
        confined=not may_run_code,
    )
    if not isinstance(found, Ended):
        return found
    if found.ending is Ending.LATE:
        raise SalverError("INVALID_ARTIFACT", f"the artifact {found.how}", "make it smaller")
    if found.ending is Ending.RAISED:
        raise SalverError("INVALID_ARTIFACT", f"the artifact cannot be read: its reader {found.how}")
    raise SalverError(
        "INVALID_ARTIFACT",
        f"the artifact is damaged: the child process that read it {found.how}",
        "save the model anew",
    )


def main() -> None:
    """Examine what the question names."""
    answer_once(_Question, _examined)


def _examined(asked: _Question) -> Examined:
    recognised = recognise(Path(asked.path), format=asked.format, trust_code=asked.trust_code)
    if recognised.runs_code and not asked.may_run_code:
        raise SalverError(
            "PERMISSION_DENIED",
            f"{recognised.runs_code} is code, for which this token may not vouch",
            "use a token with one of the roles admin, operator",
        )
    found = recognised.described()
    return Examined(found.format, found.signature, found.declaration, found.executes_code)


if __name__ == "__main__":
    main()
