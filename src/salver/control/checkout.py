"""The git checkout that something lies in: its commit, where it comes from, and whether files were changed since.

A checkout may have come with an artifact, from anybody, and the configuration of a checkout can name programs that git
runs. So nothing is asked that would run one: no hook, no monitor, nothing over the network, and where there are filters
it stays unknown whether files were changed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from salver.runtime.environment import child_environment

__all__ = ["Checkout", "checkout_of"]

_LIMIT_S: Final = 10.0
_SAFE: Final = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
_ENVIRONMENT: Final = {"GIT_OPTIONAL_LOCKS": "0", "GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SCP_LIKE: Final = re.compile(r"(?:[^@/:]+@)?([\w.-]+):(?!//)(.+)")
_SETTINGS: Final = r"^(filter\..*|remote\.origin\.url)$"
_OF_THE_CHECKOUT: Final = frozenset({"local", "worktree"})


class Checkout(NamedTuple):
    """Where some code stands."""

    commit: str
    repository: str
    """The remote `origin` as a URL without names and passwords; empty for none, or one on this machine."""
    dirty: bool | None
    """Whether files that git knows were changed and not committed; None where that was not found out."""


def checkout_of(path: Path) -> Checkout | None:
    """The checkout that a file or directory lies in; None where there is none, no commit, or no git."""
    folder = path if path.is_dir() else path.parent
    if shutil.which("git") is None:
        return None
    commit = (_asked(folder, "rev-parse", "--verify", "HEAD") or "").strip()
    if not _COMMIT.fullmatch(commit):
        return None
    settings = _asked(folder, "config", "--includes", "--show-scope", "--get-regexp", _SETTINGS)
    remote, filters = "", settings is None
    for line in (settings or "").splitlines():
        scope, _, setting = line.partition("\t")
        name, _, value = setting.partition(" ")
        filters |= scope in _OF_THE_CHECKOUT and name.startswith("filter.")
        remote = value if name == "remote.origin.url" else remote
    return Checkout(commit, _public(remote), None if filters else _is_dirty(folder))


def _is_dirty(folder: Path) -> bool | None:
    said = _asked(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no", "--ignore-submodules=dirty")
    lines = (said or "").splitlines()
    return any(not line.startswith("#") for line in lines) if lines else None


def _asked(folder: Path, *words: str) -> str | None:
    """What git says, which may be nothing; None where it refuses or takes too long."""
    try:
        done = subprocess.run(
            ["git", *_SAFE, "-C", str(folder), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=child_environment() | _ENVIRONMENT,
            timeout=_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    # 1 is its way to say that there is none.
    return done.stdout.decode(errors="replace") if done.returncode in (0, 1) else None


def _public(remote: str) -> str:
    """A remote as anybody may read it.

    >>> _public("https://ann:secret@git.example.com/vision/digits.git"), _public("git@git.example.com:vision/digits")
    ('https://git.example.com/vision/digits.git', 'ssh://git.example.com/vision/digits')
    >>> _public("/home/ann/digits")
    ''
    """
    if scp := _SCP_LIKE.fullmatch(remote):
        return f"ssh://{scp[1]}/{scp[2].lstrip('/')}"
    try:
        parts = urlsplit(remote)
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    except ValueError:
        return ""
    return f"{parts.scheme}://{host}{parts.path}" if parts.hostname and parts.scheme != "file" else ""
