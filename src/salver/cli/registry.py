"""`salver registry`: what the registry knows of models beyond their versions."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

import typer

from salver.cli.context import Context
from salver.cli.tables import table

if TYPE_CHECKING:
    from salver.registry.matrix import CompatibilityMatrix

__all__ = ["add_to"]

_SIGNS: Final = {"patch": "same", "minor": "fits", "major": "BREAKS"}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    registry = typer.Typer(help="What the registry knows of models beyond their versions.", no_args_is_help=True)
    registry.command("compat", epilog="Example: salver registry compat digits")(compat)
    app.add_typer(registry, name="registry")


def compat(
    context: typer.Context,
    name: str = typer.Argument(help="A model."),
    differences: bool = typer.Option(False, "--differences", help="Say of each pair what differs."),
) -> None:
    """Show which versions could take each other's place, and what each client last asked."""
    from salver.control.actions.compatibility import COMPATIBILITY
    from salver.control.actions.models import OfModel
    from salver.protocol.names import check_name

    here: Context = context.obj
    check_name(name, "model")
    with here.administration() as admin:
        found = admin.do(COMPATIBILITY, OfModel(name))
    here.say(found, "\n".join(_described(found, differences=differences)))


def _described(found: CompatibilityMatrix, *, differences: bool) -> list[str]:
    signs = {(cell.client_version, cell.server_version): _SIGNS[cell.level] for cell in found.cells}
    rows = [[old, *(signs.get((old, new), "-") for new in found.versions)] for old in found.versions]
    lines = ["a client of (row) when (column) answers:", table(["", *found.versions], rows)]
    if found.left_out:
        lines.append(f"{found.left_out} lower versions that nobody asks are left out")
    if found.clients:
        seen = [
            [each.client, each.endpoint, each.version, _day(each.last_s), ", ".join(each.breaks_with) or "-"]
            for each in found.clients
        ]
        lines += ["", table(["client", "endpoint", "last asked", "on", "would break with"], seen)]
    else:
        lines.append("no client has been seen yet")
    if differences:
        lines += [
            f"{cell.client_version} -> {cell.server_version}: {what}"
            for cell in found.cells
            for what in cell.what or ("nothing but the weights",)
        ]
    return lines


def _day(at_s: float) -> str:
    return dt.datetime.fromtimestamp(at_s, dt.UTC).strftime("%Y-%m-%d %H:%M")
