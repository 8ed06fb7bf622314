"""`salver retire` and `salver hold`: versions that go, and versions that must stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import typer

from salver.cli.context import Context, Exit
from salver.cli.tables import date, table
from salver.protocol.errors import SalverError
from salver.protocol.names import named_version

if TYPE_CHECKING:
    from salver.registry.retirement import Proposal

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
    app.command("hold", epilog='Example: salver hold digits@1.0.0 --why "case 12/2026"')(hold)


def propose(
    context: typer.Context,
    policy: str | None = typer.Option(None, help="Only this retirement rule of the policy."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would be proposed."),
) -> None:
    """Propose what the policy retires, and say who would miss it."""
    from salver.control.actions.retirement import PROPOSE_RETIREMENTS, ProposeRetirements

    here: Context = context.obj
    with here.administration() as admin:
        found = admin.do(PROPOSE_RETIREMENTS, ProposeRetirements(policy, dry_run))
    here.say(found, "\n".join(_described(found)) or "nothing new to propose")


def list_proposals(context: typer.Context) -> None:
    """Show what is proposed, and who would miss it."""
    from salver.control.action import Nothing
    from salver.control.actions.retirement import RETIREMENTS

    here: Context = context.obj
    with here.administration() as admin:
        found = admin.do(RETIREMENTS, Nothing())
    here.say(found, "\n".join(_described(found)) or "nothing is proposed")


def _described(proposals: Iterable[Proposal]) -> Iterator[str]:
    for each in proposals:
        yield f"{each.reference}: {each.why} ({each.policy}); goes to the archive from {date(each.due_s)} on"
        if each.endpoints:
            yield f"  deployed as {', '.join(each.endpoints)}: it stays until it is undeployed"
        for consumer in each.consumers[:_SHOWN]:
            yield (
                f"  {consumer.client} asked it through {consumer.endpoint}, {consumer.requests} times, "
                f"last {date(consumer.last_s)}"
            )
        if len(each.consumers) > _SHOWN:
            yield f"  and {len(each.consumers) - _SHOWN} more"


def run(context: typer.Context) -> None:
    """Archive what is due and not deployed. Exit code 1 where something due was kept."""
    from salver.control.action import Nothing
    from salver.control.actions.retirement import RUN_RETIREMENTS

    here: Context = context.obj
    with here.administration() as admin:
        done = admin.do(RUN_RETIREMENTS, Nothing())
    lines = [f"{each.reference} is archived" for each in done.archived]
    lines += [f"{each.proposal.reference} is kept: {each.why}" for each in done.kept]
    lines += [f"{each.reference} is due on {date(each.due_s)}" for each in done.waiting]
    here.say(done, "\n".join(lines) or "nothing is proposed")
    if done.kept:
        raise Exit(1)


def cancel(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME@VERSION", help="A version that is proposed."),
) -> None:
    """Take a proposal back. The policy may make it again; `salver hold` keeps the version for good."""
    from salver.control.actions.retirement import CANCEL_RETIREMENT, OneVersion

    here: Context = context.obj
    with here.administration() as admin:
        was = admin.do(CANCEL_RETIREMENT, OneVersion(*named_version(reference)))
    here.say(was, f"{was.reference} is no longer proposed for retirement")


def hold(
    context: typer.Context,
    reference: str | None = typer.Argument(None, metavar="[NAME@VERSION]", help="A version; without it all that are."),
    release: bool = typer.Option(False, "--release", help="Give it free again."),
) -> None:
    """Keep a version as evidence. It is neither retired nor archived; needs --why. Without a version list the holds."""
    from salver.control.action import Nothing
    from salver.control.actions.retirement import HOLD, HOLDS, RELEASE, NewHold, OneVersion

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
            was = admin.do(RELEASE, OneVersion(name, version))
            here.say(was, f"{was.reference} is free; it was held by {was.held_by}: {was.why}")
        else:
            now = admin.do(HOLD, NewHold(name, version, here.why))
            here.say(now, f"{now.reference} is held by {now.held_by}: {now.why}")
