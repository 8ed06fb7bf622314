"""`salver history`: what served when and in which stage it was, and who saw to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer

from salver.cli.context import Context
from salver.cli.tables import counted, date, table
from salver.cli.times import moment
from salver.protocol.journal_actions import DEPLOYING
from salver.protocol.stages import NEAREST_FIRST, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from salver.registry.history import Event, History, Served
    from salver.registry.stage_history import Stood

__all__ = ["add_to"]

_MOST_STAGES: Final = 20


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("history", epilog="Example: salver history digits --at 2026-03-03")(history)


def history(
    context: typer.Context,
    name: str = typer.Argument(help="A model or an endpoint."),
    at: str | None = typer.Option(None, help="Only what was then: a date (UTC), time with zone, '3 days ago' or now."),
    endpoint: str | None = typer.Option(None, help="Only on this endpoint."),
) -> None:
    """Show what served when and in which stage it was. And who saw to it why; without --at, all that happened."""
    from salver.clock import SYSTEM_CLOCK
    from salver.control.actions.audit import HISTORY, OfName
    from salver.protocol.names import check_name

    here: Context = context.obj
    check_name(name, "model or endpoint")
    span = None if at is None else moment(at, SYSTEM_CLOCK.wall_s())
    asked = OfName(name, endpoint, span.since_s if span else None, span.until_s if span else None)
    with here.administration() as admin:
        found = admin.do(HISTORY, asked)
    here.say(found, "\n".join(_then(found) if span else _all(found)))


def _then(found: History) -> list[str]:
    present = [each.reference for each in found.stages if each.stage is Stage.PRODUCTION]
    nothing = f"{', '.join(present)} in production, nothing served then" if present else "nothing served then"
    lines = [line for served in found.served for line in _served(served)] or [f"{found.name}: {nothing}"]
    return lines + _stages(found.stages) + _jumps(found)


def _stages(stages: Sequence[Stood]) -> list[str]:
    """Which versions were in which stage, those nearest to production first."""
    if not stages:
        return []
    nearest = sorted(stages, key=lambda each: (NEAREST_FIRST.index(each.stage), -each.seq))
    rows = [
        [each.reference, each.stage, date(each.since_s), each.moved_by, str(each.seq), each.decision, _note(each)]
        for each in nearest[:_MOST_STAGES]
    ]
    lines = ["", table(["version", "stage", "since", "by", "record", "decision", "why"], rows)]
    more = len(nearest) - _MOST_STAGES
    return [*lines, f"and {more:,} more; --json tells all"] if more > 0 else lines


def _note(each: Stood) -> str:
    made_room = f"{each.replaced_by} took its place" if each.replaced_by else ""
    return ": ".join(part for part in ("EMERGENCY" if each.emergency else "", made_room, each.why) if part)


def _served(served: Served) -> list[str]:
    until = (
        "still serves"
        if served.until_s is None
        else f"until {date(served.until_s)} UTC, {served.ended} by {served.ended_by} (record {served.until_seq})"
    )
    lines = [
        f"{served.endpoint}: {served.model}@{served.version}, generation {served.generation}",
        f"  digest    {served.digest or 'unknown'}",
        f"  deployed  {date(served.since_s)} UTC by {served.deployed_by} (record {served.seq})",
        f"            {until}",
    ]
    if served.why:
        lines.append(f"  why       {served.why}")
    if served.settings:
        lines.append(f"  settings  {', '.join(f'{name} {_shown(value)}' for name, value in served.settings.items())}")
    if served.requests is not None:
        lines.append(f"  answered  {counted(served.requests, 'request')} on these days")
    return lines


def _all(found: History) -> list[str]:
    rows = [
        [str(event.seq), date(event.at_s), event.actor, event.action, _what(event), event.why] for event in found.events
    ]
    lines = [table(["seq", "when", "who", "what", "on", "why"], rows)]
    if found.served:
        spans = [
            [each.endpoint, f"{each.model}@{each.version}", date(each.since_s), _until(each), _count(each.requests)]
            for each in found.served
        ]
        lines += ["", table(["endpoint", "served", "from", "to", "requests"], spans)]
    return lines + _jumps(found)


def _what(event: Event) -> str:
    if event.action in DEPLOYING:
        changed = ", ".join(f"{name} {_shown(old)} -> {_shown(new)}" for name, (old, new) in event.changes.items())
        return f"{event.subject} -> {event.reference}" + (f" ({changed})" if changed else "")
    source, target = event.details.get("source"), event.details.get("target")
    return f"{event.subject} {source} -> {target}" if source and target else event.subject


def _until(served: Served) -> str:
    return "now" if served.until_s is None else date(served.until_s)


def _count(requests: int | None) -> str:
    return "-" if requests is None else str(requests)


def _shown(value: Any) -> str:
    import msgspec

    if value is None:
        return "default"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _jumps(found: History) -> list[str]:
    return [
        f"the clock went back: record {jump.seq} says {date(jump.at_s)}, one before it {date(jump.before_s)}; "
        "what counts is the order of the records"
        for jump in found.jumps
    ]
