"""`salver evaluate`: judge a version by a suite, before it serves."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import typer

from salver.cli.context import Context, Exit
from salver.cli.tables import table
from salver.protocol.errors import SalverError
from salver.protocol.names import check_name
from salver.protocol.stages import Stage
from salver.protocol.verdict import Verdict

if TYPE_CHECKING:
    from salver.control.administration import Administration
    from salver.evaluation.records import EvaluationRecord
    from salver.registry.pages import VersionPage

__all__ = ["CODES", "add_to", "progress"]

CODES: Final = {Verdict.SUCCESSFUL: 0, Verdict.FAILED: 1, Verdict.INCONCLUSIVE: 2, Verdict.ERROR: 3}
"""What the command ends with; 3 also where nothing could be judged."""


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("evaluate", epilog="Example: salver evaluate digits@1.1.0 --suite suite.toml --data held-out.csv")(
        evaluate
    )


def evaluate(
    context: typer.Context,
    reference: str = typer.Argument(help="NAME or NAME@VERSION: a number, an alias or a stage; else the latest."),
    suite: Path = typer.Option(..., help="The suite: a TOML file, or a Python file that defines SUITE."),
    data: Path = typer.Option(..., help="Rows with their target: csv, parquet or npy."),
    against: str | None = typer.Option(
        None, help="Compare with this version: NAME@VERSION, a number, an alias or a stage such as production."
    ),
    report: Path | None = typer.Option(None, help="Directory for evaluation.html and evaluation.json."),
    record: bool = typer.Option(False, "--record", help="Record what was found as evidence for gates."),
) -> None:
    """Judge a version by a suite on rows it has not seen. Changes nothing, but for --record.

    Exit code: 0 successful, 1 failed, 2 inconclusive (too few rows to tell), 3 error (nothing could be judged).
    """
    here: Context = context.obj
    try:
        found = _evaluated(here, reference, suite, data, against)
        written = _write(found, report)
        identity = _recorded(here, found) if record else ""
    except SalverError as error:
        raise Exit(CODES[Verdict.ERROR], error) from None
    except Exception as error:
        if os.environ.get("SALVER_DEBUG"):
            raise
        problem = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
        raise Exit(
            CODES[Verdict.ERROR],
            SalverError("INTERNAL", problem, "set SALVER_DEBUG=1 to see where it happened"),
        ) from error
    document = {**msgspec.to_builtins(found), "id": identity} if record else found
    here.say(document, _described(found, written) + (f"\nrecorded as {identity}" if record else ""))
    if found.verdict is not Verdict.SUCCESSFUL:
        raise Exit(CODES[found.verdict])


def _evaluated(here: Context, reference: str, suite: Path, data: Path, against: str | None) -> EvaluationRecord:
    from salver.cli.cases import all_cases
    from salver.cli.online import online_of
    from salver.clock import SYSTEM_CLOCK
    from salver.control.actions.signing import ATTESTATION, AskedAttestation
    from salver.evaluation.evaluate import evaluate as judge
    from salver.evaluation.given import Given
    from salver.evaluation.scripts import read_suite

    model, _, wanted = reference.partition("@")
    check_name(model, "model")
    read = read_suite(suite)
    rival_name = against or next(iter(read.suite.rivals), "")
    with here.administration() as admin:
        page = _page(admin, model, wanted or "latest")
        manifest = admin.do(ATTESTATION, AskedAttestation(model, page.manifest.version)).manifest
        rival = None
        if rival_name:
            found = _rival(admin, model, rival_name, required=against is not None)
            rival = admin.do(ATTESTATION, AskedAttestation(*found)).manifest if found else None
        given = Given(cases=all_cases(admin, model), online=online_of(here.home()))
    with progress(here) as shown:
        return judge(
            here.home(),
            manifest,
            read,
            data,
            SYSTEM_CLOCK,
            against=rival,
            description=page.description,
            given=given,
            on_progress=shown,
        )


def _recorded(here: Context, found: EvaluationRecord) -> str:
    """Send what was found to the registry; returns the id of the evidence."""
    from salver.control.actions.evidence import RECORD_EVALUATION, NewEvaluation

    model, _, version = found.version.reference.partition("@")
    document = msgspec.to_builtins(found.evidence())
    with here.administration() as admin:
        return admin.do(RECORD_EVALUATION, NewEvaluation(model, version, document)).evaluation.id


def _page(admin: Administration, model: str, wanted: str) -> VersionPage:
    from salver.control.actions.descriptions import SHOW_VERSION, OfVersion

    return admin.do(SHOW_VERSION, OfVersion(model, wanted))


def _rival(admin: Administration, model: str, wanted: str, *, required: bool) -> tuple[str, str] | None:
    """The version to compare with, by model and number; None for nothing in production where nobody insists on it."""
    named, at, number = wanted.partition("@")
    if at:
        manifest = _page(admin, named, number).manifest
        return manifest.model, manifest.version
    try:
        return model, _page(admin, model, wanted).manifest.version
    except SalverError as error:
        if error.code != "NOT_FOUND" or wanted != Stage.PRODUCTION:
            raise
        # A home that does not use stages has in production what its endpoint serves.
        for spec in admin.status().deployments:
            if spec.endpoint == model:
                return spec.model, spec.version
        if required:
            raise
    return None


@contextlib.contextmanager
def progress(here: Context) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on the side, where a person looks on: called with the step, how many are done, and how many there are."""
    if here.json or not sys.stderr.isatty():
        yield lambda _, __, ___: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:<24}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=1)
        yield lambda step, done, steps: bar.update(task, description=step, completed=done, total=steps)


def _write(record: EvaluationRecord, report: Path | None) -> tuple[Path, ...]:
    if report is None:
        return ()
    from salver.evaluation.report import write_report

    return write_report(record, report)


def _described(record: EvaluationRecord, written: tuple[Path, ...]) -> str:
    rows = [
        [each.verdict, each.role, each.name, reason] if index == 0 else ["", "", "", reason]
        for each in record.checks
        for index, reason in enumerate(each.reasons or ("",))
    ]
    rival = f", compared with {record.against.reference}" if record.against else ""
    head = f"{record.version.reference} is {record.verdict} in suite {record.suite}"
    rest = f"on {record.evaluated_rows} of {record.data_rows} rows of {record.data}{rival}"
    lines = [f"{head}, {rest}", table(["verdict", "role", "check", "why"], rows)]
    return "\n".join([*lines, *(f"wrote {path}" for path in written)])
