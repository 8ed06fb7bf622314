"""Approvals: that others than the author agree to one version's way to one stage.

They hold for the stage the version is in: once it leaves that, they are gone. What they were is in the decisions.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import JournalAction
from salver.protocol.reasons import checked_why
from salver.protocol.stages import Stage
from salver.registry.candidate import Approval, person_of
from salver.registry.catalog import find_version
from salver.registry.stages import require_way, stage_of
from salver.security.access import Operation, Principal, Role, require
from salver.storage.database import Database
from salver.storage.journal import Journal, occasion
from salver.storage.registry_schema import approvals
from salver.storage.schema import versions

__all__ = ["Approvals", "Approved", "approvals_of", "author_of", "drop_approvals"]


class Approved(msgspec.Struct, frozen=True):
    """The answer to an approval or its withdrawal."""

    approval: Approval
    changed: bool
    """False where the same person had approved already."""


class Approvals:
    """The approvals in one database."""

    __slots__ = ("_clock", "_database", "_journal")

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock

    def approve(self, principal: Principal, model: str, version: str, target: Stage, why: str = "") -> Approved:
        """Agree that a version goes from where it is to `target`. To agree again changes nothing.

        Raises PERMISSION_DENIED, NOT_FOUND, ILLEGAL_TRANSITION where no way leads there, and REFUSED_BY_POLICY
        for the version's author.
        """
        require(principal, Operation.APPROVE)
        why = checked_why(why)
        with occasion(why=why), self._database.begin() as connection:
            find_version(connection, model, version)
            require_way(stage_of(connection, model, version), target)
            _require_other_person(principal, author_of(connection, model, version), f"{model}@{version}")
            for known in approvals_of(connection, model, version, target):
                if person_of(known.approved_by) == person_of(principal.name):
                    return Approved(known, False)
            made = Approval(model, version, target, principal.name, principal.role, self._clock.wall_s(), why)
            row = msgspec.structs.asdict(made) | {"target": target.value, "role": principal.role.value}
            connection.execute(insert(approvals).values(row))
            details = {"target": target.value, "role": principal.role.value, "why": why}
            self._record(connection, principal, "approve", made, details, after=made)
        return Approved(made, True)

    def withdraw(self, principal: Principal, model: str, version: str, target: Stage) -> Approved:
        """Take one's own approval back; NOT_FOUND where there is none."""
        require(principal, Operation.APPROVE)
        with self._database.begin() as connection:
            find_version(connection, model, version)
            for known in approvals_of(connection, model, version, target):
                if person_of(known.approved_by) == person_of(principal.name):
                    same = (approvals.c.model == model) & (approvals.c.version == version)
                    same &= (approvals.c.target == target.value) & (approvals.c.approved_by == known.approved_by)
                    connection.execute(delete(approvals).where(same))
                    details = {"target": target.value}
                    self._record(connection, principal, "withdraw_approval", known, details, before=known)
                    return Approved(known, True)
        raise SalverError(
            "NOT_FOUND",
            f"{principal.name} has not approved {model}@{version} for {target}",
            "approvals are gone once the version leaves its stage",
        )

    def of(self, model: str, version: str) -> tuple[Approval, ...]:
        """The approvals of a version that hold now."""
        with self._database.read() as connection:
            find_version(connection, model, version)
            return approvals_of(connection, model, version)

    def _record(
        self,
        connection: Connection,
        principal: Principal,
        action: JournalAction,
        made: Approval,
        details: Any,
        **changed: Any,
    ) -> None:
        subject = f"{made.model}@{made.version}"
        self._journal.append(
            connection, actor=principal.name, action=action, subject=subject, details=details, **changed
        )


def approvals_of(connection: Connection, model: str, version: str, target: Stage | None = None) -> tuple[Approval, ...]:
    """The approvals of a version within a transaction that is already open, the oldest first."""
    query = select(approvals).where(approvals.c.model == model, approvals.c.version == version)
    if target is not None:
        query = query.where(approvals.c.target == target.value)
    rows = connection.execute(query.order_by(approvals.c.approved_s, approvals.c.approved_by))
    return tuple(_approval(row) for row in rows)


def drop_approvals(connection: Connection, model: str, version: str) -> None:
    """Forget the approvals of a version: it leaves the stage they were given in."""
    connection.execute(delete(approvals).where(approvals.c.model == model, approvals.c.version == version))


def author_of(connection: Connection, model: str, version: str) -> str:
    """Who registered a version. REQUIRES that it is registered."""
    query = select(versions.c.created_by).where(versions.c.model == model, versions.c.version == version)
    return str(connection.execute(query).scalar_one())


def _require_other_person(principal: Principal, author: str, reference: str) -> None:
    if person_of(principal.name) != person_of(author):
        return
    also = "" if principal.name == author else f" and {principal.name} is the same person"
    raise SalverError(
        "REFUSED_BY_POLICY",
        f"{reference} was registered by {author}{also}: nobody approves what is their own",
        "ask somebody else with the role approver",
    )


def _approval(row: Row[Any]) -> Approval:
    return Approval(row.model, row.version, Stage(row.target), row.approved_by, Role(row.role), row.approved_s, row.why)
