"""What there is to decide about: a version on its way, read with its evidence from the rows of one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Connection

from salver.protocol.stages import Stage
from salver.protocol.tables import VersionManifest
from salver.registry.approvals import approvals_of, author_of
from salver.registry.candidate import Candidate, Evidence, GateResult
from salver.registry.decisions import entrance_of, was_near_production
from salver.registry.description_rows import description_of
from salver.registry.evidence import evaluations_of
from salver.registry.gates import ChecklistGate, MetricGate, suites_of
from salver.registry.in_use import rival_of
from salver.registry.policy import Policy
from salver.registry.stages import VersionStage

__all__ = ["AskChecklist", "candidate_of"]

AskChecklist = Callable[[Connection, str, str], GateResult]
"""What a gate `checklist` asks about a model and a version, by its name."""


def candidate_of(
    connection: Connection,
    manifest: VersionManifest,
    here: VersionStage,
    target: Stage,
    policy: Policy,
    checklists: Mapping[str, AskChecklist],
    now_s: float,
) -> Candidate:
    """All that the policy's gates on the way to `target` look at, and no more."""
    model, version = manifest.model, manifest.version
    skipped = _skipped(connection, here)
    ways = (*skipped, (here.stage, target))
    entrance = _entrance(connection, here, target, policy)
    gates = policy.gates(model, *ways, returns=entrance is not None)
    suites = suites_of(gates)
    compared = any(isinstance(gate, MetricGate) and gate.gain_over_production is not None for gate in gates)
    named = {gate.name for gate in gates if isinstance(gate, ChecklistGate)}
    return Candidate(
        model,
        version,
        manifest.digest,
        author_of(connection, model, version),
        here.stage,
        target,
        now_s,
        skipped=skipped,
        metrics=description_of(connection, model, version).metrics,
        evaluations=evaluations_of(connection, model, version, suites),
        entrance=entrance,
        approvals=approvals_of(connection, model, version, target),
        production=rival_of(connection, model, version, suites) if compared else None,
        checklists={name: checklists[name](connection, model, version) for name in named if name in checklists},
    )


def _skipped(connection: Connection, here: VersionStage) -> tuple[tuple[Stage, Stage], ...]:
    """The ways before staging that an archived version never went: the archive is none around their gates."""
    if here.stage is not Stage.ARCHIVED or was_near_production(connection, here):
        return ()
    return ((Stage.DEVELOPMENT, Stage.VALIDATION), (Stage.VALIDATION, Stage.STAGING))


def _entrance(connection: Connection, here: VersionStage, target: Stage, policy: Policy) -> Evidence | None:
    """The decision by which a version may come back into production; None where no gate would go by it."""
    way = (here.stage, target)
    if target is not Stage.PRODUCTION or policy.gates(here.model, way) == policy.gates(here.model, way, returns=True):
        return None
    found = entrance_of(connection, here, past_gates=True)
    if found is None:
        return None
    return Evidence("decision", found.id, f"{found.source} -> {found.target}", found.actor, found.at_s)
