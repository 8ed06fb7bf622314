"""The way of versions through the stages: asked for, decided by the policy, carried out and recorded as one.

A promotion is one transaction: the stage, the room it makes in production, the approvals it uses up, the decision
with its evidence and the record in the journal happen together or not at all. Of two at once one comes first, and
the other meets what that one made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import JournalAction
from salver.protocol.reasons import checked_why
from salver.protocol.stages import OUT, Stage
from salver.protocol.tables import VersionManifest
from salver.protocol.verdict import Verdict
from salver.registry.approvals import drop_approvals
from salver.registry.availability import Standing, standings_of
from salver.registry.candidacy import AskChecklist, candidate_of
from salver.registry.candidate import Candidate
from salver.registry.catalog import find_version, require_model
from salver.registry.decisions import DecisionRecord, decide, decisions_of, next_id, record_of, write_decision
from salver.registry.deletions import require_not_deleted
from salver.registry.holds import hold_of, require_not_held
from salver.registry.in_use import endpoints_of, in_production, require_not_deployed, require_production
from salver.registry.policy import ModelRule, Policy, policy_in_force
from salver.registry.revocations import require_unrevoked
from salver.registry.stages import FORWARD, VersionStage, goes_back, require_way, stage_of, write_stage
from salver.security.access import Operation, Principal, Role, require
from salver.storage.database import Database, raise_revision
from salver.storage.journal import Journal, journal_position, occasion
from salver.storage.registry_schema import retirements

__all__ = ["Lifecycle", "Promotion", "PromotionRequest"]

_IN_USE: Final = frozenset({Stage.SHADOW, Stage.PRODUCTION})
_LOOKS: Final = 3
"""How often a candidate is looked at before the write lock is taken; while others keep changing things, under it."""


class PromotionRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A way that a version is to go."""

    model: str
    version: str
    target: Stage
    why: str = ""
    if_stage: Stage | None = None
    """Only if it is in this stage now."""
    if_production: str | None = None
    """Only if this version is in production now; empty for none."""
    emergency: bool = False
    """Past the gates, with a reason, and marked for ever."""
    dry_run: bool = False
    """Only say what the gates say."""


class Promotion(VersionStage, frozen=True, kw_only=True):
    """Where the version stands now, and what became of the request."""

    moved: bool
    already: bool = False
    """It stood there already: nothing was decided."""
    decision: DecisionRecord | None = None
    """With an empty id where it was only asked for."""
    replaced: tuple[VersionStage, ...] = ()
    """Where versions went that made room in production."""

    @classmethod
    def at(cls, here: VersionStage, **became: Any) -> Promotion:
        """Of a version that now stands `here`."""
        return cls(**msgspec.structs.asdict(here), **became)


class Lifecycle:
    """The stages in one database. `checklists` are asked by their names."""

    __slots__ = ("_checklists", "_clock", "_database", "_journal")

    def __init__(
        self, database: Database, journal: Journal, clock: Clock, checklists: Mapping[str, AskChecklist] | None = None
    ) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self._checklists = dict(checklists or {})

    def promote(self, principal: Principal, request: PromotionRequest) -> Promotion:
        """Bring a version to a stage, if the gates on the way are open; to be there already is to have arrived.

        A refusal by gates is an answer (`moved` is false, the decision says why) and is kept. Raises
        PERMISSION_DENIED, NOT_FOUND, ILLEGAL_TRANSITION, CONFLICT where `if_stage` or `if_production` do not hold or a
        version is deployed that is to be put away, REFUSED_BY_POLICY for a held or revoked one, and INVALID_PARAMETER
        for an emergency or a way back without a reason; then nothing has changed.
        """
        require(principal, Operation.PROMOTE)
        request = _with_reason(request)
        with occasion(why=request.why):
            if request.dry_run:
                with self._database.read() as connection:
                    return self._promote(connection, principal, request)
            for _ in range(_LOOKS):
                with self._database.read() as connection:
                    position, looked_at = journal_position(connection), self._look(connection, request)
                with self._database.begin() as connection:
                    if journal_position(connection) == position:
                        return self._promote(connection, principal, request, looked_at=looked_at)
            with self._database.begin() as connection:
                return self._promote(connection, principal, request)

    def stages(self, model: str | None = None, after: int = 0) -> tuple[Standing, ...]:
        """Where each version stands, the oldest first, those `after` an ordinal; NOT_FOUND for an unknown model."""
        with self._database.read() as connection:
            found = standings_of(connection, model, after)
            if not found and model is not None:
                require_model(connection, model)
            return found

    def decisions(self, model: str, version: str | None = None, limit: int = 100) -> tuple[DecisionRecord, ...]:
        """The decisions about a model or one version, the newest first."""
        with self._database.read() as connection:
            if version is None:
                require_model(connection, model)
            else:
                find_version(connection, model, version)
            return decisions_of(connection, model, version, limit)

    def retire(self, connection: Connection, principal: Principal, reference: tuple[str, str], why: str) -> Promotion:
        """Archive a version in a transaction that is already open, through the gates as ever. Raises as `promote`."""
        with occasion(why=why):
            return self._promote(connection, principal, PromotionRequest(*reference, Stage.ARCHIVED, why), "retire")

    def _look(self, connection: Connection, request: PromotionRequest) -> Candidate | None:
        """What there is to decide about, where there is something; it may take long, but holds no lock."""
        manifest = find_version(connection, request.model, request.version)
        here = stage_of(connection, request.model, request.version)
        if here.stage is request.target:
            return None
        return self._candidate(connection, manifest, here, request.target, policy_in_force(connection).policy)

    def _candidate(
        self, connection: Connection, manifest: VersionManifest, here: VersionStage, target: Stage, policy: Policy
    ) -> Candidate:
        return candidate_of(connection, manifest, here, target, policy, self._checklists, self._clock.wall_s())

    def _promote(
        self,
        connection: Connection,
        principal: Principal,
        request: PromotionRequest,
        action: JournalAction = "promote",
        looked_at: Candidate | None = None,
    ) -> Promotion:
        """Decide and carry out; `looked_at` is what `_look` has seen of this very state."""
        manifest = find_version(connection, request.model, request.version)
        here = stage_of(connection, request.model, request.version)
        if here.stage is request.target:
            return Promotion.at(here, moved=False, already=True)
        in_force = policy_in_force(connection)
        policy = in_force.policy
        self._check_possible(connection, principal, request, here, policy)
        candidate = looked_at or self._candidate(connection, manifest, here, request.target, policy)
        candidate = msgspec.structs.replace(candidate, now_s=self._clock.wall_s())
        decision = decide(policy, candidate)
        identity = "" if request.dry_run else next_id(connection, request.model, request.version)
        record = record_of(decision, candidate, in_force, identity=identity, actor=principal.name, why=request.why)
        if request.dry_run:
            return Promotion.at(here, moved=False, decision=record)
        if decision.verdict is not Verdict.SUCCESSFUL and not request.emergency:
            return self._refuse(connection, principal, here, record)
        return self._move(connection, principal, here, record, request, policy, action)

    def _check_possible(
        self,
        connection: Connection,
        principal: Principal,
        request: PromotionRequest,
        here: VersionStage,
        policy: Policy,
    ) -> None:
        if request.if_stage not in (None, here.stage):
            raise SalverError(
                "CONFLICT",
                f"{here.reference} is in {here.stage}, not in {request.if_stage}",
                "look again and decide anew",
            )
        move = require_way(here, request.target)
        if _IN_USE.intersection({here.stage, request.target}):
            require(principal, Operation.DEPLOY)
        if request.if_production is not None:
            require_production(connection, request.model, request.if_production)
        if request.emergency:
            _require_emergency_role(principal, policy.rule_for(request.model))
        if goes_back(here.stage, request.target) and not request.why:
            raise SalverError(
                "INVALID_PARAMETER",
                f"{here.reference} goes back from {here.stage} to {request.target} for no reason that is said",
                "say it with --why",
            )
        if move.event in FORWARD:
            require_unrevoked(connection, request.model, request.version)
            require_not_deleted(connection, request.model, request.version)
        if request.target is Stage.ARCHIVED:
            require_not_held(connection, request.model, request.version)
        if request.target in OUT:
            require_not_deployed(connection, here, request.target)

    def _refuse(
        self, connection: Connection, principal: Principal, here: VersionStage, record: DecisionRecord
    ) -> Promotion:
        write_decision(connection, record)
        self._record(connection, principal, "refuse_promotion", here, here, record)
        return Promotion.at(here, moved=False, decision=record)

    def _move(
        self,
        connection: Connection,
        principal: Principal,
        here: VersionStage,
        record: DecisionRecord,
        request: PromotionRequest,
        policy: Policy,
        action: JournalAction,
    ) -> Promotion:
        there = msgspec.structs.replace(
            here, stage=request.target, since_s=record.at_s, emergency=here.emergency or request.emergency
        )
        replaced: tuple[VersionStage, ...] = ()
        if request.target is Stage.PRODUCTION:
            replaced = self._make_room(connection, principal, there, policy)
        record = msgspec.structs.replace(
            record, moved=True, emergency=request.emergency, replaced=tuple(each.version for each in replaced)
        )
        _put(connection, there)
        write_decision(connection, record)
        self._record(connection, principal, action, here, there, record)
        return Promotion.at(there, moved=True, decision=record, replaced=replaced)

    def _record(
        self,
        connection: Connection,
        principal: Principal,
        action: JournalAction,
        here: VersionStage,
        there: VersionStage,
        record: DecisionRecord,
    ) -> None:
        details: dict[str, Any] = {
            "source": record.source.value,
            "target": record.target.value,
            "decision": record.id,
            "verdict": record.verdict.value,
            "emergency": record.emergency,
            "digest": record.digest,
        }
        if record.replaced:
            details["replaced"] = list(record.replaced)
        if not record.moved:
            details["reasons"] = list(record.reasons)
        self._journal.append(
            connection,
            actor=principal.name,
            action=action,
            subject=here.reference,
            details=details,
            before=here,
            after=there,
        )

    def _make_room(
        self, connection: Connection, principal: Principal, comer: VersionStage, policy: Policy
    ) -> tuple[VersionStage, ...]:
        """Move those out of production that have no place beside `comer`; returns where they are now."""
        rule = policy.rule_for(comer.model)
        if rule.most_in_production == 0:
            return ()
        present = [each for each in in_production(connection, comer.model) if each.version != comer.version]
        leaving = present[: max(0, len(present) - rule.most_in_production + 1)]
        return tuple(
            self._replace(connection, principal, each, comer, archives=rule.on_replaced == "archived")
            for each in leaving
        )

    def _replace(
        self, connection: Connection, principal: Principal, here: VersionStage, comer: VersionStage, *, archives: bool
    ) -> VersionStage:
        """What is still deployed or held stays in staging; the former is put down for the archive."""
        endpoints = endpoints_of(connection, here)
        held = hold_of(connection, here.model, here.version) is not None
        target = Stage.ARCHIVED if archives and not endpoints and not held else Stage.STAGING
        now_s = comer.since_s or self._clock.wall_s()
        there = msgspec.structs.replace(here, stage=target, since_s=now_s)
        _put(connection, there)
        if archives and endpoints and not held:
            connection.execute(
                retirements.insert().values(
                    model=here.model,
                    version=here.version,
                    rule="replaced",
                    reason=f"{comer.version} took its place in production",
                    proposed_s=now_s,
                    due_s=now_s,
                    proposed_by=principal.name,
                )
            )
        details = {"source": here.stage.value, "target": target.value, "by": comer.version, "deployed": list(endpoints)}
        self._journal.append(
            connection,
            actor=principal.name,
            action="replace",
            subject=here.reference,
            details=details,
            before=here,
            after=there,
        )
        return there


def _put(connection: Connection, there: VersionStage) -> None:
    """Write a new stage; what was said for the old one is void."""
    write_stage(connection, there)
    drop_approvals(connection, there.model, there.version)
    proposed = (retirements.c.model == there.model) & (retirements.c.version == there.version)
    if connection.execute(delete(retirements).where(proposed)).rowcount:
        raise_revision(connection)


def _require_emergency_role(principal: Principal, rule: ModelRule) -> None:
    allowed = {Role.ADMIN, *rule.emergency_roles}
    if principal.role not in allowed:
        raise SalverError(
            "PERMISSION_DENIED",
            f"{principal.name} has role {principal.role}, which may not promote past the gates",
            f"use a token with one of the roles {', '.join(sorted(allowed))}",
        )


def _with_reason(request: PromotionRequest) -> PromotionRequest:
    why = checked_why(request.why)
    if request.emergency and not why:
        raise SalverError("INVALID_PARAMETER", "an emergency needs a reason", "say it with --why")
    return msgspec.structs.replace(request, why=why)
