"""Who may change a home: whoever takes its lock, or the server that has it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from salver.clock import SYSTEM_CLOCK, Clock
from salver.protocol.errors import SalverError
from salver.storage.home import Home, Serving

if TYPE_CHECKING:
    from salver.control.administration import Administration

__all__ = ["administration_of", "hold_home"]

_PATIENCE_S: Final = 10.0
_LOOK_S: Final = 0.02


def hold_home(home: Home, purpose: str, stack: contextlib.ExitStack, clock: Clock) -> Serving | None:
    """Take the lock of `home` until `stack` is closed; where a server has it, return that server.

    A command holds a home for a moment, so another one waits for it, 10 s at most. Blocks.
    Raises CONFLICT naming the holder.
    """
    until_s = clock.monotonic_s() + _PATIENCE_S
    pause = threading.Event()
    while True:
        serving = home.read_serving()
        if serving is not None:
            return serving
        try:
            stack.enter_context(home.lock(purpose))
        except SalverError as error:
            if error.code != "CONFLICT" or clock.monotonic_s() > until_s:
                raise
            pause.wait(_LOOK_S)
        else:
            return None


@contextlib.contextmanager
def administration_of(home: Home, purpose: str, why: str = "") -> Iterator[Administration]:
    """The controller of the server that has `home`, or the home itself under its lock where none runs.

    `why` is the reason that the journal gets. Raises CONFLICT, and INVALID_PARAMETER for an odd reason.
    """
    # Not imported before they are needed: a supervisor holds homes too, and touches no database.
    from salver.control.occasions import new_request_id  # noqa: PLC0415
    from salver.control.remote import RemoteAdministration  # noqa: PLC0415
    from salver.protocol.reasons import checked_why  # noqa: PLC0415
    from salver.storage.journal import occasion  # noqa: PLC0415

    with contextlib.ExitStack() as stack:
        serving = hold_home(home, purpose, stack, SYSTEM_CLOCK)
        why = checked_why(why)
        if serving is None:
            stack.enter_context(occasion(new_request_id()))
            local = stack.enter_context(_local(home))
            stack.enter_context(occasion(why=why))  # not for what brought the home into order before
            yield local
            return
        remote = RemoteAdministration(serving.control_socket, _token(home), why)
        stack.callback(remote.close)
        try:
            yield remote
        except SalverError as error:
            if error.code != "UNAUTHENTICATED":
                raise
            raise SalverError(error.code, error.message, _better_token()) from None


def _token(home: Home) -> str:
    try:
        return os.environ.get("SALVER_TOKEN") or home.admin_token_path.read_text().strip()
    except FileNotFoundError:
        raise SalverError(
            "UNAUTHENTICATED", "the home has no file admin.token", "set SALVER_TOKEN to an administrator's token"
        ) from None


def _better_token() -> str:
    if os.environ.get("SALVER_TOKEN"):
        return "correct the token in SALVER_TOKEN, or unset it to use that in admin.token of the home"
    return "the token in admin.token of the home is not valid any more: set SALVER_TOKEN to another"


@contextlib.contextmanager
def _local(home: Home) -> Iterator[Administration]:
    from salver.control.administration import LocalAdministration  # noqa: PLC0415
    from salver.security.access import local_principal  # noqa: PLC0415
    from salver.storage.database import open_database  # noqa: PLC0415

    database = open_database(home)
    try:
        administration = LocalAdministration(home, database, local_principal(), SYSTEM_CLOCK)
        administration.begin()
        yield administration
    finally:
        database.close()
