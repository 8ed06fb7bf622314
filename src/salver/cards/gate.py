"""The checklist as a gate: `kind = "checklist"` of a policy, with the name `readiness` or that of one group."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import Connection

from salver.cards.checklist import Checklist, Group, checklist
from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict
from salver.registry.candidacy import AskChecklist
from salver.registry.candidate import Evidence, GateResult
from salver.registry.dossier import dossier_of
from salver.registry.ways_back import Missing, missing_in
from salver.storage.home import Home

__all__ = ["READINESS", "readiness_gates", "result_of"]

READINESS: Final = "readiness"
"""The checklist of all groups."""


def readiness_gates(home: Home, clock: Clock) -> dict[str, AskChecklist]:
    """Every checklist that a policy can name. Each reads the rows of the transaction that it is asked in."""
    missing = missing_in(home)
    lists = {READINESS: tuple(Group)} | {group.value: (group,) for group in Group}
    return {name: _gate(name, groups, clock, missing) for name, groups in lists.items()}


def _gate(name: str, groups: tuple[Group, ...], clock: Clock, missing: Missing) -> AskChecklist:
    def ask(connection: Connection, model: str, version: str) -> GateResult:
        try:
            found = checklist(dossier_of(connection, model, version, clock.wall_s(), missing), groups)
        except (SalverError, msgspec.MsgspecError, ValueError) as error:
            return GateResult(_asked(name), Verdict.ERROR, (f"its evidence cannot be read: {error}",))
        return result_of(name, found)

    return ask


def result_of(name: str, found: Checklist) -> GateResult:
    """What a gate says of a checklist: every required point is evidence, with what it says."""
    evidence = tuple(
        Evidence("checklist", f"{each.group}: {each.name}", f"{each.verdict}, {each.said}")
        for each in found.points
        if each.required
    )
    return GateResult(_asked(name), found.verdict, found.reasons, evidence)


def _asked(name: str) -> str:
    return f"checklist {name} is complete"
