"""`salver lineage` and `salver impact`: where versions come from, and what depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from salver.cli.context import Context
from salver.cli.graphs import dot, mermaid, tree
from salver.cli.tables import counted, date, table
from salver.protocol.errors import SalverError
from salver.protocol.names import split_reference

if TYPE_CHECKING:
    from salver.registry.breakage import Breakage
    from salver.registry.impact import Impact

__all__ = ["add_to"]

_SHOWN = 20


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("lineage", epilog="Example: salver lineage digits@1.0.0 --mermaid")(lineage)
    app.command("impact", epilog="Example: salver impact data:6b86b273ff34;  salver impact digits@1.0.0 --retire")(
        impact
    )


def lineage(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME[@VERSION]", help="A number, an alias, a stage or latest."),
    as_dot: bool = typer.Option(
        False, "--dot", help="For Graphviz: salver lineage NAME --dot | dot -Tsvg > lineage.svg"
    ),
    as_mermaid: bool = typer.Option(False, "--mermaid", help="For Mermaid, which pages in Markdown draw."),
) -> None:
    """Show what a version was made of and what came of it. Where it was deployed, and how many predictions it gave."""
    from salver.control.actions.lineage import LINEAGE
    from salver.control.actions.models import OfVersion

    here: Context = context.obj
    name, version = split_reference(reference)
    if as_dot and as_mermaid:
        raise SalverError("INVALID_PARAMETER", "--dot and --mermaid are both given", "give one")
    with here.administration() as admin:
        graph = admin.do(LINEAGE, OfVersion(name, version))
    drawn = dot if as_dot else mermaid if as_mermaid else tree
    here.say(graph, "\n".join(drawn(graph)))


def impact(
    context: typer.Context,
    subject: str = typer.Argument(
        help="data:DIGEST (or its beginning, a URI, a name), run:ID, commit:ID, image:DIGEST, lock:DIGEST, base:NAME, "
        "NAME@VERSION."
    ),
    retire: bool = typer.Option(False, "--retire", help="Of NAME@VERSION: what would break if it were retired."),
    days: float = typer.Option(30.0, min=0.01, max=3650, help="With --retire: how far back clients count."),
) -> None:
    """Show what something has reached. Versions, endpoints, clients and predictions."""
    from salver.control.actions.lineage import BREAKAGE, IMPACT, OfBreakage, OfSubject

    here: Context = context.obj
    if retire:
        name, version = split_reference(subject.removeprefix("version:"))
        with here.administration() as admin:
            breakage = admin.do(BREAKAGE, OfBreakage(name, version, days))
        here.say(breakage, "\n".join(_breaking(breakage)))
        return
    with here.administration() as admin:
        found = admin.do(IMPACT, OfSubject(subject))
    here.say(found, "\n".join(_described(found)))


def _described(found: Impact) -> list[str]:
    lines = [f"{counted(len(found.versions), 'version')}, {counted(found.requests, 'prediction')}"]
    if found.nodes != (found.subject,):
        lines.append(f"{found.subject} stands for {', '.join(found.nodes)}")
    rows = [
        [each.reference, each.stage, f"{each.relation} {each.through}", str(each.requests)] for each in found.versions
    ]
    lines += ["", table(["version", "stage", "because it is", "predictions"], rows)]
    if found.endpoints:
        spans = [
            [each.endpoint, each.reference, date(each.since_s), "now" if each.until_s is None else date(each.until_s)]
            for each in found.endpoints
        ]
        lines += ["", table(["endpoint", "served", "from", "to"], spans)]
    if found.clients:
        asking = [
            [each.client, each.endpoint, each.reference, str(each.requests), date(each.last_s)]
            for each in found.clients
        ]
        lines += ["", table(["client", "endpoint", "asked", "predictions", "last"], asking)]
    if found.cut:
        lines.append("there are more versions than are shown")
    return lines


def _breaking(found: Breakage) -> list[str]:
    words = {
        "successful": "can be retired",
        "inconclusive": "can be retired once others have followed",
        "failed": "cannot be retired without harm",
    }
    lines = [f"{found.reference}, in {found.stage}, {words.get(found.verdict, found.verdict)}:"]
    lines += [f"  - {reason}" for reason in found.reasons]
    if found.substitutes:
        named = [f"{each} (failed {', '.join(found.failed[each])})" if each in found.failed else each
                 for each in found.substitutes[:_SHOWN]]  # fmt: skip
        lines.append(f"in its place: {', '.join(named)}")
    if found.clients:
        rows = [[each.client, each.endpoint, str(each.requests), date(each.last_s)] for each in found.clients]
        lines += ["", table(["client", "endpoint", "predictions", "last"], rows)]
    return lines
