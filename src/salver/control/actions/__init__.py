"""The actions of the administration, a file for each subject."""

from __future__ import annotations

from typing import Any, Final

from salver.control.action import Action
from salver.control.actions import (
    audit,
    cards,
    cases,
    changes,
    compatibility,
    descriptions,
    evidence,
    isolations,
    jobs,
    lifecycle,
    lineage,
    retirement,
    retraining,
    search,
    signing,
    storage,
    tokens,
    uploads,
    webhooks,
)

__all__ = ["ACTIONS"]

ACTIONS: Final[tuple[Action[Any, Any], ...]] = (
    *audit.ACTIONS,
    *cards.ACTIONS,
    *cases.ACTIONS,
    *changes.ACTIONS,
    *compatibility.ACTIONS,
    *descriptions.ACTIONS,
    *evidence.ACTIONS,
    *isolations.ACTIONS,
    *jobs.ACTIONS,
    *lifecycle.ACTIONS,
    *lineage.ACTIONS,
    *retirement.ACTIONS,
    *retraining.ACTIONS,
    *search.ACTIONS,
    *signing.ACTIONS,
    *storage.ACTIONS,
    *tokens.ACTIONS,
    *uploads.ACTIONS,
    *webhooks.ACTIONS,
)
