"""The retirement of versions: proposed by rules, announced, carried out or taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action, Nothing
from salver.control.actions.models import OfVersion
from salver.registry.retirement_rules import Proposal
from salver.registry.retirements import RetirementRun
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = [
    "ACTIONS",
    "CANCEL_RETIREMENT",
    "PROPOSE_RETIREMENTS",
    "RETIREMENTS",
    "RUN_RETIREMENTS",
    "ProposeRetirements",
]


class ProposeRetirements(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Propose what the policy retires."""

    rule: str | None = None
    """Only by this rule of the policy."""
    dry_run: bool = False


def _propose(admin: LocalAdministration, asked: ProposeRetirements) -> tuple[Proposal, ...]:
    proposed = admin.records.retirements.propose(admin.principal, asked.rule, dry_run=asked.dry_run)
    admin.publish()
    return proposed


def _cancel(admin: LocalAdministration, asked: OfVersion) -> Proposal:
    version = admin.records.pages.number_of(asked.model, asked.version)
    cancelled = admin.records.retirements.cancel(admin.principal, asked.model, version)
    admin.publish()
    return cancelled


PROPOSE_RETIREMENTS: Final = Action(
    "POST",
    "/v1/retirements",
    Operation.DEPLOY,
    "Propose the versions that the policy retires",
    ProposeRetirements,
    tuple[Proposal, ...],
    _propose,
)
RETIREMENTS: Final = Action(
    "GET",
    "/v1/retirements",
    Operation.READ,
    "What is proposed for retirement, and who would miss it",
    Nothing,
    tuple[Proposal, ...],
    lambda admin, _: admin.records.retirements.list(),
)
RUN_RETIREMENTS: Final = Action(
    "POST",
    "/v1/retirements/run",
    Operation.DEPLOY,
    "Archive what is due and not deployed",
    Nothing,
    RetirementRun,
    lambda admin, _: admin.records.retirements.run(admin.principal),
)
CANCEL_RETIREMENT: Final = Action(
    "DELETE",
    "/v1/models/{model}/versions/{version}/retirement",
    Operation.DEPLOY,
    "Take a proposal back",
    OfVersion,
    Proposal,
    _cancel,
)
ACTIONS: Final = (PROPOSE_RETIREMENTS, RETIREMENTS, RUN_RETIREMENTS, CANCEL_RETIREMENT)
