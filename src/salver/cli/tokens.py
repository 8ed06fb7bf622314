"""`salver token create`, `list` and `revoke`."""

from __future__ import annotations

import re

import typer

from salver.cli.context import Context
from salver.cli.tables import date, table
from salver.protocol.errors import SalverError
from salver.security.access import Role

__all__ = ["add_to"]

_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    token = typer.Typer(help="Make, list and revoke tokens.", no_args_is_help=True)
    token.command("create", epilog="Example: salver token create ci --role developer")(create)
    token.command("list", epilog="Example: salver token list")(list_tokens)
    token.command("revoke", epilog="Example: salver token revoke 3f9a2c1b")(revoke)
    app.add_typer(token, name="token")


def create(
    context: typer.Context,
    name: str = typer.Argument(help="Whose token it is; the name in the audit journal."),
    role: Role = typer.Option(
        help="What it may do: admin (all), operator (deploy), approver, developer (register), predictor (predict)."
    ),
    tenant: str = typer.Option("default", help="The tenant it belongs to; recorded only."),
    expires_in: str | None = typer.Option(
        None, help="How long it is worth something: 90d, 12h, 30m, 45s; without it, until it is revoked."
    ),
) -> None:
    """Make a token and print it, this once."""
    from salver.control.actions.tokens import CREATE_TOKEN, TokenRequest

    here: Context = context.obj
    request = TokenRequest(name, role, tenant, None if expires_in is None else _seconds(expires_in))
    with here.administration(make_home=True) as admin:
        made = admin.do(CREATE_TOKEN, request)
    here.say(made, made.token)
    until = "" if made.record.expires_s is None else f", until {date(made.record.expires_s)} UTC"
    here.note(f"id {made.record.id}, role {made.record.role}{until}; it is not stored and cannot be shown again")


def _seconds(text: str) -> float:
    """A time such as 90d, 12h, 30m or 45s in seconds; raises INVALID_SETTING.

    >>> _seconds("90d")
    7776000.0
    """
    found = re.fullmatch(r"([0-9]{1,9})([dhms])", text)
    if found is None:
        raise SalverError("INVALID_SETTING", f"the time {text[:40]!r} cannot be read", "write 90d, 12h, 30m or 45s")
    return float(found[1]) * _SECONDS[found[2]]


def list_tokens(context: typer.Context) -> None:
    """List tokens, without their secrets."""
    from salver.control.action import Nothing
    from salver.control.actions.tokens import TOKENS

    here: Context = context.obj
    with here.administration() as admin:
        records = admin.do(TOKENS, Nothing())
    rows = [
        [record.id, record.name, record.role, record.tenant, date(record.created_s), _expiry(record.expires_s)]
        for record in records
    ]
    here.say(records, table(["id", "name", "role", "tenant", "created", "expires"], rows))


def _expiry(expires_s: float | None) -> str:
    from salver.clock import SYSTEM_CLOCK

    if expires_s is None:
        return "never"
    return date(expires_s) if SYSTEM_CLOCK.wall_s() < expires_s else f"{date(expires_s)}, expired"


def revoke(
    context: typer.Context, token_id: str = typer.Argument(metavar="ID", help="The id shown by `salver token list`.")
) -> None:
    """Make a token worthless."""
    from salver.control.actions.tokens import REVOKE_TOKEN, OfToken

    here: Context = context.obj
    with here.administration() as admin:
        record = admin.do(REVOKE_TOKEN, OfToken(token_id))
    here.say(record, f"revoked {record.id} ({record.name})")
