"""Gates: what a policy may ask of a version before it goes on. Each is a pure look at a frozen snapshot.

Missing evidence is *inconclusive* and evidence that cannot be read is an *error*; neither opens a gate, and neither
says that the version is bad.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol

import msgspec

from salver.clock import DAY_S
from salver.protocol.verdict import Judgement, Verdict
from salver.registry.candidate import Candidate, Evidence, GateResult, Rival, person_of
from salver.registry.evidence import Evaluation
from salver.security.access import Role

__all__ = [
    "OPERATIONAL_SUITE",
    "AnyGate",
    "ApprovalsGate",
    "ChecklistGate",
    "EvaluationGate",
    "Gate",
    "MetricGate",
    "OperationalGate",
    "suites_of",
]

OPERATIONAL_SUITE: Final = "operational"
"""The suite under which `salver check` records what it measured."""
_AHEAD_S: Final = 300.0
"""How far in the future evidence may lie: clocks differ, and further on nobody knows how old it is."""


class Gate(Protocol):
    """One condition. `examine` is a pure function: no clock, no I/O, and it never raises for what a candidate has."""

    def examine(self, candidate: Candidate) -> GateResult:
        """Look at a candidate."""


class _Recorded(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which evaluations count."""

    within_days: float = 0.0
    """How old the newest may be; 0 for any age."""
    recorded_by: tuple[str, ...] = ()
    """Names of recorders, with wildcards; none for anybody who may record."""
    roles: tuple[Role, ...] = ()
    """Roles of recorders; none for all that may record."""

    def counts(self, evaluation: Evaluation) -> bool:
        """Whether it is by somebody whose word counts."""
        named = not self.recorded_by or any(
            fnmatch.fnmatchcase(evaluation.recorded_by, each) for each in self.recorded_by
        )
        return named and (not self.roles or evaluation.role in self.roles)

    def doubt(self, identity: str, at_s: float | None, now_s: float) -> str:
        """Why an evaluation of that time is not to be gone by; empty for one that may be, or of no time."""
        age_s = 0.0 if at_s is None else now_s - at_s
        if self.within_days and age_s > self.within_days * DAY_S:
            return f"{identity} is {age_s / DAY_S:.1f} days old; {self.within_days:g} are allowed"
        return f"{identity} was recorded in the future; a clock was wrong" if age_s < -_AHEAD_S else ""


class EvaluationGate(_Recorded, frozen=True, tag="evaluation", tag_field="kind", kw_only=True):
    """Technical: the newest evaluation of a suite is successful, recent, on enough data and about these bytes."""

    suite: str
    least_rows: int = 0
    data_digest: str = ""
    """Only evaluations on the data with this digest count; empty for any."""

    def examine(self, candidate: Candidate) -> GateResult:
        """See `Gate`."""
        found = [each for each in candidate.evaluations if each.suite == self.suite]
        if self.data_digest:
            found = [each for each in found if each.problem or each.data_digest == self.data_digest]
        asked = f'evaluation suite "{self.suite}" is successful'
        newest, judged = _newest(self, asked, found, candidate)
        if newest is None or judged is not None:
            return judged or _missing(asked, candidate)
        if self.least_rows and newest.evaluated_rows < self.least_rows:
            reason = f"{newest.id} looked at {newest.evaluated_rows} rows; {self.least_rows} are asked for"
            return GateResult(asked, Verdict.INCONCLUSIVE, (reason,), (_evidence(newest),))
        reason = f"{newest.id} is {newest.verdict}"
        return GateResult(asked, newest.verdict, (reason,), (_evidence(newest),))


class OperationalGate(_Recorded, frozen=True, tag="operational", tag_field="kind", kw_only=True):
    """Operational: `salver check` loaded it and sent it requests, and what it measured is within these bounds."""

    cold_start_at_most_s: float | None = None
    p99_at_most_s: float | None = None
    rate_at_least_per_s: float | None = None
    memory_at_most_bytes: int | None = None

    def examine(self, candidate: Candidate) -> GateResult:
        """See `Gate`."""
        asked = "it starts and bears load (salver check)"
        found = [each for each in candidate.evaluations if each.suite == OPERATIONAL_SUITE]
        newest, judged = _newest(self, asked, found, candidate)
        if newest is None or judged is not None:
            return judged or _missing(asked, candidate)
        parts = [Judgement(newest.verdict, (f"{newest.id} is {newest.verdict}",)), *self._bounds(newest)]
        together = Judgement.together(parts)
        return GateResult(
            asked, together.verdict, together.reasons, (_evidence(newest, "cold_start_s", "p99_s", "asked_rate_per_s"),)
        )

    def _bounds(self, evaluation: Evaluation) -> Iterator[Judgement]:
        upper = {
            "cold_start_s": self.cold_start_at_most_s,
            "p99_s": self.p99_at_most_s,
            "memory_bytes": self.memory_at_most_bytes,
        }
        for name, most in upper.items():
            if most is not None:
                yield _bounded(name, evaluation.numbers.get(name), at_most=most)
        if self.rate_at_least_per_s is not None:
            # What it was sent; that it kept up with it is what the verdict says.
            sent = evaluation.numbers.get("asked_rate_per_s")
            yield _bounded("asked_rate_per_s", sent, at_least=self.rate_at_least_per_s)


class MetricGate(_Recorded, frozen=True, tag="metric", tag_field="kind", kw_only=True):
    """Business: a number recorded for the version is within bounds, or better than that of production by so much.

    Where it says whose word counts, or how old that may be, the metadata do not count: anybody may change those who
    may register.
    """

    metric: str
    suite: str = ""
    """Whose newest evaluation has the number; empty: the metadata, else the newest evaluation that has it."""
    at_least: float | None = None
    at_most: float | None = None
    gain_over_production: float | None = None
    """How much better it is at least than the version in production, or where none is, than the last there; a negative
    one permits a loss. Where none ever was, nothing is asked for."""
    higher_is_better: bool = True

    @property
    def is_bounded(self) -> bool:
        """Whether it asks for anything."""
        return any(each is not None for each in (self.at_least, self.at_most, self.gain_over_production))

    @property
    def _is_particular(self) -> bool:
        return bool(self.recorded_by or self.roles or self.within_days)

    def examine(self, candidate: Candidate) -> GateResult:
        """See `Gate`."""
        asked = f"metric {self.metric} {self._wanted()}"
        broken = _broken(candidate.evaluations, self.suite)
        value, evidence = self.value_of(candidate.metrics, candidate.evaluations, candidate.digest)
        if self.suite and broken is not None:
            return GateResult(asked, Verdict.ERROR, (f"{broken.id}: {broken.problem}",), (_evidence(broken),))
        parts = []
        if self.at_least is not None or self.at_most is not None:
            parts.append(_bounded(self.metric, value, at_least=self.at_least, at_most=self.at_most))
        if self.gain_over_production is not None:
            judged, compared = self._gain(value, candidate.production)
            parts.append(judged)
            evidence += compared
        doubt = self.doubt(evidence[0].id, evidence[0].at_s, candidate.now_s) if evidence else ""
        if doubt:
            parts.append(Judgement(Verdict.INCONCLUSIVE, (doubt,)))
        together = Judgement.together(parts)
        return GateResult(asked, together.verdict, together.reasons, evidence)

    def _wanted(self) -> str:
        bounds = {"at least": self.at_least, "at most": self.at_most, "gain": self.gain_over_production}
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)

    def value_of(
        self, metrics: Mapping[str, float], evaluations: Iterable[Evaluation], digest: str
    ) -> tuple[float | None, tuple[Evidence, ...]]:
        """The number of a version with this digest, and where it stands; None where it was never recorded."""
        known = {} if self.suite or self._is_particular else dict(metrics)
        if self.metric in known:
            value = known[self.metric]
            return value, (Evidence("metadata", self.metric, f"{value:g}"),)
        for each in evaluations:
            of_suite = (not self.suite or each.suite == self.suite) and self.counts(each)
            if of_suite and self.metric in each.numbers and each.digest in ("", digest):
                return each.numbers[self.metric], (_evidence(each, self.metric),)
            if self.suite and of_suite:
                break  # an older evaluation does not stand in for what the newest does not say
        return None, ()

    def _gain(self, value: float | None, rival: Rival | None) -> tuple[Judgement, tuple[Evidence, ...]]:
        """The comparison, and what it went by on the other side."""
        assert self.gain_over_production is not None
        if rival is None:
            said = "nothing is in production, and nothing ever was, to compare with"
            return Judgement(Verdict.SUCCESSFUL, (said,)), ()
        theirs, evidence = self.value_of(rival.metrics, rival.evaluations, rival.digest)
        if value is None or theirs is None:
            who = "this version" if value is None else f"{rival.version}, {rival.place}"
            return Judgement(Verdict.INCONCLUSIVE, (f"{self.metric} is not recorded for {who}",)), evidence
        gain = value - theirs if self.higher_is_better else theirs - value
        said = f"{self.metric} is {value:g}, {rival.place} ({rival.version}) {theirs:g}: a gain of {gain:g}"
        enough = gain >= self.gain_over_production
        verdict = Verdict.SUCCESSFUL if enough else Verdict.FAILED
        return Judgement(verdict, (said,)), (Evidence("production", rival.version, said), *evidence)


class ApprovalsGate(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="approvals", tag_field="kind", kw_only=True
):
    """People: so many others agree. The author does not count, and nobody counts twice."""

    count: int = 1
    roles: tuple[Role, ...] = (Role.APPROVER, Role.ADMIN)

    def examine(self, candidate: Candidate) -> GateResult:
        """See `Gate`."""
        author = person_of(candidate.created_by)
        counted = {
            person_of(each.approved_by): each
            for each in candidate.approvals
            if each.target == candidate.target and each.role in self.roles and person_of(each.approved_by) != author
        }
        asked = f"{self.count} approval{'s' * (self.count != 1)} by {' or '.join(self.roles)}, not by the author"
        evidence = tuple(
            Evidence("approval", each.approved_by, each.why or "agrees", each.approved_by, each.approved_s)
            for each in counted.values()
        )
        enough = len(counted) >= self.count
        reason = f"{len(counted)} of {self.count} approvals"
        return GateResult(asked, Verdict.SUCCESSFUL if enough else Verdict.INCONCLUSIVE, (reason,), evidence)


class ChecklistGate(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="checklist", tag_field="kind", kw_only=True
):
    """A checklist that is generated from evidence is complete."""

    name: str

    def examine(self, candidate: Candidate) -> GateResult:
        """See `Gate`."""
        found = candidate.checklists.get(self.name)
        if found is None:
            return GateResult(f"checklist {self.name}", Verdict.ERROR, (f"there is no checklist {self.name!r}",))
        return found


def suites_of(gates: Iterable[AnyGate]) -> frozenset[str] | None:
    """The suites whose evaluations these gates look at; None for all."""
    found = set()
    for gate in gates:
        if isinstance(gate, MetricGate) and not gate.suite:
            return None
        if isinstance(gate, EvaluationGate | MetricGate):
            found.add(gate.suite)
        elif isinstance(gate, OperationalGate):
            found.add(OPERATIONAL_SUITE)
    return frozenset(found)


AnyGate = EvaluationGate | OperationalGate | MetricGate | ApprovalsGate | ChecklistGate


def _newest(
    wanted: _Recorded, asked: str, found: list[Evaluation], candidate: Candidate
) -> tuple[Evaluation | None, GateResult | None]:
    """The evaluation to go by; with it a result where it already decides."""
    if found and found[0].problem:
        return found[0], GateResult(
            asked, Verdict.ERROR, (f"{found[0].id}: {found[0].problem}",), (_evidence(found[0]),)
        )
    counting = [each for each in found if not each.problem and wanted.counts(each)]
    if not counting:
        return None, None
    newest = counting[0]
    doubt = wanted.doubt(newest.id, newest.recorded_s, candidate.now_s)
    if newest.digest != candidate.digest:
        said = f"is about the digest {newest.digest[:12]}" if newest.digest else "does not say which digest it is about"
        doubt = f"{newest.id} {said}; this version has {candidate.digest[:12]}"
    if doubt:
        return newest, GateResult(asked, Verdict.INCONCLUSIVE, (doubt,), (_evidence(newest),))
    return newest, None


def _missing(asked: str, candidate: Candidate) -> GateResult:
    return GateResult(asked, Verdict.INCONCLUSIVE, (f"nothing that counts is recorded for {candidate.reference}",))


def _bounded(
    name: str, value: float | None, *, at_least: float | None = None, at_most: float | None = None
) -> Judgement:
    if value is None:
        return Judgement(Verdict.INCONCLUSIVE, (f"{name} is not recorded for this version",))
    if at_least is not None and not value >= at_least:
        return Judgement(Verdict.FAILED, (f"{name} is {value:g}, below {at_least:g}",))
    if at_most is not None and not value <= at_most:
        return Judgement(Verdict.FAILED, (f"{name} is {value:g}, above {at_most:g}",))
    return Judgement(Verdict.SUCCESSFUL, (f"{name} is {value:g}",))


def _broken(evaluations: Iterable[Evaluation], suite: str) -> Evaluation | None:
    """The newest evaluation of a suite, where it cannot be read."""
    newest = next((each for each in evaluations if each.suite == suite), None)
    return newest if newest is not None and newest.problem else None


def _evidence(evaluation: Evaluation, *names: str) -> Evidence:
    shown = {name: evaluation.numbers[name] for name in names if name in evaluation.numbers}
    said = f'suite "{evaluation.suite}" {evaluation.verdict}'
    return Evidence("evaluation", evaluation.id, said, evaluation.recorded_by, evaluation.recorded_s, shown)
