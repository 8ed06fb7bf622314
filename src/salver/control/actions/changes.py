"""What has changed: the journal for those who follow it, and webhooks that are told of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from salver.control.action import Action
from salver.control.waiting import Followed
from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import check_actions
from salver.registry.change_positions import Redelivered, WebhookChanges
from salver.security.access import Operation
from salver.storage.journal import MOST_RECORDS, Changes

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "CHANGES", "REDELIVER", "WEBHOOK_CHANGES", "OfChanges", "OfWebhook", "Redeliver"]

LONGEST_WAIT_S: Final = 60.0
_MOST_NAMES: Final = 100
_NAME: Final = re.compile(r"[^\x00-\x20,]{1,300}")


class OfChanges(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for what happened behind a record of the journal."""

    after: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    """The number of the last record that is known; without one, only what happens from now on."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_RECORDS)] = 100
    actions: str = ""
    """Only these, with commas between them; empty for all."""
    subjects: str = ""
    """Only about these, with commas between them; a model stands for its versions too."""
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=LONGEST_WAIT_S)] = 0.0
    """How long to wait for the first."""


class OfWebhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks about one webhook."""

    webhook: str


class Redeliver(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tell a webhook again of what it could not be told of: of one record, or of all."""

    webhook: str
    seq: Annotated[int, msgspec.Meta(ge=1, le=2**53)] | None = None


def _changes(admin: LocalAdministration, asked: OfChanges) -> Changes:
    journal = admin.records.journal
    after = journal.head()[0] if asked.after is None else asked.after
    actions = _names(asked.actions)
    check_actions(actions)
    return journal.changes(after, asked.limit, actions, _names(asked.subjects))


def _followed(admin: LocalAdministration, asked: OfChanges) -> Followed[Changes]:
    found = admin.do(CHANGES, asked)
    further = msgspec.structs.replace(asked, after=found.position)
    return Followed(found, found.position, 0.0 if found.records else asked.wait_s, lambda: _followed(admin, further))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(",")) if text else ()
    if len(names) > _MOST_NAMES or not all(map(_NAME.fullmatch, names)):
        raise SalverError(
            "INVALID_PARAMETER", f"{text[:80]!r} is no list of names", f"write up to {_MOST_NAMES}, a comma between two"
        )
    return names


CHANGES: Final = Action(
    "GET",
    "/v1/changes",
    Operation.READ_AUDIT,
    "What has changed behind a record of the journal, and with wait_s what changes next",
    OfChanges,
    Changes,
    _changes,
    _followed,
)
WEBHOOK_CHANGES: Final = Action(
    "GET",
    "/v1/webhooks/{webhook}/changes",
    Operation.OPERATE,
    "How far a webhook has been told of changes, and of which it could not be",
    OfWebhook,
    WebhookChanges,
    lambda admin, asked: admin.records.change_positions.of(asked.webhook),
)
REDELIVER: Final = Action(
    "POST",
    "/v1/webhooks/{webhook}/redelivery",
    Operation.OPERATE,
    "Tell a webhook again of changes that it could not be told of",
    Redeliver,
    Redelivered,
    lambda admin, asked: admin.records.change_positions.redeliver(admin.principal, asked.webhook, asked.seq),
)
ACTIONS: Final = (CHANGES, WEBHOOK_CHANGES, REDELIVER)
