"""Two versions on the same rows: is the first better than the second, and does it matter?

Both answer the same rows through the service that serves them in production, so that every test is one of pairs.
All of them together, of metrics, slices, calibration and latency, are corrected by Holm: looking at more things
does not find more by luck. A difference counts when it is no accident *and* its whole interval is beyond the
margin; that two versions are equivalent is shown where all of it is within. Metrics decide, a slice or a
calibration that is worse forbids, latency and size are told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import salver
from salver.clock import Clock
from salver.evaluation.compared.costs import compare_latency, compare_size
from salver.evaluation.compared.findings import ComparisonSettings, Findings, PairResult, Part, corrected
from salver.evaluation.compared.metrics import compare_metrics
from salver.evaluation.compared.parts import compare_agreement, compare_calibration, compare_slices
from salver.evaluation.evaluate import Progress, environment, subject_of
from salver.evaluation.reports.records import CheckRecord, JudgedRecord, VersionRecord
from salver.evaluation.reports.results import CheckResult, Role
from salver.evaluation.subject.rows import Rows, read_rows
from salver.evaluation.subject.serving import serve_versions
from salver.evaluation.subject.splits import SplitCheck, split_digest, training_of
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.scripts import ReadSuite
from salver.evaluation.suites.suite import About, SliceSettings, Suite
from salver.protocol.description import Description
from salver.protocol.errors import SalverError
from salver.protocol.tables import VersionManifest
from salver.protocol.verdict import Judgement, Verdict
from salver.stats.margins import Relation
from salver.storage.home import Home

__all__ = ["COMPARISON_SUITE", "ComparisonRecord", "compare_versions", "suite_for"]

COMPARISON_SUITE: Final = "comparison"
"""The suite under which a comparison is recorded."""
_NOTHING_SAID: Final = Description()
_VERDICTS: Final = {
    Relation.BETTER: Verdict.SUCCESSFUL,
    Relation.EQUIVALENT: Verdict.SUCCESSFUL,
    Relation.WORSE: Verdict.FAILED,
    Relation.INCONCLUSIVE: Verdict.INCONCLUSIVE,
}


class ComparisonRecord(JudgedRecord, frozen=True):
    """One comparison, of `version` against `against`, as evidence about the first.

    The verdict says whether the first may take the place of the second: successful where it is better or equivalent.
    """

    against: VersionRecord
    relation: Relation
    """How the first stands to the second in the metrics that decide."""
    tests: tuple[PairResult, ...]
    """Everything that was tested, with p-values adjusted for all of them."""
    numbers: dict[str, float]


def suite_for(target: str, slices: tuple[str, ...] = ()) -> ReadSuite:
    """A suite that only says which column is true: every row is evaluated, by the metrics that fit."""
    return ReadSuite(Suite(About(COMPARISON_SUITE, target), slices=SliceSettings(slices) if slices else None), "")


def compare_versions(
    home: Home,
    versions: tuple[VersionManifest, VersionManifest],
    suite: ReadSuite,
    data: Path,
    clock: Clock,
    *,
    descriptions: tuple[Description, Description] = (_NOTHING_SAID, _NOTHING_SAID),
    settings: ComparisonSettings | None = None,
    on_progress: Progress = lambda _, __, ___: None,
) -> ComparisonRecord:
    """Compare the first of two versions with the second on the rows that the suite holds out; blocks, changes nothing.

    REQUIRES manifests with their attestations, as they are published. Raises SalverError where nothing can be
    compared: data that cannot be read, versions that do not load or answer different questions. A part that does not
    exist on these rows is left out and said to be; one that breaks has the verdict *error*.
    """
    began_s, at_s = clock.monotonic_s(), clock.wall_s()
    settings = settings or ComparisonSettings()
    steps = len(_PARTS) + 2
    on_progress("reading", 0, steps)
    rows = read_rows(data)
    _require_columns(rows, suite.suite)
    on_progress("loading", 1, steps)
    served_as = {"candidate": versions[0], "against": versions[1]}
    with serve_versions(home, served_as, clock, batch_rows=suite.suite.suite.batch_rows) as served:
        subject = subject_of(suite.suite, rows, served, clock, descriptions[0])
        found = [_seen(subject, suite.suite, descriptions[1])]
        for index, (name, part) in enumerate(_PARTS.items()):
            on_progress(name, 2 + index, steps)
            found.append(_looked(name, part, subject, suite.suite, settings))
    on_progress("done", steps, steps)
    tests = corrected([test for each in found for test in each.tests], 1 - subject.confidence)
    judged = _unusable(found)
    relation = Relation.INCONCLUSIVE if judged else _relation(tests)
    judged = judged or _judged(relation, tests, found)
    return ComparisonRecord(
        suite=COMPARISON_SUITE,
        suite_digest=suite.digest,
        data=data.name,
        data_digest=rows.digest,
        data_rows=len(rows),
        evaluated_rows=len(subject.rows),
        split=split_digest(suite.suite.split),
        model=versions[0].model,
        version=versions[0].version,
        digest=versions[0].digest,
        against=VersionRecord(versions[1].model, versions[1].version, versions[1].digest),
        relation=relation,
        verdict=judged.verdict,
        reasons=judged.reasons,
        tests=tests,
        numbers={f"gain.{each.name}": each.gain.estimate for each in tests if each.part is Part.METRIC},
        checks=tuple(check for each in found for check in each.checks),
        environment=environment(),
        at_s=at_s,
        took_s=clock.monotonic_s() - began_s,
        salver=salver.__version__,
    )


def _require_columns(rows: Rows, suite: Suite) -> None:
    """Raise INVALID_SETTING for a target or a slice's column that the data does not have: nothing would be judged."""
    rows.column(suite.suite.target)
    if suite.slices is not None:
        for column in (*suite.slices.columns, *(where.column for where in suite.slices.where)):
            rows.column(column)


Comparing = Callable[[Subject, Suite, ComparisonSettings], Findings]
_PARTS: Final[dict[str, Comparing]] = {
    "metrics": compare_metrics,
    "slices": compare_slices,
    "calibration": compare_calibration,
    "agreement": compare_agreement,
    "latency": compare_latency,
    "size": compare_size,
}


def _seen(subject: Subject, suite: Suite, second: Description) -> Findings:
    """Whether either was trained on the rows: what it knows by heart says nothing of what it can."""
    assert subject.rival is not None
    check = SplitCheck(suite.split, must_be_known=False)
    both = subject, replace(subject, asked=subject.rival, training=training_of(second))
    results = [(each.manifest.reference, check.run(each)) for each in both]
    worst = Verdict.worst(result.verdict for _, result in results)
    verdict = Verdict.INCONCLUSIVE if worst is Verdict.FAILED else worst
    reasons = tuple(
        reason if reference in reason else f"{reference}: {reason}"
        for reference, result in results
        if result.verdict is worst
        for reason in result.reasons
    )
    return Findings((), (CheckRecord.of("rows", Role.SAFEGUARD, CheckResult(verdict, reasons)),))


def _looked(name: str, part: Comparing, subject: Subject, suite: Suite, settings: ComparisonSettings) -> Findings:
    try:
        return part(subject, suite, settings)
    except SalverError as error:
        broken = CheckResult(Verdict.ERROR, (str(error),))
        return Findings((), (CheckRecord.of(name, Role.SAFEGUARD, broken),))


def _relation(tests: tuple[PairResult, ...]) -> Relation:
    """Of the metrics that decide: better where one is and none is worse; equivalent only where all of them are.

    That all are equivalent is an intersection-union test, which needs no correction (Berger 1982, Technometrics 24,
    295).
    """
    relations = {each.relation for each in tests if each.part is Part.METRIC and each.role is Role.OPTIMISING}
    if Relation.BETTER in relations and Relation.WORSE in relations:
        return Relation.INCONCLUSIVE
    for clear in (Relation.WORSE, Relation.BETTER):
        if clear in relations:
            return clear
    return Relation.EQUIVALENT if relations == {Relation.EQUIVALENT} else Relation.INCONCLUSIVE


def _unusable(found: list[Findings]) -> Judgement | None:
    """Why these rows settle nothing, whatever was measured on them: one of the two has seen them."""
    rows = next(check for each in found for check in each.checks if check.name == "rows")
    if rows.verdict is Verdict.SUCCESSFUL:
        return None
    return Judgement(rows.verdict, tuple(f"rows: {reason}" for reason in rows.reasons))


def _judged(relation: Relation, tests: tuple[PairResult, ...], found: list[Findings]) -> Judgement:
    """The verdict on the metrics, and on whatever forbids: a slice, a calibration, a metric that is a safeguard."""
    deciding = [each for each in tests if each.part is Part.METRIC and each.role is Role.OPTIMISING]
    order = [relation, *(each for each in Relation if each is not relation)]
    said = [each.sentence() for each in sorted(deciding, key=lambda each: order.index(each.relation))]
    mixed = {Relation.BETTER, Relation.WORSE} <= {each.relation for each in deciding}
    head = ["better in one metric and worse in another"] if mixed else []
    judgements = [Judgement(_VERDICTS[relation], (*head, *said) or ("no metric could be compared",))]
    judgements += [
        Judgement(Verdict.FAILED, (each.sentence(),))
        for each in tests
        if each.relation is Relation.WORSE and each.role is not Role.OPTIMISING and each.part is not Part.LATENCY
    ]
    judgements += [
        Judgement(check.verdict, tuple(f"{check.name}: {reason}" for reason in check.reasons))
        for each in found
        for check in each.checks
        if check.verdict is Verdict.ERROR
    ]
    worst = Judgement.together(judgements)
    return worst if worst.verdict is not Verdict.SUCCESSFUL else judgements[0]
