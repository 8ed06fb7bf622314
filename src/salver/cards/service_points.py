"""Points of the checklist about how a version serves: infrastructure, performance, monitoring, rollback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from salver.cards.document import amount, listed
from salver.cards.points import COMPARISON_SUITE, Found, check_in_evaluations, evidence_of, good, stale
from salver.protocol.datatypes import DATATYPES
from salver.protocol.tables import DeploymentSpec, Validate
from salver.protocol.verdict import Judgement, Verdict
from salver.registry.dossier import Dossier
from salver.registry.evidence import Evaluation
from salver.registry.gates import OPERATIONAL_SUITE
from salver.registry.ways_back import WayBack

__all__ = ["INFRASTRUCTURE", "MONITORING", "PERFORMANCE", "ROLLBACK"]

Look = Callable[[Dossier], Found]

_CHECK: Final = "salver check NAME@VERSION --rate ... --p99 ... --cold-start ..."


def _bears_load(dossier: Dossier) -> Found:
    newest = dossier.newest(OPERATIONAL_SUITE)
    if newest is None:
        return Found(Verdict.INCONCLUSIVE, "it was never tried alone on a clean server", _CHECK)
    old = stale(dossier, newest)
    if old:
        return Found(Verdict.INCONCLUSIVE, old, _CHECK, evidence=evidence_of(newest))
    numbers = newest.numbers
    shown = {"cold start": "cold_start_s", "p99": "p99_s"}
    said = listed(f"{name} {numbers[key]:.3g} s" for name, key in shown.items() if key in numbers)
    told = f"tried alone on a clean server: {newest.verdict}" + (f", {said}" if said else "")
    remedy = "" if newest.verdict is Verdict.SUCCESSFUL else _CHECK
    return Found(newest.verdict, told, remedy, evidence=evidence_of(newest, *shown.values()))


def _memory(dossier: Dossier) -> Found:
    """What it took when it was tried, against what its deployments let a worker have."""
    newest = dossier.newest(OPERATIONAL_SUITE)
    took = newest.numbers.get("memory_bytes", 0.0) if newest else 0.0
    if not took:
        return Found(Verdict.INCONCLUSIVE, "nobody has measured its memory", _CHECK, required=False)
    tight = [each.endpoint for each in dossier.deployments if each.worker_memory_bytes < took]
    if tight:
        said = f"it took {amount(took)}; a worker of {listed(tight)} may have less"
        return Found(Verdict.FAILED, said, f"salver deploy NAME --endpoint {tight[0]} --worker-memory ...")
    return good(f"it took {amount(took)}, which its deployments allow", required=False)


def _limits(dossier: Dossier) -> Found:
    specs = dossier.deployments or (DeploymentSpec("", "", ""),)
    each = specs[0]
    where = f"{each.endpoint}: " if each.endpoint else "not deployed yet; by default "
    said = f"{where}deadline {each.deadline_s:g} s, queue {each.max_queue}, batch {each.max_batch} rows, worker "
    return good(said + f"{amount(each.worker_memory_bytes)}, loading {each.load_timeout_s:g} s")


INFRASTRUCTURE: Final[dict[str, Look]] = {
    "starts and bears load": _bears_load,
    "memory fits": _memory,
    "limits set": _limits,
}


def _evaluated(dossier: Dossier) -> Found:
    """The newest evaluation of every suite: successful, about these bytes, and fresh."""
    remedy = "salver evaluate NAME@VERSION --suite SUITE --data FILE --record"
    broken = next((each for each in dossier.evaluations if each.problem), None)
    if broken is not None:
        return Found(Verdict.ERROR, f"{broken.id}: {broken.problem}", remedy, evidence=evidence_of(broken))
    suites = dict.fromkeys(each.suite for each in dossier.evaluations)
    newest = [
        each
        for suite in suites
        if suite not in (OPERATIONAL_SUITE, COMPARISON_SUITE) and (each := dossier.newest(suite)) is not None
    ]
    if not newest:
        return Found(Verdict.INCONCLUSIVE, "no evaluation of these very bytes is recorded", remedy)
    together = Judgement.together(_fresh(dossier, each) for each in newest)
    evidence = tuple(evidence for each in newest for evidence in evidence_of(each))
    todo = "" if together.verdict is Verdict.SUCCESSFUL else remedy
    return Found(together.verdict, "; ".join(together.reasons), todo, evidence=evidence)


def _fresh(dossier: Dossier, evaluation: Evaluation) -> Judgement:
    old = stale(dossier, evaluation)
    if old:
        return Judgement(Verdict.INCONCLUSIVE, (old,))
    said = f"suite {evaluation.suite} is {evaluation.verdict} on {evaluation.evaluated_rows} rows"
    return Judgement(evaluation.verdict, (said,))


def _compared(dossier: Dossier) -> Found:
    """Whether it was held against what it would replace."""
    present = dossier.in_production[0] if dossier.in_production else None
    if present is None:
        return good("nothing else is in production to compare with", required=False)
    reference = f"{dossier.manifest.model}@{present.version}"
    for each in dossier.evaluations:
        if each.against == reference and each.digest == dossier.manifest.digest:
            said = f"compared with {reference}: {each.verdict}"
            remedy = "" if each.verdict is Verdict.SUCCESSFUL else f"salver compare NAME@VERSION {reference}"
            return Found(each.verdict, said, remedy, required=False, evidence=evidence_of(each))
    said = f"it was never compared with {reference}, which is in production"
    return Found(Verdict.INCONCLUSIVE, said, f"salver compare NAME@VERSION {reference} --record", required=False)


def _in_suite(check: str, missing: str, section: str) -> Look:
    return lambda dossier: check_in_evaluations(dossier, check, missing, f"add {section} to the suite")


PERFORMANCE: Final[dict[str, Look]] = {
    "evaluated": _evaluated,
    "compared": _compared,
    "slices looked at": _in_suite("slices", "no evaluation has looked for parts where it is worse", "[slices]"),
    "calibrated": _in_suite("calibration", "no evaluation has looked at its probabilities", "[calibration]"),
}


def _profile(dossier: Dossier) -> Found:
    manifest = dossier.manifest
    if manifest.profile is not None:
        rows = max((each.rows for each in manifest.profile.inputs), default=0)
        return good(f"a profile of {rows} training rows: inputs unlike them are noticed")
    numeric = any(DATATYPES[spec.datatype].json_type in (int, float) for spec in manifest.signature.inputs)
    if not numeric:
        said = "its inputs are no numbers, of which alone there are profiles"
        return Found(Verdict.INCONCLUSIVE, said, "watch its inputs yourself", required=False)
    remedy = "register it with --profile TRAINING-ROWS"
    return Found(Verdict.INCONCLUSIVE, "it has no profile: inputs unlike its training are not noticed", remedy)


def _validates(dossier: Dossier) -> Found:
    off = [each.endpoint for each in dossier.deployments if each.validate is Validate.OFF]
    if off:
        said = f"{listed(off)} does not look at inputs"
        return Found(Verdict.FAILED, said, f"salver deploy NAME --endpoint {off[0]} --validate warn", required=False)
    return good("inputs are held against the profile, if there is one", required=False)


def _counted(_: Dossier) -> Found:
    return good("requests, failures, refusals and latency of every endpoint are counted: GET /metrics")


def _alerts(_: Dossier) -> Found:
    said = "this Salver has no alerts, error budgets or drift detection of its own yet"
    remedy = "alert on salver_failures_total, salver_request_seconds and salver_outside_profile_total with Prometheus"
    return Found(Verdict.INCONCLUSIVE, said, remedy, required=False)


MONITORING: Final[dict[str, Look]] = {
    "profile": _profile,
    "inputs looked at": _validates,
    "requests counted": _counted,
    "alerts": _alerts,
}


def _way_back(dossier: Dossier) -> WayBack | None:
    return next((each for each in dossier.ways_back if not each.problem), None)


def _can_go_back(dossier: Dossier) -> Found:
    target = _way_back(dossier)
    if target is not None:
        return good(f"{target.version} {target.was} and can be loaded")
    if not dossier.ways_back:
        said = "no other version was in production or deployed: there is nothing to go back to"
        return Found(Verdict.INCONCLUSIVE, said, "decide what clients do without it", required=False)
    lost = "; ".join(f"{each.version} {each.was} and {each.problem}" for each in dossier.ways_back[:3])
    remedy = "salver promote NAME@EARLIER staging revives an archived one"
    return Found(Verdict.INCONCLUSIVE, f"of what served before it none can be loaded: {lost}", remedy)


def _harmless(dossier: Dossier) -> Found:
    target = _way_back(dossier)
    if target is None:
        return Found(Verdict.INCONCLUSIVE, "there is no version to go back to", required=False)
    if target.breaks:
        said = f"whoever has moved to it may not understand {target.version}: {target.breaks[0]}"
        remedy = f"keep {target.version} deployed as an endpoint of its own"
        return Found(Verdict.INCONCLUSIVE, said, remedy, required=False)
    return good(f"clients of it understand {target.version}", required=False)


ROLLBACK: Final[dict[str, Look]] = {"way back": _can_go_back, "way back breaks nobody": _harmless}
