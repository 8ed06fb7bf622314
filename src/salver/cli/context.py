"""What every command has: the home, the way of output, and an administration to talk to."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from salver.protocol.errors import SalverError
from salver.protocol.printable import printable

if TYPE_CHECKING:
    from salver.control.administration import Administration
    from salver.storage.home import Home, Serving

__all__ = ["Context", "Exit", "in_a_line", "in_json"]


def in_a_line(error: Exception) -> str:
    """A fault that nobody foresaw, in one line: what the system says, else its kind and its first line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"


def in_json(document: Any) -> str:
    """`document` as JSON; halves of surrogate pairs, as in names that are not UTF-8, are escaped."""
    try:
        return msgspec.json.encode(document).decode()
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(document))


class Exit(Exception):  # noqa: N818 - it is no error
    """End the command with this exit code; everything has been said but the error, if there is one."""

    def __init__(self, code: int, error: SalverError | None = None) -> None:
        self.code = code
        self.error = error
        super().__init__(code)


@dataclass(frozen=True)
class Context:
    """The global options of one invocation."""

    home_path: Path
    json: bool
    why: str = ""
    """Why something is changed, for the journal."""

    def say(self, document: Any, text: str) -> None:
        """Print the result: `document` with --json, else `text`."""
        if self.json:
            sys.stdout.write(in_json(document) + "\n")
        elif text:
            sys.stdout.write(printable(text.rstrip("\n")) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell a person something on the side; never part of the result."""
        if not self.json:
            sys.stderr.write(printable(text) + "\n")

    def home(self, *, make: bool = False) -> Home:
        """The home; made if it is not there and `make` says so, else NOT_FOUND."""
        from salver.storage.home import Home

        return Home.open(self.home_path) if make else Home.existing(self.home_path)

    def serving(self) -> Serving:
        """Who serves this home; raises NOT_READY when nobody does."""
        serving = self.home().read_serving()
        if serving is None:
            raise SalverError("NOT_READY", f"nothing serves the home {self.home_path}", "start `salver serve`")
        return serving

    @contextlib.contextmanager
    def administration(self, *, make_home: bool = False) -> Iterator[Administration]:
        """The running server's controller, or the home itself under its lock when none runs.

        NOT_FOUND where there is no home, unless it may be made.
        """
        from salver.control.holding import administration_of

        home = self.home(make=make_home)
        with administration_of(home, "command line", self.why) as admin:
            if os.environ.get("SALVER_TOKEN") and home.read_serving() is None:
                self.note("nothing serves this home: SALVER_TOKEN is not heeded, you act as the user of this machine")
            yield admin
