"""The actions of the administration, a file for each subject."""

from __future__ import annotations

from typing import Any, Final

from salver.control.action import Action
from salver.control.actions import (
    attestation,
    audit,
    cards,
    cases,
    changes,
    compatibility,
    deletions,
    deployments,
    descriptions,
    evidence,
    holds,
    isolations,
    jobs,
    keys,
    lifecycle,
    lineage,
    models,
    registration,
    retirements,
    retraining,
    revocations,
    search,
    status,
    storage,
    tokens,
    webhooks,
)

__all__ = ["ACTIONS"]

ACTIONS: Final[tuple[Action[Any, Any], ...]] = (
    *attestation.ACTIONS,
    *audit.ACTIONS,
    *cards.ACTIONS,
    *cases.ACTIONS,
    *changes.ACTIONS,
    *compatibility.ACTIONS,
    *deletions.ACTIONS,
    *deployments.ACTIONS,
    *descriptions.ACTIONS,
    *evidence.ACTIONS,
    *holds.ACTIONS,
    *isolations.ACTIONS,
    *jobs.ACTIONS,
    *keys.ACTIONS,
    *lifecycle.ACTIONS,
    *lineage.ACTIONS,
    *models.ACTIONS,
    *registration.ACTIONS,
    *retirements.ACTIONS,
    *retraining.ACTIONS,
    *revocations.ACTIONS,
    *search.ACTIONS,
    *status.ACTIONS,
    *storage.ACTIONS,
    *tokens.ACTIONS,
    *webhooks.ACTIONS,
)
