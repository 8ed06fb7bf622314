"""The actions of the administration, a file for each subject."""

from __future__ import annotations

from typing import Any, Final

from salver.control.action import Action
from salver.control.actions import audit, compatibility, descriptions, evidence, lifecycle, retirement, signing, storage

__all__ = ["ACTIONS"]

ACTIONS: Final[tuple[Action[Any, Any], ...]] = (
    *audit.ACTIONS,
    *compatibility.ACTIONS,
    *descriptions.ACTIONS,
    *evidence.ACTIONS,
    *lifecycle.ACTIONS,
    *retirement.ACTIONS,
    *signing.ACTIONS,
    *storage.ACTIONS,
)
