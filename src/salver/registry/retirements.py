"""The retirements of a home: proposed by its policy, shown with who would miss them, cancelled or carried out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import JournalAction
from salver.protocol.stages import OUT
from salver.registry.catalog import find_version
from salver.registry.description_rows import description_of
from salver.registry.evidence import evaluations_of
from salver.registry.in_use import endpoints_of
from salver.registry.lifecycle import Lifecycle
from salver.registry.policy import policy_in_force
from salver.registry.retirement_rules import Proposal, Retiree, propose
from salver.registry.stages import VersionStage, stages_of
from salver.registry.usage import VersionUse, use_of
from salver.security.access import Operation, Principal, require
from salver.storage.database import Database, raise_revision
from salver.storage.journal import Journal
from salver.storage.registry_schema import holds, retirements
from salver.storage.schema import deployments, versions

__all__ = ["Kept", "RetirementRun", "Retirements"]


class Kept(msgspec.Struct, frozen=True):
    """A version that is due and was not archived, and why not."""

    proposal: Proposal
    reason: str


class RetirementRun(msgspec.Struct, frozen=True):
    """What a run has done."""

    archived: tuple[Proposal, ...] = ()
    kept: tuple[Kept, ...] = ()
    waiting: tuple[Proposal, ...] = ()
    """Those that are not due yet."""


class Retirements:
    """The retirements in one database."""

    __slots__ = ("_clock", "_database", "_journal", "_lifecycle")

    def __init__(self, database: Database, journal: Journal, clock: Clock, lifecycle: Lifecycle) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self._lifecycle = lifecycle

    def propose(self, principal: Principal, rule: str | None = None, *, dry_run: bool = False) -> tuple[Proposal, ...]:
        """Propose what the policy, or one rule of it, retires and is not proposed yet; returns what is new.

        Raises PERMISSION_DENIED, NOT_FOUND for an unknown rule.
        """
        require(principal, Operation.DEPLOY)
        if dry_run:
            with self._database.read() as connection:
                return self._new_proposals(connection, principal, rule)
        with self._database.begin() as connection:
            found = self._new_proposals(connection, principal, rule)
            if found:
                raise_revision(connection)  # whoever asks those that are deployed is told
            for each in found:
                connection.execute(insert(retirements).values(_row(each)))
                details = {
                    "rule": each.rule,
                    "reason": each.reason,
                    "due_s": each.due_s,
                    "clients": [use.client for use in each.clients],
                    "endpoints": list(each.endpoints),
                }
                self._record(connection, principal, "propose_retirement", each, details, after=each)
        return found

    def list(self) -> tuple[Proposal, ...]:
        """What is proposed now and who would miss it, the first due first."""
        with self._database.read() as connection:
            return _proposals(connection)

    def cancel(self, principal: Principal, model: str, version: str) -> Proposal:
        """Take a proposal back and return it; NOT_FOUND where there is none.

        The policy proposes it again at its next turn, if it still holds of it: hold the version, or change the policy.
        """
        require(principal, Operation.DEPLOY)
        with self._database.begin() as connection:
            for each in _proposals(connection):
                if (each.model, each.version) == (model, version):
                    _drop(connection, each)
                    details = {"rule": each.rule}
                    self._record(connection, principal, "cancel_retirement", each, details, before=each)
                    return each
            find_version(connection, model, version)
        raise SalverError("NOT_FOUND", f"{model}@{version} is not proposed for retirement", "salver retire list")

    def run(self, principal: Principal) -> RetirementRun:
        """Archive what is due, each in a transaction of its own; what is deployed or refused is kept and named."""
        require(principal, Operation.DEPLOY)
        now_s = self._clock.wall_s()
        archived, kept, waiting = [], [], []
        for each in self.list():
            if each.due_s > now_s:
                waiting.append(each)
                continue
            problem = self._archive(principal, each)
            if problem:
                kept.append(Kept(each, problem))
            else:
                archived.append(each)
        return RetirementRun(tuple(archived), tuple(kept), tuple(waiting))

    def _archive(self, principal: Principal, proposal: Proposal) -> str:
        """Archive one version; returns why it was not."""
        try:
            with self._database.begin() as connection:
                present = {(each.model, each.version): each for each in _proposals(connection)}
                now = present.get((proposal.model, proposal.version))
                if now is None or now.due_s != proposal.due_s:
                    return "the proposal was changed meanwhile"
                why = f"retirement {proposal.rule}: {proposal.reason}"[:1000]
                done = self._lifecycle.retire(connection, principal, (proposal.model, proposal.version), why)
                if done.already:
                    _drop(connection, proposal)
        except SalverError as error:
            return str(error)
        if done.moved or done.already or done.decision is None:
            return ""
        return "; ".join(done.decision.reasons)

    def _new_proposals(self, connection: Connection, principal: Principal, rule: str | None) -> tuple[Proposal, ...]:
        rules = policy_in_force(connection).policy.retirements
        if rule is not None:
            known = ", ".join(each.name for each in rules) or "none"
            rules = tuple(each for each in rules if each.name == rule)
            if not rules:
                raise SalverError(
                    "NOT_FOUND",
                    f"the policy has no retirement rule {rule[:80]!r}",
                    f"it has {known}: salver policy show",
                )
        present = {(each.model, each.version) for each in _proposals(connection)}
        judged = any(each.worse_than_production is not None for each in rules)
        found = propose(rules, _retirees(connection, judged=judged), self._clock.wall_s())
        return tuple(
            msgspec.structs.replace(each, proposed_by=principal.name)
            for each in found
            if (each.model, each.version) not in present
        )

    def _record(
        self,
        connection: Connection,
        principal: Principal,
        action: JournalAction,
        each: Proposal,
        details: Any,
        **changed: Any,
    ) -> None:
        self._journal.append(
            connection, actor=principal.name, action=action, subject=each.reference, details=details, **changed
        )


def _retirees(connection: Connection, *, judged: bool) -> tuple[Retiree, ...]:
    """All versions that could be retired; their numbers only where some rule judges by them."""
    places = {(each.model, each.version): each.stage for each in stages_of(connection)}
    held = {tuple(row) for row in connection.execute(select(holds.c.model, holds.c.version))}
    endpoints, clients = _endpoints(connection), _clients(connection)
    query = select(versions.c.model, versions.c.version, versions.c.ordinal, versions.c.digest, versions.c.created_s)
    found = []
    for row in connection.execute(query.order_by(versions.c.model, versions.c.ordinal)).all():
        key = (row.model, row.version)
        if places[key] in OUT:
            continue
        retiree = Retiree(
            *row, stage=places[key], held=key in held, endpoints=endpoints[key], clients=clients.get(key, ())
        )
        if judged:
            metrics, known = description_of(connection, *key).metrics, evaluations_of(connection, *key)
            retiree = msgspec.structs.replace(retiree, metrics=metrics, evaluations=known)
        found.append(retiree)
    return tuple(found)


def _endpoints(connection: Connection) -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], tuple[str, ...]] = defaultdict(tuple)
    query = select(deployments.c.model, deployments.c.version, deployments.c.endpoint).order_by(deployments.c.endpoint)
    for model, version, endpoint in connection.execute(query):
        found[model, version] += (endpoint,)
    return found


def _clients(connection: Connection) -> dict[tuple[str, str], tuple[VersionUse, ...]]:
    """Who asked each version."""
    found: dict[tuple[str, str], list[VersionUse]] = defaultdict(list)
    for use in use_of(connection):
        found[use.model, use.version].append(use)
    return {key: _latest_first(uses) for key, uses in found.items()}


def _latest_first(uses: Iterable[VersionUse]) -> tuple[VersionUse, ...]:
    return tuple(sorted(uses, key=lambda use: -use.last_s))


def _proposals(connection: Connection) -> tuple[Proposal, ...]:
    query = select(retirements).order_by(retirements.c.due_s, retirements.c.model, retirements.c.version)
    return tuple(
        Proposal(
            row.model,
            row.version,
            row.rule,
            row.reason,
            row.proposed_s,
            row.due_s,
            row.proposed_by,
            _latest_first(use_of(connection, row.model, row.version)),
            endpoints_of(connection, VersionStage(row.model, row.version)),
        )
        for row in connection.execute(query).all()
    )


def _row(proposal: Proposal) -> dict[str, Any]:
    names = ("model", "version", "rule", "reason", "proposed_s", "due_s", "proposed_by")
    return {name: getattr(proposal, name) for name in names}


def _drop(connection: Connection, proposal: Proposal) -> None:
    same = (retirements.c.model == proposal.model) & (retirements.c.version == proposal.version)
    connection.execute(delete(retirements).where(same))
    raise_revision(connection)
