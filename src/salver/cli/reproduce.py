"""`salver reproduce`: whether what is recorded of a version comes out again."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import typer

from salver.cli.context import Context
from salver.cli.judging import end_with, judging, keep_evidence
from salver.cli.tables import table
from salver.protocol.errors import SalverError
from salver.protocol.names import split_reference

if TYPE_CHECKING:
    from salver.evaluation.reports.records import EvaluationRecord
    from salver.evaluation.reproduction import Remade, Reproduction
    from salver.protocol.description import Description
    from salver.protocol.tables import VersionManifest
    from salver.registry.evidence import Evaluation

__all__ = ["add_to"]

_MOST_EVALUATIONS = 100
_LONGEST_S = 604_800.0
_MOST_SAID_BYTES = 64 * 2**20


class _Recorded(NamedTuple):
    """What the registry says of the version."""

    manifest: VersionManifest
    description: Description
    evaluations: tuple[Evaluation, ...]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("reproduce", epilog="Example: salver reproduce digits@1.0.0 --data held-out.csv --target digit")(
        reproduce
    )


def reproduce(
    context: typer.Context,
    reference: str = typer.Argument(metavar="NAME[@VERSION]", help="A number, an alias or a stage; else the latest."),
    data: Path = typer.Option(..., help="The rows that were evaluated on: csv, parquet or npy."),
    suite: Path | None = typer.Option(None, help="A suite to evaluate by; else the recorded metrics are measured."),
    target: str = typer.Option("", help="Without a suite: the column of what is true."),
    tolerance: float = typer.Option(1e-6, help="By how much a metric may differ and still count as the same."),
    command: str = typer.Option("", help="Train again with this command, which writes to $SALVER_ARTIFACT."),
    artifact: Path | None = typer.Option(None, help="Where the command writes, if that is elsewhere."),
    timeout: float = typer.Option(3600.0, help="Seconds that the command may take."),
    record: bool = typer.Option(False, "--record", help="Record the result as evidence, of suite reproduction."),
) -> None:
    """Evaluate a version again and compare. From its verified bytes: data, environment and metrics with the record.

    Exit code: 0 successful, 1 failed, 2 inconclusive, 3 error.
    """
    from salver.evaluation.remaking import make_again

    here: Context = context.obj
    with judging():
        _check(tolerance, timeout, command, artifact)
        recorded = _recorded(here, reference)
        with tempfile.TemporaryDirectory(prefix="salver-reproduce-") as folder:
            path = suite or _suite(Path(folder), target, recorded)
            found = _evaluated(here, recorded, path, data)
            remade = None
            if command:
                where = artifact or _expected(Path(folder), recorded.manifest)
                make_again(command, where, timeout)
                remade = _remade(Path(folder), where, recorded.manifest, (path, data), found, tolerance)
        result = _compared(recorded, found, remade, tolerance)
        evidence = msgspec.to_builtins(result)
        identity = keep_evidence(here, recorded.manifest.reference, evidence) if record else ""
    here.say(evidence | ({"id": identity} if identity else {}), _described(result, identity))
    end_with(result.verdict)


def _recorded(here: Context, reference: str) -> _Recorded:
    from salver.control.actions.attestation import ATTESTATION
    from salver.control.actions.descriptions import SHOW_VERSION
    from salver.control.actions.evidence import EVALUATIONS, OfEvaluations
    from salver.control.actions.models import OfVersion

    name, wanted = split_reference(reference)
    with here.administration() as admin:
        page = admin.do(SHOW_VERSION, OfVersion(name, wanted))
        version = page.manifest.version
        manifest = admin.do(ATTESTATION, OfVersion(name, version)).manifest
        evaluations = admin.do(EVALUATIONS, OfEvaluations(name, version, _MOST_EVALUATIONS))
    return _Recorded(manifest, page.description, evaluations)


def _suite(folder: Path, target: str, recorded: _Recorded) -> Path:
    from salver.evaluation.reproduction import standard_suite

    if not target:
        raise SalverError("INVALID_PARAMETER", "what is true is not said", "give --target COLUMN, or --suite FILE")
    path = folder / "suite.toml"
    numbers = [name for each in recorded.evaluations for name in each.numbers if "." not in name]
    path.write_text(standard_suite(target, [*recorded.description.metrics, *numbers]))
    return path


def _evaluated(here: Context, recorded: _Recorded, suite: Path, data: Path) -> EvaluationRecord:
    from salver.clock import SYSTEM_CLOCK
    from salver.evaluation.evaluate import evaluate

    return evaluate(here.home(), recorded.manifest, suite, data, SYSTEM_CLOCK, description=recorded.description)


def _values(record: EvaluationRecord) -> dict[str, float]:
    """The metrics that an evaluation has measured."""
    found = {check.name: check.numbers.get("value") for check in record.checks}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def _compared(recorded: _Recorded, found: EvaluationRecord, remade: Remade | None, tolerance: float) -> Reproduction:
    from salver.evaluation import reproduction as again

    manifest, description, evaluations = recorded
    known = again.recorded_data(description, evaluations)
    data = "unknown" if not known else "same" if found.data_digest in known else "other"
    on = (found.data_digest, found.evaluated_rows)
    wanted = again.recorded_metrics(description, evaluations, manifest.digest, *on)
    metrics = again.compare_metrics(wanted, _values(found), tolerance)
    environment = again.environment_differences(description.environment)
    verdict, reasons = again.judge(metrics, data, environment, remade)
    return again.Reproduction(
        again.SUITE,
        manifest.model,
        manifest.version,
        manifest.digest,
        verdict,
        reasons,
        found.data_digest,
        found.data_rows,
        data,
        known,
        metrics,
        environment,
        description.lock_digest,
        remade,
        tolerance,
        _values(found),
    )


def _check(tolerance: float, timeout_s: float, command: str, artifact: Path | None) -> None:
    if not 0 <= tolerance < float("inf"):
        raise SalverError("INVALID_PARAMETER", f"--tolerance is {tolerance:g}", "use 0 or more")
    if not 0 < timeout_s <= _LONGEST_S:
        raise SalverError("INVALID_PARAMETER", f"--timeout is {timeout_s:g}", f"use up to {_LONGEST_S:g}")
    if artifact is not None and not command:
        raise SalverError("INVALID_PARAMETER", "--artifact is given without --command", "say what writes it")


def _expected(folder: Path, manifest: VersionManifest) -> Path:
    """Where a command is told to write: a file called as the registered one is, else a directory."""
    made = folder / "made"
    made.mkdir()
    return made / (manifest.files[0].path if len(manifest.files) == 1 else manifest.model)


def _remade(
    folder: Path,
    artifact: Path,
    manifest: VersionManifest,
    asked: tuple[Path, Path],
    found: EvaluationRecord,
    tolerance: float,
) -> Remade:
    """What was made again, registered in a home of its own and evaluated there by the suite and data in `asked`."""
    from salver.evaluation.reproduction import Remade, compare_metrics

    trust = ["--trust-code"] if manifest.trusts_code else []
    words = (manifest.model, str(artifact), "--version", manifest.version, "--format", manifest.format, "--no-git")
    digest = _salver(folder, "register", *words, *trust)["digest"]
    if digest == manifest.digest or _is_file(artifact, manifest):
        return Remade("same bytes", digest)
    suite, data = map(str, asked)
    evaluated = _salver(folder, "evaluate", manifest.model, "--suite", suite, "--data", data, codes=(0, 1, 2))
    theirs = {each["name"]: each.get("numbers", {}).get("value") for each in evaluated["checks"]}
    ours = {name: (value, "the registered version") for name, value in _values(found).items()}
    metrics = compare_metrics(ours, {name: value for name, value in theirs.items() if value is not None}, tolerance)
    agree = [each.agrees for each in metrics if each.agrees is not None]
    return Remade("unknown" if not agree else "same metrics" if all(agree) else "different", digest, metrics)


def _is_file(artifact: Path, manifest: VersionManifest) -> bool:
    """Whether it is the one file of the version under another name."""
    if len(manifest.files) != 1 or not artifact.is_file():
        return False
    with artifact.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == manifest.files[0].sha256


def _salver(folder: Path, *words: str, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """A command on a home of its own, which the settings of this one must not reach."""
    from salver.runtime.child import Ending, run_child
    from salver.runtime.environment import environment_without_settings

    done = run_child(
        [sys.executable, "-m", "salver", "--home", str(folder / "home"), "--json", *words],
        limit_s=_LONGEST_S,
        directory=Path(),
        environment=environment_without_settings(),
        memory_bytes=None,  # what runs the version has a limit of its own
        answer_bytes=_MOST_SAID_BYTES,
    )
    if done.ending is not Ending.EXITED or done.code not in codes:
        raise SalverError("INVALID_ARTIFACT", f"what was made again cannot be judged: it {done.why}", "see the command")
    found: dict[str, Any] = msgspec.json.decode(done.output)
    return found


def _described(result: Reproduction, identity: str) -> str:
    lines = [f"{result.reference}: {result.verdict}", *(f"  - {reason}" for reason in result.reasons)]
    metrics = [*result.metrics, *(result.remade.metrics if result.remade else ())]
    rows = [
        [
            each.name,
            f"{each.recorded:.6g}",
            "-" if each.found is None else f"{each.found:.6g}",
            {None: "not measured", True: "same", False: "DIFFERS"}[each.agrees],
            each.source,
        ]
        for each in metrics
    ]
    if rows:
        lines += ["", table(["metric", "recorded", "now", "", "recorded by"], rows)]
    return "\n".join([*lines, *([f"recorded as {identity}"] if identity else [])])
