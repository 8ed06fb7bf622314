"""Retraining hooks: which command of the user's makes a new version of a model when its verdicts turn bad.

They stand in the file `retraining.json` of the home, and only there: a command is run here by whoever can write this
file, and nothing that comes over the network can name one. The journal says what was set up and when.
"""

from __future__ import annotations

import fnmatch
import shlex
from pathlib import Path
from typing import Annotated, Final

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.names import check_name
from salver.protocol.verdict import Verdict
from salver.storage.blob_files import locked
from salver.storage.home import Home
from salver.storage.snapshot import read_json, write_atomically

__all__ = ["RetrainingHook", "command_of", "hook_of", "read_hooks", "remove_hook", "set_hook"]

_FILE: Final = "retraining.json"
_LOCK: Final = "retraining.lock"
_MOST_WORDS: Final = 200
_LONGEST_WORD: Final = 4096
_LONGEST_S: Final = 30 * 86_400.0

_Seconds = Annotated[float, msgspec.Meta(gt=0, le=_LONGEST_S)]


class RetrainingHook(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is run for one model, and when."""

    command: tuple[str, ...]
    """The program and its arguments; no shell reads them."""
    on: tuple[Verdict, ...] = (Verdict.FAILED,)
    """Verdicts about the version in production for which it runs."""
    suite: str = "*"
    """Of suites with such names."""
    timeout_s: _Seconds = 6 * 3600.0
    cool_down_s: Annotated[float, msgspec.Meta(ge=0, le=_LONGEST_S)] = 86_400.0
    """Not again for so long after it began, whatever the verdicts say."""
    environment: tuple[str, ...] = ()
    """Names of variables that it is given beside the usual few."""
    trust_code: bool = False
    """Vouch for pickles that it makes."""

    def wants(self, suite: str, verdict: Verdict) -> bool:
        """Whether a verdict of a suite calls it."""
        return verdict in self.on and fnmatch.fnmatchcase(suite, self.suite)


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hooks: dict[str, RetrainingHook] = {}


def command_of(text: str) -> tuple[str, ...]:
    """The words of a command as a person writes it; raises INVALID_PARAMETER for none."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise SalverError("INVALID_PARAMETER", f"the command cannot be read: {error}", "close the quotes") from None
    if not words or len(words) > _MOST_WORDS or any("\0" in word or len(word) > _LONGEST_WORD for word in words):
        raise SalverError(
            "INVALID_PARAMETER", f"the command has {len(words)} words", "give a program and its arguments"
        )
    return words


def read_hooks(home: Home) -> dict[str, RetrainingHook]:
    """The hooks of a home by model; raises INVALID_SETTING or CORRUPT_ARTIFACT for a file that is none of ours."""
    found = read_json(home.path / _FILE, _File)
    return {} if found is None else dict(found.hooks)


def hook_of(home: Home, model: str) -> RetrainingHook:
    """The hook of a model; NOT_FOUND where there is none."""
    hooks = read_hooks(home)
    if model not in hooks:
        raise SalverError(
            "NOT_FOUND",
            f"model {model[:140]!r} has no retraining hook",
            "`salver retrain set` makes one, `salver retrain list` shows those there are",
        )
    return hooks[model]


def set_hook(home: Home, model: str, hook: RetrainingHook) -> None:
    """Set the hook of a model, durably."""
    check_name(model, "model")
    with locked(_lock(home)):
        _write(home, read_hooks(home) | {model: hook})


def remove_hook(home: Home, model: str) -> RetrainingHook:
    """Remove the hook of a model; NOT_FOUND where there is none."""
    with locked(_lock(home)):
        removed = hook_of(home, model)
        _write(home, {name: hook for name, hook in read_hooks(home).items() if name != model})
    return removed


def _write(home: Home, hooks: dict[str, RetrainingHook]) -> None:
    write_atomically(home.path / _FILE, msgspec.json.format(msgspec.json.encode(_File(hooks))))


def _lock(home: Home) -> Path:
    return home.path / _LOCK
