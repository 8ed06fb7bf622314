"""Whether a version starts and answers with nothing but what a deployment will give it.

A clean worker process with the memory that is declared, no network, and no place to write but its own. The answers
must be those that the evaluation got.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from salver.evaluation.behaviour.invariance import sample_rows
from salver.evaluation.reports.results import CheckResult, ResultTable, Role
from salver.evaluation.service.clean_process import CleanOrder, CleanReport
from salver.evaluation.service.skew import differences
from salver.evaluation.subject.sent_array import SentArray
from salver.evaluation.subject.subject import Subject
from salver.evaluation.suites.service_sections import InfrastructureSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Judgement, Verdict
from salver.runtime.asking import ask_child
from salver.runtime.child import Ended

__all__ = ["InfrastructureCheck", "judge_report"]

_LIMIT_S: Final = 300.0
_MOST_ANSWERED_BYTES: Final = 2**30
_ABSOLUTE: Final = 1e-5
_RELATIVE: Final = 1e-4


class InfrastructureCheck:
    """One load in a clean worker."""

    name = "infrastructure"
    role = Role.SAFEGUARD

    def __init__(self, settings: InfrastructureSettings) -> None:
        self._settings = settings

    def run(self, subject: Subject) -> CheckResult:
        """Load it, ask it, and look at what it left."""
        home, settings = subject.given.home, self._settings
        if home is None:
            return CheckResult(Verdict.INCONCLUSIVE, ("nothing here has the artifact to load",))
        rows = subject.rows.take(sample_rows(subject, settings.rows, subject.rng("infrastructure")))
        inputs = subject.asked.mapping.arrays(rows)
        with tempfile.TemporaryDirectory(prefix="salver-clean-") as room:
            directory = Path(room)
            for name in ("home", "tmp"):
                (directory / name).mkdir()
            order = CleanOrder(
                str(home.path.resolve()),
                subject.manifest,
                settings.memory_bytes,
                tuple(SentArray.of(name, array) for name, array in inputs.items()),
                room,
            )
            own = {"HOME": str(directory / "home"), "TMPDIR": str(directory / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
            report = ask_child(
                "salver.evaluation.service.clean_process",
                order,
                CleanReport,
                limit_s=_LIMIT_S,
                answer_bytes=_MOST_ANSWERED_BYTES,
                directory=directory,
                variables=own,
                memory_bytes=None,  # the version's worker has the limit that is declared
                shown=True,
                confined=True,
            )
        if isinstance(report, Ended):
            raise SalverError("LOAD_FAILED", f"the clean worker {report.why}", "see what it printed")
        other = 0
        if not report.problem:
            expected = subject.asked.served.ask(inputs)
            other = max(
                differences(expected[tensor.name], tensor.numpy(), _ABSOLUTE, _RELATIVE)[1] for tensor in report.outputs
            )
        found = Judgement.together(judge_report(report, settings, other))
        return CheckResult(found.verdict, found.reasons, _numbers(report, settings), _tables(report))


def judge_report(report: CleanReport, settings: InfrastructureSettings, other_answers: int) -> Iterator[Judgement]:
    """What a report says of a version; a pure look at it. `other_answers` are rows that are answered otherwise."""
    memory = f"{settings.memory_bytes / 2**20:,.0f} MiB"
    if report.problem:
        yield Judgement(Verdict.FAILED, (f"in a clean worker with {memory} it fails: {report.problem}",))
    else:
        peak = f"took {report.peak_bytes / 2**20:,.0f} MiB" if report.peak_bytes else "answered"
        yield Judgement(Verdict.SUCCESSFUL, (f"in a clean worker with {memory} it {peak}",))
        said = f"the first answer came after {report.cold_start_s:.3g} s"
        most = settings.cold_start_at_most_s
        slow = most is not None and report.cold_start_s > most
        yield Judgement(
            Verdict.FAILED if slow else Verdict.SUCCESSFUL,
            (said if most is None else f"{said}; {most:g} s are allowed",),
        )
    if other_answers:
        yield Judgement(Verdict.FAILED, (f"{other_answers} rows are answered otherwise there than in the evaluation",))
    yield from _of_network(report, settings)
    yield from _of_files(report)


def _of_network(report: CleanReport, settings: InfrastructureSettings) -> Iterator[Judgement]:
    if settings.network:
        return
    if not report.network:
        yield Judgement(
            Verdict.INCONCLUSIVE, ("no network of its own could be made here, so nobody saw if it uses one",)
        )
    elif report.attempts:
        yield Judgement(Verdict.FAILED, (f"it tried {report.attempts} times to reach the network",))
    else:
        yield Judgement(Verdict.SUCCESSFUL, ("it did not try to reach the network",))


def _of_files(report: CleanReport) -> Iterator[Judgement]:
    if report.wrote:
        named = ", ".join(report.wrote[:5])
        yield Judgement(Verdict.FAILED, (f"it wrote where nobody asked it to: {named}",))
    if report.left:
        named = ", ".join(report.left[:5])
        yield Judgement(Verdict.FAILED, (f"when it was unloaded there was left: {named}",))
    if not report.wrote and not report.left:
        where = "everything else was read-only" if report.read_only else "what else it wrote could not be seen here"
        verdict = Verdict.SUCCESSFUL if report.read_only else Verdict.INCONCLUSIVE
        yield Judgement(verdict, (f"it left no file and no process; {where}",))


def _numbers(report: CleanReport, settings: InfrastructureSettings) -> dict[str, Any]:
    return {
        "memory_bytes": settings.memory_bytes,
        "peak_bytes": report.peak_bytes,
        "loaded_s": report.loaded_s,
        "cold_start_s": report.cold_start_s,
        "network_attempts": report.attempts if report.network else None,
        "files_written": len(report.wrote),
        "left": len(report.left),
    }


def _tables(report: CleanReport) -> tuple[ResultTable, ...]:
    rows = tuple(("wrote", each) for each in report.wrote) + tuple(("left", each) for each in report.left)
    return (ResultTable("Written and left", ("what", "which"), rows),) if rows else ()
