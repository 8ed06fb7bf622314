"""`salver hold`: versions that must stay."""

from __future__ import annotations

import typer

from salver.cli.context import Context
from salver.cli.tables import date, table
from salver.protocol.errors import SalverError
from salver.protocol.names import named_version

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("hold", epilog='Example: salver hold digits@1.0.0 --why "case 12/2026"')(hold)


def hold(
    context: typer.Context,
    reference: str | None = typer.Argument(None, metavar="[NAME@VERSION]", help="A version; without it all that are."),
    release: bool = typer.Option(False, "--release", help="Give it free again."),
) -> None:
    """Keep a version as evidence. It is neither retired nor archived; needs --why. Without a version list the holds."""
    from salver.control.action import Nothing
    from salver.control.actions.holds import HOLD, HOLDS, RELEASE, NewHold
    from salver.control.actions.models import OfVersion

    here: Context = context.obj
    if reference is None:
        if release:
            raise SalverError("INVALID_PARAMETER", "no version is named", "salver hold NAME@VERSION --release")
        with here.administration() as admin:
            held = admin.do(HOLDS, Nothing())
        rows = [[each.reference, each.held_by, date(each.held_s), each.why] for each in held]
        here.say(held, table(["version", "held by", "since", "why"], rows) or "nothing is held")
        return
    name, version = named_version(reference)
    with here.administration() as admin:
        if release:
            was = admin.do(RELEASE, OfVersion(name, version))
            here.say(was, f"{was.reference} is free; it was held by {was.held_by}: {was.why}")
        else:
            now = admin.do(HOLD, NewHold(name, version, here.why))
            here.say(now, f"{now.reference} is held by {now.held_by}: {now.why}")
