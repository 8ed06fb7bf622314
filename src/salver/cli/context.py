"""What every command has: the home, the way of output, and an administration to talk to."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from salver.protocol.errors import SalverError

if TYPE_CHECKING:
    from salver.control.administration import Administration
    from salver.storage.home import Home, Serving

__all__ = ["Context", "Exit"]


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
            sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
        elif text:
            sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """Tell a person something on the side; never part of the result."""
        if not self.json:
            sys.stderr.write(text + "\n")

    def home(self, *, make: bool = False) -> Home:
        """The home; made if it is not there and `make` says so, else NOT_FOUND."""
        from salver.storage.home import Home

        if not make and not self.home_path.expanduser().exists():
            raise SalverError(
                "NOT_FOUND",
                f"there is no home {self.home_path}",
                "`salver register` makes one there; --home or SALVER_HOME names another",
            )
        return Home.open(self.home_path)

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
        from salver.clock import SYSTEM_CLOCK
        from salver.control.holding import hold_home
        from salver.control.occasions import checked_why, new_request_id
        from salver.control.remote import RemoteAdministration
        from salver.storage.journal import occasion

        home = self.home(make=make_home)
        with contextlib.ExitStack() as stack:
            serving = hold_home(home, "command line", stack, SYSTEM_CLOCK)
            why = checked_why(self.why)
            if serving is None:
                stack.enter_context(occasion(new_request_id()))
                local = stack.enter_context(_local(home))
                stack.enter_context(occasion(why=why))  # not for what brought the home into order before
                yield local
                return
            remote = RemoteAdministration(serving.control_socket, _token(home), why)
            stack.callback(remote.close)
            yield remote


def _token(home: Home) -> str:
    try:
        return os.environ.get("SALVER_TOKEN") or home.admin_token_path.read_text().strip()
    except FileNotFoundError:
        raise SalverError(
            "UNAUTHENTICATED", "the home has no file admin.token", "set SALVER_TOKEN to an administrator's token"
        ) from None


@contextlib.contextmanager
def _local(home: Home) -> Iterator[Administration]:
    from salver.clock import SYSTEM_CLOCK
    from salver.control.administration import LocalAdministration
    from salver.security.access import local_principal
    from salver.storage.database import open_database

    database = open_database(home)
    try:
        administration = LocalAdministration(home, database, local_principal(), SYSTEM_CLOCK)
        administration.begin()
        yield administration
    finally:
        database.close()
