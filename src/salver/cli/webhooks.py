"""`salver webhook create`, `list`, `remove`, `dead` and `redeliver`."""

from __future__ import annotations

import typer

from salver.cli.context import Context
from salver.cli.tables import date, table
from salver.protocol.journal_actions import JOURNAL_ACTIONS

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    webhook = typer.Typer(help="Say who is told of jobs and of changes.", no_args_is_help=True)
    webhook.command("create", epilog="Example: salver webhook create chat https://chat.example.com/x --action promote")(
        create
    )
    webhook.command("list", epilog="Example: salver webhook list")(list_webhooks)
    webhook.command("remove", epilog="Example: salver webhook remove orders")(remove)
    webhook.command("dead", epilog="Example: salver webhook dead chat")(dead)
    webhook.command("redeliver", epilog="Example: salver webhook redeliver chat 1234")(redeliver)
    app.add_typer(webhook, name="webhook")


def create(
    context: typer.Context,
    name: str = typer.Argument(help="What requests call it."),
    url: str = typer.Argument(help="Where it is told: https, without user and fragment."),
    tenant: str = typer.Option("", help="Whose jobs may name it; without, everybody's."),
    allow_private: bool = typer.Option(
        False, "--allow-private", help="Allow addresses of this machine and its network, and http."
    ),
    action: list[str] = typer.Option(
        [],
        help=f'Told of this from now on: "*" for all, or one of {", ".join(JOURNAL_ACTIONS)}. Repeat for more.',
    ),
) -> None:
    """Add a place that is told of changes, and may be told of jobs. Prints its secret, this once."""
    from salver.control.actions.webhooks import CREATE_WEBHOOK
    from salver.registry.webhooks import WebhookRequest

    here: Context = context.obj
    with here.administration(make_home=True) as admin:
        made = admin.do(CREATE_WEBHOOK, WebhookRequest(name, url, tenant, allow_private, tuple(action)))
    here.say(made, made.secret)
    here.note(f"webhook {made.record.name}; messages are signed with this secret, which cannot be shown again")


def list_webhooks(context: typer.Context) -> None:
    """List webhooks, without their secrets."""
    from salver.control.action import Nothing
    from salver.control.actions.webhooks import WEBHOOKS

    here: Context = context.obj
    with here.administration() as admin:
        records = admin.do(WEBHOOKS, Nothing())
    rows = [
        [
            row.name,
            row.url,
            row.tenant or "everybody",
            "yes" if row.allow_private else "no",
            date(row.created_s),
            ",".join(row.actions) or "-",
        ]
        for row in records
    ]
    here.say(records, table(["name", "url", "jobs of", "private", "created", "changes"], rows) or "no webhooks")


def remove(context: typer.Context, name: str = typer.Argument(help="The name shown by `salver webhook list`.")) -> None:
    """Remove a webhook: what it has not been told by now it will not be told."""
    from salver.control.actions.changes import OfWebhook
    from salver.control.actions.webhooks import REMOVE_WEBHOOK

    here: Context = context.obj
    with here.administration() as admin:
        record = admin.do(REMOVE_WEBHOOK, OfWebhook(name))
    here.say(record, f"removed {record.name} ({record.url})")


def dead(context: typer.Context, name: str = typer.Argument(help="The name shown by `salver webhook list`.")) -> None:
    """Show of which changes a webhook could not be told, and how far it has been told."""
    from salver.control.actions.changes import WEBHOOK_CHANGES, OfWebhook

    here: Context = context.obj
    with here.administration() as admin:
        found = admin.do(WEBHOOK_CHANGES, OfWebhook(name))
    rows = [
        [str(each.seq), each.action, each.subject, str(each.attempts), state, date(each.due_s), each.note]
        for state, several in (("given up", found.dead), ("again at", found.waiting))
        for each in several
    ]
    behind = found.head - found.position
    told = f"{name} is told of {', '.join(found.actions) or 'nothing'}, up to record {found.position}"
    told += f", {behind} behind the newest" if behind else ""
    here.say(found, f"{told}\n{table(['seq', 'what', 'on', 'tries', 'state', 'at', 'why'], rows)}")


def redeliver(
    context: typer.Context,
    name: str = typer.Argument(help="The name shown by `salver webhook list`."),
    seq: int | None = typer.Argument(None, min=1, help="The number of one record; without it all that were given up."),
) -> None:
    """Tell a webhook again of changes that it could not be told of, out of turn."""
    from salver.control.actions.changes import REDELIVER, Redeliver

    here: Context = context.obj
    with here.administration() as admin:
        done = admin.do(REDELIVER, Redeliver(name, seq))
    here.say(done, f"{name} will be told again of {len(done.seqs)} changes")
