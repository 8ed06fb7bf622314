"""`salver isolated`: what crashed or hung a server process, and giving it another chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from salver.cli.context import Context
from salver.cli.tables import date, table

if TYPE_CHECKING:
    from salver.registry.isolations import IsolatedVersion

__all__ = ["add_to", "describe_isolation"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("isolated", epilog="Example: salver isolated --clear digits@1.0.0")(isolated)


def isolated(
    context: typer.Context,
    clear: str | None = typer.Option(
        None,
        metavar="NAME[@VERSION]",
        help="Forget what it did: from its next load on, placement auto decides about it as about any other.",
    ),
) -> None:
    """List or clear isolated versions. They crashed or hung a server process, so placement auto gives them workers."""
    from salver.control.action import Nothing
    from salver.control.actions.isolations import END_ISOLATION, ISOLATED, OfReference

    here: Context = context.obj
    with here.administration() as admin:
        if clear is not None:
            ended = admin.do(END_ISOLATION, OfReference(clear))
            here.say(ended, f"{', '.join(ended.references)} is no longer isolated; deploy it again to load it anew")
            return
        found = admin.do(ISOLATED, Nothing())
    rows = [
        [", ".join(row.references) or "(not registered)", row.cause, date(row.at_s), row.digest[:12]] for row in found
    ]
    here.say(found, table(["version", "because it", "at", "digest"], rows) or "nothing is isolated")


def describe_isolation(row: IsolatedVersion) -> str:
    """One line for people."""
    what = ", ".join(row.references) or f"the version with digest {row.digest[:12]}"
    undo = f"; `salver isolated --clear {row.references[0]}` undoes it" if row.references else ""
    return f"{what} is isolated: it {row.cause} the server process at {date(row.at_s)}{undo}"
