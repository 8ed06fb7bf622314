"""The way of versions through the stages: promotions, approvals, decisions and the policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action, Nothing
from salver.control.actions.models import OfVersion
from salver.protocol.stages import Stage
from salver.registry.approvals import Approved
from salver.registry.availability import Standing
from salver.registry.candidate import Approval
from salver.registry.decisions import DecisionRecord
from salver.registry.lifecycle import Promotion, PromotionRequest
from salver.registry.policy import PolicyInForce
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = [
    "ACTIONS",
    "APPROVALS",
    "APPROVE",
    "DECISIONS",
    "POLICY",
    "PROMOTE",
    "SET_POLICY",
    "STAGES",
    "WITHDRAW",
    "Approve",
    "NewPolicy",
    "OfDecisions",
    "OfStages",
    "Withdraw",
]


class OfStages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks where versions stand."""

    model: str | None = None
    after: int = 0
    """Only versions that were registered after this one of their model, by its ordinal."""


class OfDecisions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for decisions about a model or one version, the newest first."""

    model: str
    version: str | None = None
    limit: int = 100


class Approve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Agree that a version goes to a stage."""

    model: str
    version: str
    target: Stage
    why: str = ""


class Withdraw(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Take one's approval back."""

    model: str
    version: str
    target: Stage


class NewPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Put a policy in force: a TOML document as text."""

    text: str


def _promote(admin: LocalAdministration, asked: PromotionRequest) -> Promotion:
    version = admin.records.pages.number_of(asked.model, asked.version)
    return admin.records.lifecycle.promote(admin.principal, msgspec.structs.replace(asked, version=version))


def _approve(admin: LocalAdministration, asked: Approve) -> Approved:
    version = admin.records.pages.number_of(asked.model, asked.version)
    return admin.records.approvals.approve(admin.principal, asked.model, version, asked.target, asked.why)


def _withdraw(admin: LocalAdministration, asked: Withdraw) -> Approved:
    version = admin.records.pages.number_of(asked.model, asked.version)
    return admin.records.approvals.withdraw(admin.principal, asked.model, version, asked.target)


def _approvals(admin: LocalAdministration, asked: OfVersion) -> tuple[Approval, ...]:
    return admin.records.approvals.of(asked.model, admin.records.pages.number_of(asked.model, asked.version))


def _decisions(admin: LocalAdministration, asked: OfDecisions) -> tuple[DecisionRecord, ...]:
    version = None if asked.version is None else admin.records.pages.number_of(asked.model, asked.version)
    return admin.records.lifecycle.decisions(asked.model, version, max(1, min(asked.limit, 1000)))


STAGES: Final = Action(
    "GET",
    "/v1/stages",
    Operation.READ,
    "Where each version stands",
    OfStages,
    tuple[Standing, ...],
    lambda admin, asked: admin.records.lifecycle.stages(asked.model, asked.after),
)
PROMOTE: Final = Action(
    "POST",
    "/v1/models/{model}/versions/{version}/stage",
    Operation.PROMOTE,
    "Bring a version to another stage, if the gates on the way are open",
    PromotionRequest,
    Promotion,
    _promote,
)
DECISIONS: Final = Action(
    "GET",
    "/v1/decisions",
    Operation.READ,
    "What was decided about versions, by which gates and from which evidence",
    OfDecisions,
    tuple[DecisionRecord, ...],
    _decisions,
)
APPROVALS: Final = Action(
    "GET",
    "/v1/models/{model}/versions/{version}/approvals",
    Operation.READ,
    "Who agrees to where a version is to go",
    OfVersion,
    tuple[Approval, ...],
    _approvals,
)
APPROVE: Final = Action(
    "POST",
    "/v1/models/{model}/versions/{version}/approvals",
    Operation.APPROVE,
    "Agree that a version goes to a stage",
    Approve,
    Approved,
    _approve,
)
WITHDRAW: Final = Action(
    "DELETE",
    "/v1/models/{model}/versions/{version}/approvals/{target}",
    Operation.APPROVE,
    "Take one's approval back",
    Withdraw,
    Approved,
    _withdraw,
)
POLICY: Final = Action(
    "GET",
    "/v1/policy",
    Operation.READ,
    "The policy in force",
    Nothing,
    PolicyInForce,
    lambda admin, _: admin.records.policies.in_force(),
)
SET_POLICY: Final = Action(
    "PUT",
    "/v1/policy",
    Operation.SET_POLICY,
    "Put a policy in force",
    NewPolicy,
    PolicyInForce,
    lambda admin, asked: admin.records.policies.set(admin.principal, asked.text),
)
ACTIONS: Final = (STAGES, PROMOTE, DECISIONS, APPROVALS, APPROVE, WITHDRAW, POLICY, SET_POLICY)
