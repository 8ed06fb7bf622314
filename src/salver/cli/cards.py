"""`salver card`, `salver datasheet` and `salver checklist`: what the evidence says of a version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from salver.cli.context import Context
from salver.cli.judging import end_with, judging
from salver.cli.tables import table
from salver.protocol.errors import SalverError
from salver.protocol.names import split_reference
from salver.protocol.verdict import Verdict

if TYPE_CHECKING:
    from salver.cards.checklist import Checklist
    from salver.cards.document import Document
    from salver.registry.pages import VersionPage

__all__ = ["add_to"]

Form = Literal["html", "md"]
_REFERENCE = "NAME@VERSION"


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("card", epilog="Example: salver card digits@1.1.0 --format html --out card.html")(card)
    app.command("datasheet", epilog="Example: salver datasheet digits@1.1.0 --data held-out.csv --target digit")(
        datasheet
    )
    app.command("checklist", epilog="Example: salver checklist digits@1.1.0")(show_checklist)


def _asked(reference: str) -> Any:
    from salver.control.actions.models import OfVersion

    return OfVersion(*split_reference(reference))


def card(
    context: typer.Context,
    reference: str = typer.Argument(metavar=_REFERENCE, help="The version: a number, an alias or a stage."),
    form: Form | None = typer.Option(None, "--format", help="html or md; else by the name of the file, or md."),
    out: Path | None = typer.Option(None, help="Write it to this file instead of printing it."),
) -> None:
    """Write the model card of a version. It is made from what the registry knows."""
    from salver.control.actions.cards import CARD

    here: Context = context.obj
    with here.administration() as admin:
        found = admin.do(CARD, _asked(reference))
    _give(here, found, form or _form_of(out), out)


def datasheet(
    context: typer.Context,
    reference: str | None = typer.Argument(None, metavar=f"[{_REFERENCE}]", help="The version that was trained on it."),
    data: Path | None = typer.Option(None, help="Rows to describe: csv, parquet or npy."),
    target: str = typer.Option("", help="Their column that holds what is true."),
    form: Form | None = typer.Option(None, "--format", help="html or md; else by the name of the file, or md."),
    out: Path | None = typer.Option(None, help="Write it to this file instead of printing it."),
) -> None:
    """Write the data sheet of training data. Of a version, of a file, or of a file held against the version."""
    from salver.control.actions.cards import DATASHEET

    here: Context = context.obj
    if data is None:
        if reference is None:
            raise SalverError(
                "INVALID_PARAMETER", "there is nothing to describe", "name a version, or give --data FILE"
            )
        with here.administration() as admin:
            found = admin.do(DATASHEET, _asked(reference))
    else:
        found = _of_data(_page(here, reference), data, target)
    _give(here, found, form or _form_of(out), out)


def _page(here: Context, reference: str | None) -> VersionPage | None:
    from salver.control.actions.descriptions import SHOW_VERSION

    if reference is None:
        return None
    with here.administration() as admin:
        return admin.do(SHOW_VERSION, _asked(reference))


def _of_data(page: VersionPage | None, data: Path, target: str) -> Document:
    from salver.cards.sheet import data_sheet
    from salver.cards.table_facts import measure_table
    from salver.clock import SYSTEM_CLOCK
    from salver.evaluation.subject.rows import read_rows

    rows = read_rows(data)
    if target:
        rows.column(target)
    facts = measure_table(rows.columns, data.name, rows.digest, target)
    return data_sheet(page, facts, SYSTEM_CLOCK.wall_s(), rows.columns)


def show_checklist(
    context: typer.Context,
    reference: str = typer.Argument(metavar=_REFERENCE, help="The version: a number, an alias or a stage."),
    form: Form | None = typer.Option(None, "--format", help="html or md; without it, or a file, a table."),
    out: Path | None = typer.Option(None, help="Write it to this file instead of printing it."),
) -> None:
    """Show what a version lacks before production. And what to do about it.

    Exit code: 0 all required points are successful, 1 one failed, 2 inconclusive, 3 error.
    """
    from salver.cards.checklist import checklist_document
    from salver.control.actions.cards import CHECKLIST

    here: Context = context.obj
    with judging(), here.administration() as admin:
        found = admin.do(CHECKLIST, _asked(reference))
    if out is None and (form is None or here.json):
        here.say(found, _told(found))
    else:
        _give(here, checklist_document(found), form or _form_of(out), out)
    end_with(found.verdict)


def _form_of(out: Path | None) -> Form:
    return "html" if out is not None and out.suffix in (".html", ".htm") else "md"


def _told(found: Checklist) -> str:
    required = [each for each in found.points if each.required]
    done = sum(each.verdict is Verdict.SUCCESSFUL for each in required)
    lines = [f"{found.reference}: {found.verdict}, {done} of {len(required)} required points"]
    rows = [
        [each.verdict, "" if each.required else "advised", f"{each.group}: {each.name}", each.said]
        for each in found.points
    ]
    lines.append(table(["", "", "point", "what the evidence says"], rows))
    todo = [each for each in required if each.remedy]
    if todo:
        lines += ["to do:", *(f"  {each.name}: {each.remedy}" for each in todo)]
    return "\n".join(lines)


def _give(here: Context, found: Document, form: Form, out: Path | None) -> None:
    """Print the document, or write it to a file, whole or not at all."""
    from salver.cards.render import render
    from salver.storage.snapshot import write_atomically

    if out is None:
        here.say(found, "" if here.json else render(found, form))
        return
    text = render(found, form)
    try:
        write_atomically(out, text.encode(), 0o644)
    except OSError as error:
        raise SalverError(
            "INVALID_PARAMETER", f"cannot write {str(out)!r}: {error.strerror}", "name another file"
        ) from None
    here.say({"file": str(out), "kind": found.kind}, f"wrote {out}")
