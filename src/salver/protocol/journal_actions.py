"""What can happen to a registry: the actions that records of the journal name, each of them here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

from salver.protocol.errors import SalverError
from salver.protocol.nearest import did_you_mean

__all__ = ["DEPLOYING", "JOURNAL_ACTIONS", "JournalAction", "check_actions"]

JournalAction = Literal[
    "add_case",
    "alias",
    "approve",
    "cancel_retirement",
    "catch_up",
    "collect",
    "create_token",
    "create_webhook",
    "delete",
    "deploy",
    "describe",
    "distrust_key",
    "end_isolation",
    "hold",
    "promote",
    "propose_retirement",
    "record_evaluation",
    "redeliver",
    "refuse_promotion",
    "register",
    "release_hold",
    "remove_case",
    "remove_webhook",
    "replace",
    "retire",
    "retrain_begin",
    "retrain_end",
    "revoke",
    "revoke_token",
    "rotate_audit_key",
    "rotate_key",
    "set_policy",
    "set_retraining",
    "sign_from_before",
    "tag",
    "trust_key",
    "undeploy",
    "withdraw_approval",
]
JOURNAL_ACTIONS: Final[tuple[str, ...]] = get_args(JournalAction)
DEPLOYING: Final[frozenset[JournalAction]] = frozenset({"deploy", "undeploy"})
"""Those that say what an endpoint serves from then on."""


def check_actions(names: Iterable[str]) -> None:
    """Raise INVALID_PARAMETER, naming what is near, for what is no action: nothing would ever fit it."""
    for name in names:
        if name not in JOURNAL_ACTIONS:
            near = did_you_mean(name, JOURNAL_ACTIONS)
            raise SalverError(
                "INVALID_PARAMETER",
                f"there is no action {name[:80]!r}",
                near or f"there are {', '.join(JOURNAL_ACTIONS)}",
            )
