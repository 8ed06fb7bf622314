"""`salver token create`, `list` and `revoke`; `salver audit`."""

from __future__ import annotations

import typer

from salver.cli.context import Context, Exit
from salver.cli.tables import date, table

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    token = typer.Typer(help="Make, list and revoke tokens.", no_args_is_help=True)
    token.command("create", epilog="Example: salver token create ci --role developer")(create)
    token.command("list", epilog="Example: salver token list")(list_tokens)
    token.command("revoke", epilog="Example: salver token revoke 3f9a2c1b")(revoke)
    app.add_typer(token, name="token")
    app.command("audit", epilog="Example: salver audit --verify")(audit)


def create(
    context: typer.Context,
    name: str = typer.Argument(help="Whose token it is; the name in the audit journal."),
    role: str = typer.Option(
        help="What it may do: admin (all), operator (deploy), approver, developer (register), predictor (predict)."
    ),
    tenant: str = typer.Option("default", help="The tenant it belongs to; recorded only."),
) -> None:
    """Make a token and print it, this once."""
    from salver.control.administration import TokenRequest

    here: Context = context.obj
    with here.administration() as admin:
        made = admin.create_token(TokenRequest(name, role, tenant))
    here.say(made, made.token)
    here.note(f"id {made.record.id}, role {made.record.role}; it is not stored and cannot be shown again")


def list_tokens(context: typer.Context) -> None:
    """List tokens, without their secrets."""
    here: Context = context.obj
    with here.administration() as admin:
        records = admin.tokens()
    rows = [[record.id, record.name, record.role, record.tenant, date(record.created_s)] for record in records]
    here.say(records, table(["id", "name", "role", "tenant", "created"], rows))


def revoke(context: typer.Context, token_id: str = typer.Argument(help="The id shown by `salver token list`.")) -> None:
    """Make a token worthless."""
    here: Context = context.obj
    with here.administration() as admin:
        record = admin.revoke_token(token_id)
    here.say(record, f"revoked {record.id} ({record.name})")


def audit(
    context: typer.Context,
    limit: int = typer.Option(100, help="Records to show at most."),
    after: int = typer.Option(0, help="Only records behind this number (seq)."),
    verify: bool = typer.Option(
        False, "--verify", help="Check that no record was changed or removed, instead of listing."
    ),
) -> None:
    """Show who changed what. Or check, with --verify, that the record is whole."""
    here: Context = context.obj
    with here.administration() as admin:
        if verify:
            check = admin.verify_audit()
            sound = check.bad_seq is None
            text = f"{check.records} records, chain is whole" if sound else f"record {check.bad_seq}: {check.reason}"
            here.say(check, text)
            if not sound:
                raise Exit(1)
            return
        records = admin.audit(limit, after)
    rows = [[str(row.seq), date(row.at_s), row.actor, row.action, row.subject] for row in records]
    here.say(records, table(["seq", "when", "who", "what", "on"], rows) or "no records")
