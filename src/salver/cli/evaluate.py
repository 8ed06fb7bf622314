"""`salver evaluate`: judge a version by a suite, before it serves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from salver.cli.context import Context
from salver.cli.judging import end_with, judging, keep_evidence, progress
from salver.cli.tables import table
from salver.protocol.errors import SalverError
from salver.protocol.names import named_version, split_reference
from salver.protocol.stages import Stage

if TYPE_CHECKING:
    from salver.control.administration import Administration
    from salver.evaluation.reports.records import EvaluationRecord
    from salver.registry.pages import VersionPage

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("evaluate", epilog="Example: salver evaluate digits@1.1.0 --suite suite.toml --data held-out.csv")(
        evaluate
    )


def evaluate(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME[@VERSION]", help="A number, an alias or a stage; else the latest."),
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
    with judging():
        found = _evaluated(here, reference, suite, data, against)
        written = _write(found, report)
        evidence = msgspec.to_builtins(found.evidence())
        identity = keep_evidence(here, found.reference, evidence) if record else ""
    document = {**msgspec.to_builtins(found), "id": identity} if record else found
    here.say(document, _described(found, written) + (f"\nrecorded as {identity}" if record else ""))
    end_with(found.verdict)


def _evaluated(here: Context, reference: str, suite: Path, data: Path, against: str | None) -> EvaluationRecord:
    from salver.cli.cases import all_cases
    from salver.cli.online import online_of
    from salver.clock import SYSTEM_CLOCK
    from salver.control.actions.attestation import ATTESTATION
    from salver.control.actions.models import OfVersion
    from salver.evaluation.evaluate import evaluate as judge
    from salver.evaluation.subject.given import Given
    from salver.evaluation.suites.scripts import read_suite

    model, wanted = split_reference(reference)
    read = read_suite(suite)
    rival_name = against or next(iter(read.suite.rivals), "")
    with here.administration() as admin:
        page = _page(admin, model, wanted)
        manifest = admin.do(ATTESTATION, OfVersion(model, page.manifest.version)).manifest
        rival = None
        if rival_name:
            found = _rival(admin, model, rival_name, required=against is not None)
            rival = admin.do(ATTESTATION, OfVersion(*found)).manifest if found else None
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


def _page(admin: Administration, model: str, wanted: str) -> VersionPage:
    from salver.control.actions.descriptions import SHOW_VERSION
    from salver.control.actions.models import OfVersion

    return admin.do(SHOW_VERSION, OfVersion(model, wanted))


def _rival(admin: Administration, model: str, wanted: str, *, required: bool) -> tuple[str, str] | None:
    """The version to compare with, by model and number; None for nothing in production where nobody insists on it."""
    from salver.control.action import Nothing
    from salver.control.actions.status import STATUS

    if "@" in wanted:
        manifest = _page(admin, *named_version(wanted)).manifest
        return manifest.model, manifest.version
    try:
        return model, _page(admin, model, wanted).manifest.version
    except SalverError as error:
        if error.code != "NOT_FOUND" or wanted != Stage.PRODUCTION:
            raise
        # A home that does not use stages has in production what its endpoint serves.
        for spec in admin.do(STATUS, Nothing()).deployments:
            if spec.endpoint == model:
                return spec.model, spec.version
        if required:
            raise
    return None


def _write(record: EvaluationRecord, report: Path | None) -> tuple[Path, ...]:
    if report is None:
        return ()
    from salver.evaluation.reports.report import write_report

    return write_report(record, report)


def _described(record: EvaluationRecord, written: tuple[Path, ...]) -> str:
    rows = [
        [each.verdict, each.role, each.name, reason] if index == 0 else ["", "", "", reason]
        for each in record.checks
        for index, reason in enumerate(each.reasons or ("",))
    ]
    rival = f", compared with {record.against.reference}" if record.against else ""
    head = f"{record.reference} is {record.verdict} in suite {record.suite}"
    rest = f"on {record.evaluated_rows} of {record.data_rows} rows of {record.data}{rival}"
    lines = [f"{head}, {rest}", table(["verdict", "role", "check", "why"], rows)]
    return "\n".join([*lines, *(f"wrote {path}" for path in written)])
