"""Judging one version by one suite on one data set: load, ask, check, record."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import salver
from salver.clock import Clock
from salver.evaluation.check import Check
from salver.evaluation.parts import checks_of
from salver.evaluation.reports.records import CheckRecord, EvaluationRecord, VersionRecord, combined
from salver.evaluation.service_parts import service_checks
from salver.evaluation.subject.given import Given
from salver.evaluation.subject.inputs import map_inputs
from salver.evaluation.subject.predictions import Predictions, Reader
from salver.evaluation.subject.rows import Rows, read_rows
from salver.evaluation.subject.serving import ServedVersion, serve_versions
from salver.evaluation.subject.splits import group_of, split_digest, split_rows, training_of
from salver.evaluation.subject.subject import Asked, Subject
from salver.evaluation.suites.scripts import ReadSuite, read_suite
from salver.evaluation.suites.suite import Suite
from salver.protocol.description import Description
from salver.protocol.errors import SalverError
from salver.protocol.tables import VersionManifest
from salver.protocol.verdict import Verdict
from salver.storage.home import Home

__all__ = ["Progress", "environment", "evaluate", "subject_of"]

Progress = Callable[[str, int, int], None]
"""Told what is done next, how many steps are done, and how many there are."""

_NOTHING_SAID: Final = Description()
_NOTHING_GIVEN: Final = Given()
_LIBRARIES: Final = ("numpy", "onnxruntime", "scikit-learn", "scipy", "pandas")
_LONGEST_PROBLEM: Final = 300


def evaluate(
    home: Home,
    manifest: VersionManifest,
    suite: Path | ReadSuite,
    data: Path,
    clock: Clock,
    *,
    against: VersionManifest | None = None,
    description: Description = _NOTHING_SAID,
    given: Given = _NOTHING_GIVEN,
    on_progress: Progress = lambda _, __, ___: None,
) -> EvaluationRecord:
    """Judge a version of `home` by a suite on a file of rows; blocks, and changes nothing in the home.

    REQUIRES manifests with their attestation, as the action ATTESTATION gives them: nothing else loads.

    Versions are loaded and asked as in production, users' code in workers. A check that raises gets the verdict
    *error*; raises SalverError itself where nothing could be judged: a suite or data that cannot be read, a
    version that does not load or answer.

    REQUIRES manifests with their attestations, as they are published. `description` is what is said of the
    version: by it the evaluation knows what it was trained on. `given` has the model's cases and a way to a server;
    without that one, what needs a server is inconclusive.
    """
    began_s, at_s = clock.monotonic_s(), clock.wall_s()
    read = read_suite(suite) if isinstance(suite, Path) else suite
    checks = [*checks_of(read.suite, read.perturbations), *service_checks(read.suite, given), *read.checks]
    steps = len(checks) + 2
    on_progress("reading", 0, steps)
    rows = read_rows(data)
    on_progress("loading", 1, steps)
    versions = {"candidate": manifest} | ({"against": against} if against else {})
    with serve_versions(home, versions, clock, batch_rows=read.suite.suite.batch_rows) as served:
        subject = subject_of(read.suite, rows, served, clock, description)
        subject = dataclasses.replace(subject, given=dataclasses.replace(given, home=home))
        records = list(_judged(checks, subject, on_progress))
    on_progress("done", steps, steps)
    found = combined(records)
    return EvaluationRecord(
        suite=read.suite.suite.name,
        suite_digest=read.digest,
        data=data.name,
        data_digest=rows.digest,
        data_rows=len(rows),
        evaluated_rows=len(subject.rows),
        split=split_digest(read.suite.split),
        model=manifest.model,
        version=manifest.version,
        digest=manifest.digest,
        against=VersionRecord(against.model, against.version, against.digest) if against else None,
        verdict=found.verdict,
        reasons=found.reasons,
        checks=tuple(records),
        environment=environment(),
        at_s=at_s,
        took_s=clock.monotonic_s() - began_s,
        salver=salver.__version__,
    )


def subject_of(
    suite: Suite, rows: Rows, served: dict[str, ServedVersion], clock: Clock, description: Description
) -> Subject:
    """The versions `candidate` and, if it is served, `against` on the rows that the suite holds out, already asked."""
    others, chosen = split_rows(rows, suite.split, suite.suite.target)
    held_out = rows.take(chosen)
    asked = {name: _asked(each, suite, rows) for name, each in served.items()}
    candidate, rival = asked["candidate"], asked.get("against")
    truth = candidate.reader.truth(held_out)
    if rival is not None and rival.reader.task is not candidate.reader.task:
        raise SalverError(
            "INVALID_SETTING",
            f"{candidate.manifest.reference} is a {candidate.reader.task} and {rival.manifest.reference} a "
            f"{rival.reader.task} model",
            "compare with a version that answers the same question",
        )
    return Subject(
        asked=candidate,
        rows=held_out,
        others=rows.take(others),
        truth=truth,
        predictions=candidate.predict(held_out),
        clock=clock,
        training=training_of(description),
        target=suite.suite.target,
        confidence=suite.suite.confidence,
        resamples=suite.suite.resamples,
        seed=suite.suite.seed,
        groups=group_of(held_out, suite.split),
        rival=rival,
        rival_predictions=_aligned(rival, candidate, held_out) if rival else None,
    )


def _asked(served: ServedVersion, suite: Suite, rows: Rows) -> Asked:
    signature = served.manifest.signature
    return Asked(served, map_inputs(signature, suite, rows), Reader(signature, suite, rows))


def _aligned(rival: Asked, candidate: Asked, rows: Rows) -> Predictions:
    """What the other version says, its classes in the order of the candidate's."""
    predicted = rival.predict(rows)
    if rival.reader.classes != candidate.reader.classes:
        raise SalverError(
            "INVALID_SETTING",
            f"{rival.manifest.reference} has the classes {', '.join(rival.reader.classes[:10])}, "
            f"{candidate.manifest.reference} {', '.join(candidate.reader.classes[:10])}",
            "compare with a version that answers the same question",
        )
    return predicted


def _judged(checks: Sequence[Check], subject: Subject, on_progress: Progress) -> Iterator[CheckRecord]:
    for done, check in enumerate(checks, 2):
        on_progress(check.name, done, len(checks) + 2)
        yield _run(check, subject)


def _run(check: Check, subject: Subject) -> CheckRecord:
    try:
        return CheckRecord.of(check.name, check.role, check.run(subject))
    except Exception as error:  # noqa: BLE001 - one check that breaks must not hide what the others find
        return CheckRecord(check.name, check.role, Verdict.ERROR, (_problem(error),))


def _problem(error: Exception) -> str:
    if isinstance(error, SalverError):
        return str(error)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:_LONGEST_PROBLEM]}"


def environment() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
    return found | {name: version for name in _LIBRARIES if (version := _version_of(name))}


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
