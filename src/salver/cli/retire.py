"""`salver retire` and `salver delete`: versions that go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import typer

from salver.cli.context import Context, Exit
from salver.cli.tables import date
from salver.protocol.names import named_version

if TYPE_CHECKING:
    from salver.registry.retirement_rules import Proposal

__all__ = ["add_to"]

_SHOWN = 5


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    retire = typer.Typer(help="Propose, announce and archive versions that nobody needs.", no_args_is_help=True)
    retire.command("propose", epilog="Example: salver retire propose --dry-run")(propose)
    retire.command("list", epilog="Example: salver retire list")(list_proposals)
    retire.command("run", epilog="Example: salver retire run")(run)
    retire.command("cancel", epilog="Example: salver retire cancel digits@1.0.0")(cancel)
    app.add_typer(retire, name="retire")
    app.command("delete", epilog='Example: salver delete digits@1.0.0 --why "no longer needed, and large"')(delete)


def propose(
    context: typer.Context,
    rule: str | None = typer.Option(None, help="Only this retirement rule of the policy."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be proposed."),
) -> None:
    """Propose what the policy retires, and say who would miss it."""
    from salver.control.actions.retirements import PROPOSE_RETIREMENTS, ProposeRetirements

    here: Context = context.obj
    with here.administration() as admin:
        found = admin.do(PROPOSE_RETIREMENTS, ProposeRetirements(rule, dry_run))
    here.say(found, "\n".join(_described(found)) or "nothing new to propose")


def list_proposals(context: typer.Context) -> None:
    """Show what is proposed, and who would miss it."""
    from salver.control.action import Nothing
    from salver.control.actions.retirements import RETIREMENTS

    here: Context = context.obj
    with here.administration() as admin:
        found = admin.do(RETIREMENTS, Nothing())
    here.say(found, "\n".join(_described(found)) or "nothing is proposed")


def _described(proposals: Iterable[Proposal]) -> Iterator[str]:
    for each in proposals:
        yield f"{each.reference}: {each.reason} ({each.rule}); goes to the archive from {date(each.due_s)} on"
        if each.endpoints:
            yield f"  deployed as {', '.join(each.endpoints)}: it stays until it is undeployed"
        for use in each.clients[:_SHOWN]:
            yield (f"  {use.client} asked it through {use.endpoint}, {use.requests} times, last {date(use.last_s)}")
        if len(each.clients) > _SHOWN:
            yield f"  and {len(each.clients) - _SHOWN} more"


def run(context: typer.Context) -> None:
    """Archive what is due and not deployed. Exit code 1 where something due was kept."""
    from salver.control.action import Nothing
    from salver.control.actions.retirements import RUN_RETIREMENTS

    here: Context = context.obj
    with here.administration() as admin:
        done = admin.do(RUN_RETIREMENTS, Nothing())
    lines = [f"{each.reference} is archived" for each in done.archived]
    lines += [f"{each.proposal.reference} is kept: {each.reason}" for each in done.kept]
    lines += [f"{each.reference} is due on {date(each.due_s)}" for each in done.waiting]
    here.say(done, "\n".join(lines) or "nothing is proposed")
    if done.kept:
        raise Exit(1)


def cancel(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME@VERSION", help="A version that is proposed."),
) -> None:
    """Take a proposal back. The policy may make it again; `salver hold` keeps the version for good."""
    from salver.control.actions.models import OfVersion
    from salver.control.actions.retirements import CANCEL_RETIREMENT

    here: Context = context.obj
    with here.administration() as admin:
        was = admin.do(CANCEL_RETIREMENT, OfVersion(*named_version(reference)))
    here.say(was, f"{was.reference} is no longer proposed for retirement")


def delete(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME@VERSION", help="An archived or rejected version."),
) -> None:
    """Give up the files of a version for good. Needs --why. What is known of it stays, and so does its number."""
    from salver.control.actions.deletions import DELETE, AskedDeletion

    here: Context = context.obj
    model, version = named_version(reference)
    with here.administration() as admin:
        done = admin.do(DELETE, AskedDeletion(model, version, here.why))
    here.say(done, f"{done.reference} is deleted; a collection that comes an hour later frees what only it needs")
