"""`salver compare`: is one version better than another on the same rows, and does it matter?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from salver.cli.context import Context
from salver.cli.judging import end_with, judging, keep_evidence, progress, require_within
from salver.cli.tables import table
from salver.protocol.errors import SalverError
from salver.protocol.names import named_version

if TYPE_CHECKING:
    from salver.control.administration import Administration
    from salver.evaluation.compared.findings import ComparisonSettings
    from salver.evaluation.comparison import ComparisonRecord
    from salver.evaluation.suites.scripts import ReadSuite
    from salver.protocol.description import Description
    from salver.protocol.tables import VersionManifest

__all__ = ["add_to", "described"]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(
        "compare", epilog="Example: salver compare digits@1.1.0 digits@1.0.0 --data held-out.csv --target digit"
    )(compare)


def compare(
    context: typer.Context,
    first: str = typer.Argument(metavar="NAME@VERSION", help="The version that is judged; an alias does as well."),
    second: str = typer.Argument(metavar="NAME@VERSION", help="The one it is compared with."),
    data: Path = typer.Option(..., help="Rows with their target: csv, parquet or npy."),
    suite: Path | None = typer.Option(None, help="A suite: its split, metrics with margins, slices and columns."),
    target: str = typer.Option("", help="Without a suite: the column that holds what is true."),
    slices: list[str] = typer.Option([], "--slice", help="Without a suite: a column to slice by. May be repeated."),
    margin: float = typer.Option(0.01, help="The smallest difference that matters, for metrics that name none."),
    requests: int = typer.Option(200, help="Requests to each version by which latency is compared."),
    budget: float = typer.Option(10.0, help="Seconds for them at most."),
    report: Path | None = typer.Option(None, help="Directory for comparison.html and comparison.json."),
    record: bool = typer.Option(False, "--record", help="Record the result as evidence about the first version."),
) -> None:
    """Compare two versions on the same rows. Metrics, slices, calibration, agreement, latency, size.

    Exit code: 0 the first is better or equivalent, 1 it is worse, 2 inconclusive, 3 error (nothing could be compared).
    """
    from salver.evaluation.compared.findings import ComparisonSettings

    here: Context = context.obj
    settings = ComparisonSettings(margin, requests=requests, budget_s=budget)
    with judging():
        _check(settings)
        found = _compared(here, (first, second), _suite(suite, target, slices), data, settings)
        written = _written(found, report)
        evidence = msgspec.to_builtins(found.evidence())
        identity = keep_evidence(here, found.reference, evidence) if record else ""
    document = msgspec.to_builtins(found) | ({"id": identity} if identity else {})
    here.say(document, described(found, written, identity))
    end_with(found.verdict)


def _check(settings: ComparisonSettings) -> None:
    for name, value, low, high in (
        ("margin", settings.margin, 0.0, 1e9),
        ("requests", settings.requests, 80, 100_000),
        ("budget", settings.budget_s, 0.1, 3600.0),
    ):
        require_within(name, value, low, high)


def _suite(suite: Path | None, target: str, slices: list[str]) -> ReadSuite:
    from salver.evaluation.comparison import suite_for
    from salver.evaluation.suites.scripts import read_suite

    if suite is not None:
        if target or slices:
            raise SalverError("INVALID_PARAMETER", "a suite says its target and slices itself", "leave them out")
        return read_suite(suite)
    if not target:
        raise SalverError("INVALID_PARAMETER", "what is true is not said", "give --target COLUMN, or --suite FILE")
    return suite_for(target, tuple(slices))


def _compared(
    here: Context, references: tuple[str, str], suite: ReadSuite, data: Path, settings: ComparisonSettings
) -> ComparisonRecord:
    from salver.clock import SYSTEM_CLOCK
    from salver.evaluation.comparison import compare_versions

    with here.administration() as admin:
        (first, one), (second, other) = (_version(admin, reference) for reference in references)
    if first.reference == second.reference:
        raise SalverError("INVALID_PARAMETER", f"both are {first.reference}", "name two versions")
    with progress(here) as shown:
        return compare_versions(
            here.home(),
            (first, second),
            suite,
            data,
            SYSTEM_CLOCK,
            descriptions=(one, other),
            settings=settings,
            on_progress=shown,
        )


def _version(admin: Administration, reference: str) -> tuple[VersionManifest, Description]:
    """The version as it is published, and what is said of it."""
    from salver.control.actions.attestation import ATTESTATION
    from salver.control.actions.descriptions import SHOW_VERSION
    from salver.control.actions.models import OfVersion

    page = admin.do(SHOW_VERSION, OfVersion(*named_version(reference)))
    published = admin.do(ATTESTATION, OfVersion(page.manifest.model, page.manifest.version))
    return published.manifest, page.description


def _written(found: ComparisonRecord, report: Path | None) -> tuple[Path, ...]:
    if report is None:
        return ()
    from salver.evaluation.reports.comparison_report import write_comparison

    return write_comparison(found, report)


def described(found: ComparisonRecord, written: tuple[Path, ...], identity: str) -> str:
    """The comparison for people."""
    head = f"{found.reference} is {found.relation} against {found.against.reference}"
    lines = [f"{head}, on {found.evaluated_rows} of {found.data_rows} rows of {found.data}: {found.verdict}"]
    rows = [
        [
            each.standing,
            f"{each.part} {each.name}",
            f"{each.first:.4g}",
            f"{each.second:.4g}",
            f"{each.gain.estimate:+.3g} [{each.gain.low:.3g}, {each.gain.high:.3g}]",
            f"{each.margin:.3g}",
            f"{each.adjusted_p:.2g}",
            "" if each.more_rows is None else f"{each.more_rows:,}",
            each.method,
        ]
        for each in found.tests
    ]
    lines.append(table(["", "test", "first", "second", "gain", "margin", "adjusted p", "more rows", "method"], rows))
    told = [f"{check.name}: {reason}" for check in found.checks for reason in check.reasons]
    lines += told
    lines += [f"wrote {path}" for path in written]
    if identity:
        lines.append(f"recorded as {identity}")
    return "\n".join(lines)
