"""Counting one run: which requests belong to the measured seconds, and what became of them."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
import numpy as np

from salver.loadgen.plan import LoadPlan, Mode
from salver.loadgen.report import LoadReport, Samples, percentiles, summarise

__all__ = ["BACKLOG_FULL", "TIMEOUT", "WRONG_ANSWER", "Tally"]

BACKLOG_FULL: Final = "BACKLOG_FULL"
TIMEOUT: Final = "TIMEOUT"
WRONG_ANSWER: Final = "WRONG_ANSWER"
_BUSY_RATIO: Final = 0.9
_LATE_S: Final = 0.005
_KEPT_UP_RATIO: Final = 0.95


class Tally:
    """The counts of one run. Requests meant to leave outside `from_s` to `end_s` are not measured."""

    def __init__(self, plan: LoadPlan, generator: np.random.Generator) -> None:
        self._plan = plan
        self.from_s = self.end_s = float("inf")
        self.answers = 0
        """Successful answers, the warm-up's included."""
        self.reconnects = self.connect_failures = self.backlog_max = 0
        self._sent = self._ok = self._within = self._arrived = 0
        self._errors: Counter[str] = Counter()
        self._latencies = Samples(plan.max_samples, generator)
        self._refusals = Samples(plan.max_samples, generator)
        self._lags = Samples(plan.max_samples, generator)
        self._cpu: tuple[float, float] | None = None
        self._cpu_ratio = 0.0
        self.words: dict[str, str] = {}
        """What the first of each kind of error said."""

    @property
    def failed(self) -> int:
        """Measured requests that failed so far."""
        return self._errors.total()

    def measures(self, intended_s: float) -> bool:
        """Whether a request that was meant to leave at `intended_s` is measured."""
        return self.from_s <= intended_s < self.end_s

    def left(self, intended_s: float) -> None:
        """A request was sent."""
        if self.from_s <= intended_s < self.end_s:
            self._sent += 1

    def due(self, due_s: float, now_s: float) -> None:
        """The generator got to a request of an open loop."""
        if due_s >= self.from_s:
            self._lags.add(now_s - due_s)

    def answered(self, intended_s: float, now_s: float, problem: str | None) -> None:
        """An answer came; `problem` is None when it is a success."""
        measured = self.from_s <= intended_s < self.end_s
        if problem is not None:
            if measured:
                self._errors[problem] += 1
                self._refusals.add(now_s - intended_s)
            return
        self.answers += 1
        if self.from_s <= now_s < self.end_s:
            self._arrived += 1
        if measured:
            self._ok += 1
            self._within += now_s - intended_s <= self._plan.within_s
            self._latencies.add(now_s - intended_s)

    def gave_up(self, intended_s: float, now_s: float, problem: str) -> None:
        """A request will get no answer. What had to be given up for its time counts as having taken that."""
        if self.measures(intended_s):
            self._errors[problem] += 1
            if problem == TIMEOUT:
                self._latencies.add(now_s - intended_s)

    def watch_processor(self, now_s: float) -> None:
        """Note the processor time used so far; call it now and then while the run lasts."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = used.ru_utime + used.ru_stime
        if self._cpu is None:
            if now_s >= self.from_s:
                self._cpu = (cpu_s, now_s)
        elif now_s < self.end_s or not self._cpu_ratio:
            before_cpu_s, before_s = self._cpu
            self._cpu_ratio = (cpu_s - before_cpu_s) / max(now_s - before_s, 1e-9)

    def report(self, now_s: float, waiting: Iterable[float], *, interrupted: bool) -> LoadReport:
        """The report at `now_s`; `waiting` are the times at which unanswered requests were meant to leave."""
        self.watch_processor(now_s)
        plan = self._plan
        is_open = plan.mode is Mode.OPEN
        measured_s = max(0.0, min(now_s, self.end_s) - self.from_s)
        latency, histogram, lateness = summarise(self._latencies, self._lags)
        report = LoadReport(
            url=plan.url,
            path=plan.path,
            mode=plan.mode.value,
            connections=plan.connections,
            arrivals=plan.arrivals.value if is_open else None,
            rate_per_s=plan.rate_per_s if is_open else None,
            warmup_s=plan.warmup_s,
            measured_s=measured_s,
            sent=self._sent,
            ok=self._ok,
            within_s=plan.within_s,
            within=self._within if plan.within_s else None,
            failed=self.failed,
            unanswered=sum(map(self.measures, waiting)),
            errors=dict(self._errors),
            words={problem: said for problem, said in self.words.items() if said and problem in self._errors},
            achieved_rate_per_s=self._arrived / measured_s if measured_s else 0.0,
            latency=latency,
            refusals=percentiles(self._refusals),
            histogram=histogram,
            lateness=lateness,
            backlog_max=self.backlog_max,
            reconnects=self.reconnects,
            connect_failures=self.connect_failures,
            generator_cpu_ratio=self._cpu_ratio,
            interrupted=interrupted,
        )
        return msgspec.structs.replace(report, notes=tuple(_doubts(report)))


def _doubts(report: LoadReport) -> Iterator[str]:
    if report.generator_cpu_ratio > _BUSY_RATIO:
        yield "the generator was busy nearly all the time: the server may be able to do more"
    if report.lateness is not None and report.lateness.p99_s > _LATE_S:
        yield f"the generator fell behind its own schedule by {report.lateness.p99_s:.3f} s (p99)"
    if report.rate_per_s and report.measured_s and report.achieved_rate_per_s < _KEPT_UP_RATIO * report.rate_per_s:
        yield f"of {report.rate_per_s:g} requests a second {report.achieved_rate_per_s:.0f} were answered with success"
    if BACKLOG_FULL in report.errors:
        yield f"{report.errors[BACKLOG_FULL]} requests were never sent because too many waited already"
    if report.latency is not None and not report.latency.exact:
        yield "more answers than samples kept: percentiles are estimates from a uniform sample"
    if report.reconnects:
        yield f"{report.reconnects} connections closed by the server were opened again"
    if report.connect_failures:
        yield f"{report.connect_failures} attempts to connect failed"
