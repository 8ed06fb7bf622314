"""Decisions: whether a version may go on, and from what. Every one is kept, also the refusals."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, func, insert, select

from salver.protocol.stages import Stage
from salver.protocol.verdict import Judgement, Verdict
from salver.registry.candidate import Candidate, Evidence, GateResult
from salver.registry.policy import Policy, PolicyInForce
from salver.registry.stages import NEAR_PRODUCTION, VersionStage
from salver.storage.registry_schema import decisions

__all__ = [
    "Decision",
    "DecisionRecord",
    "decide",
    "decisions_of",
    "entrance_of",
    "entries_into_production",
    "next_id",
    "record_of",
    "was_near_production",
    "write_decision",
]

_MOST: Final = 1000
_MOVED: Final = (decisions.c.verdict == Verdict.SUCCESSFUL.value) | decisions.c.emergency
# Clocks may be set back; of one version the number tells the order.
_NEWEST_FIRST: Final = (func.length(decisions.c.id).desc(), decisions.c.id.desc())


class Decision(msgspec.Struct, frozen=True):
    """What a policy says of a candidate: the verdict of all gates together, and each of them."""

    verdict: Verdict
    reasons: tuple[str, ...]
    gates: tuple[GateResult, ...]


class DecisionRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One decision as it is kept."""

    id: str
    """Counts the decisions about the version, from 1."""
    model: str
    version: str
    source: Stage
    target: Stage
    at_s: float
    actor: str
    verdict: Verdict
    """Of the gates; an emergency does not make it better."""
    moved: bool
    """Whether the version went to the target."""
    emergency: bool = False
    """It went past its gates, or would have."""
    why: str = ""
    reasons: tuple[str, ...] = ()
    gates: tuple[GateResult, ...] = ()
    digest: str = ""
    """Of the version."""
    policy_digest: str = ""
    """Empty where no policy was set."""
    replaced: tuple[str, ...] = ()
    """Versions that made room in production."""
    returns_on: str = ""
    """The decision by whose evidence it came into production again."""


def decide(policy: Policy, candidate: Candidate) -> Decision:
    """Ask every gate on the candidate's way. Pure; without gates the way is free.

    A gate more never lets more through: together the worst verdict counts.
    """
    asked = policy.gates(candidate.model, *candidate.ways, returns=candidate.entrance is not None)
    gates = tuple(gate.examine(candidate) for gate in asked)
    if candidate.entrance is not None:
        gates = (_entered(candidate.entrance), *gates)
    if not gates:
        return Decision(Verdict.SUCCESSFUL, ("no gate stands there",), ())
    together = Judgement.together(
        Judgement(each.verdict, tuple(f"{each.gate}: {reason}" for reason in each.reasons)) for each in gates
    )
    return Decision(together.verdict, together.reasons, gates)


def _entered(before: Evidence) -> GateResult:
    said = f"decision {before.id} let it in, and it has since been in staging and shadow only"
    return GateResult("it was in production before", Verdict.SUCCESSFUL, (said,), (before,))


def next_id(connection: Connection, model: str, version: str) -> str:
    """The number of the next decision about a version. REQUIRES a transaction that writes."""
    query = select(func.count()).where(_about(model, version))
    return str(connection.execute(query).scalar_one() + 1)


def record_of(
    decision: Decision, candidate: Candidate, in_force: PolicyInForce, *, identity: str, actor: str, why: str
) -> DecisionRecord:
    """What is kept of a decision; whether the version moved, and past its gates, is for the caller to add."""
    return DecisionRecord(
        identity,
        candidate.model,
        candidate.version,
        candidate.source,
        candidate.target,
        candidate.now_s,
        actor,
        decision.verdict,
        moved=False,
        why=why,
        reasons=decision.reasons,
        gates=decision.gates,
        digest=candidate.digest,
        policy_digest=in_force.digest,
        returns_on=candidate.entrance.id if candidate.entrance else "",
    )


def entrance_of(connection: Connection, here: VersionStage, *, past_gates: bool = False) -> DecisionRecord | None:
    """The last decision that let a version into production, if it has been nowhere but near that since.

    With `past_gates` the last one that gates have judged: neither an emergency nor a return.
    """
    query = select(decisions).where(_about(here.model, here.version), _MOVED).order_by(*_NEWEST_FIRST)
    stages = {here.stage}
    for record in map(_read, connection.execute(query)):
        stages |= {record.source, record.target}
        if not stages <= NEAR_PRODUCTION:
            return None
        judged = record.verdict is Verdict.SUCCESSFUL and not record.returns_on
        if record.target is Stage.PRODUCTION and (judged or not past_gates):
            return record
    return None


def entries_into_production(connection: Connection, model: str) -> dict[str, float]:
    """The versions of a model that ever were in production, and when each last came there."""
    into = (decisions.c.target == Stage.PRODUCTION.value) & _MOVED
    query = select(decisions.c.version, func.max(decisions.c.at_s).label("at_s"))
    query = query.where(decisions.c.model == model, into).group_by(decisions.c.version)
    return {row.version: row.at_s for row in connection.execute(query)}


def was_near_production(connection: Connection, here: VersionStage) -> bool:
    """Whether a version has ever been in staging or further: then something was decided about it there."""
    there = decisions.c.source.in_([stage.value for stage in NEAR_PRODUCTION])
    query = select(func.count()).where(_about(here.model, here.version), there)
    return bool(connection.execute(query).scalar_one())


def write_decision(connection: Connection, record: DecisionRecord) -> None:
    """Keep a decision, in the transaction that carries it out."""
    columns = ("id", "model", "version", "source", "target", "at_s", "actor", "verdict", "emergency")
    row: dict[str, Any] = {name: getattr(record, name) for name in columns}
    row |= {name: row[name].value for name in ("source", "target", "verdict")}
    connection.execute(insert(decisions).values(row | {"document": msgspec.json.encode(record).decode()}))


def decisions_of(
    connection: Connection, model: str, version: str | None = None, limit: int = _MOST
) -> tuple[DecisionRecord, ...]:
    """The decisions about a model or one version, the newest first."""
    query = select(decisions).where(decisions.c.model == model)
    if version is not None:
        query = select(decisions).where(_about(model, version))
    query = query.order_by(decisions.c.at_s.desc(), decisions.c.version, *_NEWEST_FIRST)
    return tuple(_read(row) for row in connection.execute(query.limit(limit)))


def _about(model: str, version: str) -> ColumnElement[bool]:
    return (decisions.c.model == model) & (decisions.c.version == version)


def _read(row: Row[Any]) -> DecisionRecord:
    return msgspec.json.decode(row.document, type=DecisionRecord)
