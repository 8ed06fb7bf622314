"""`salver policy`: which gates stand before which stage."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from salver.cli.context import Context
from salver.cli.files import read_file
from salver.cli.tables import counted, date
from salver.protocol.errors import SalverError

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    policy = typer.Typer(help="Gates before stages, and rules of retirement.", no_args_is_help=True)
    policy.command("set", epilog="Example: salver policy set policy.toml")(set_policy)
    policy.command("show", epilog="Example: salver policy show")(show)
    policy.command("check", epilog="Example: salver policy check policy.toml")(check)
    app.add_typer(policy, name="policy")


def set_policy(context: typer.Context, file: Path = typer.Argument(help="A TOML file.")) -> None:
    """Put a policy in force, from the next decision on."""
    from salver.control.actions.lifecycle import SET_POLICY, NewPolicy

    here: Context = context.obj
    text = _read(file)
    with here.administration(make_home=True) as admin:
        now = admin.do(SET_POLICY, NewPolicy(text))
    here.say(now, f"policy {now.digest[:12]} is in force since {date(now.set_s)}, set by {now.set_by}")
    _warn(here, now.warnings)


def show(context: typer.Context) -> None:
    """Print the policy in force."""
    from salver.control.action import Nothing
    from salver.control.actions.lifecycle import POLICY

    here: Context = context.obj
    with here.administration() as admin:
        now = admin.do(POLICY, Nothing())
    if now.seq:
        here.note(f"policy {now.digest[:12]}, set by {now.set_by} on {date(now.set_s)}, record {now.seq}")
    here.say(now, now.text if now.seq else "no policy is set: whoever may promote finds no gates")
    _warn(here, now.warnings)


def check(context: typer.Context, file: Path = typer.Argument(help="A TOML file.")) -> None:
    """Check a policy without putting it in force."""
    from salver.registry.policy import parse_policy, warnings_of

    here: Context = context.obj
    found = parse_policy(_read(file))
    warnings = warnings_of(found)
    gates = counted(sum(len(rule.gates) for rule in found.transitions), "gate")
    rules = counted(len(found.models), "rule")
    here.say(
        {"policy": found, "warnings": warnings},
        f"{gates}, {rules} for models, {len(found.retirements)} for retirement",
    )
    _warn(here, warnings)


def _warn(here: Context, warnings: Iterable[str]) -> None:
    for each in warnings:
        here.note(f"warning: {each}")


def _read(path: Path) -> str:
    try:
        return read_file(path).decode().replace("\r\n", "\n")  # the digest is to be the same however lines end
    except UnicodeDecodeError:
        raise SalverError("INVALID_SETTING", f"{path.name!r} is not UTF-8", "write the policy as TOML") from None
