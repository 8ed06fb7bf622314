"""`salver changes`: what has changed, and with --follow what changes next."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec
import typer

from salver.cli.context import Context
from salver.cli.tables import date
from salver.protocol.errors import SalverError
from salver.protocol.printable import printable

if TYPE_CHECKING:
    from salver.control.actions.changes import OfChanges
    from salver.storage.journal import Changes, JournalRecord

__all__ = ["add_to"]

_PAGE: Final = 1000
_WAIT_S: Final = 25.0
_LOOK_S: Final = 1.0
"""Where nobody serves the home, there is nobody to wait at."""
_PASSING: Final = frozenset({"CONTROL_UNAVAILABLE", "QUEUE_FULL", "OVERLOADED", "CONFLICT"})
"""What one who follows waits out."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("changes", epilog="Example: salver changes --follow --action promote --json")(changes)


def changes(
    context: typer.Context,
    after: int | None = typer.Option(
        None, min=0, help="Only what came behind this record; without it all, or with --follow what comes from now on."
    ),
    action: list[str] = typer.Option([], "--action", help="Only this, such as register or promote. Repeat for more."),
    subject: list[str] = typer.Option([], "--subject", help="Only about this: a model, a version, an endpoint, ..."),
    limit: int = typer.Option(100, min=1, help="Changes to show at most, without --follow."),
    follow: bool = typer.Option(False, "--follow", help="Go on with what changes from now on, until interrupted."),
) -> None:
    """Show what has changed. A line each, or with --json a JSON object each."""
    from salver.control.actions.changes import OfChanges

    here: Context = context.obj
    begin = after if after is not None or follow else 0
    asked = OfChanges(begin, _PAGE, ",".join(action), ",".join(subject))
    for record in _followed(here, asked) if follow else _until_now(here, asked, limit):
        line = msgspec.json.encode(record).decode() if here.json else printable(_described(record))
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _described(record: JournalRecord) -> str:
    why = f"  {record.why}" if record.why else ""
    return f"{record.seq:>6}  {date(record.at_s)}  {record.actor:<16} {record.action:<20} {record.subject}{why}"


def _until_now(here: Context, asked: OfChanges, limit: int) -> Iterator[JournalRecord]:
    left = limit
    while left:
        found = _ask(here, msgspec.structs.replace(asked, limit=min(left, _PAGE)))
        yield from found.records
        left -= len(found.records)
        if found.position >= found.head:
            return
        asked = msgspec.structs.replace(asked, after=found.position)


def _followed(here: Context, asked: OfChanges) -> Iterator[JournalRecord]:
    """All that comes; a controller that is away for a while is waited for, and nothing is left out."""
    pause = threading.Event()
    away = False
    while True:
        served = here.home().read_serving() is not None
        try:
            waits = served and asked.after is not None
            found = _ask(here, msgspec.structs.replace(asked, wait_s=_WAIT_S if waits else 0.0))
        except SalverError as error:
            if error.code not in _PASSING or asked.after is None:
                raise
            if not away:
                here.note(f"waiting: {error.message}")
            away = True
            pause.wait(_LOOK_S)
            continue
        away = False
        yield from found.records
        asked = msgspec.structs.replace(asked, after=found.position)
        if not served and not found.records:
            pause.wait(_LOOK_S)


def _ask(here: Context, asked: OfChanges) -> Changes:
    from salver.control.actions.changes import CHANGES

    with here.administration() as admin:
        return admin.do(CHANGES, asked)
