"""The webhooks of a home: the places that are told of jobs and of changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from salver.control.action import Action, Nothing
from salver.control.actions.changes import OfWebhook
from salver.registry.webhooks import MintedWebhook, WebhookRecord, WebhookRequest
from salver.security.access import Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "CREATE_WEBHOOK", "REMOVE_WEBHOOK", "WEBHOOKS"]


def _create(admin: LocalAdministration, asked: WebhookRequest) -> MintedWebhook:
    minted = admin.records.webhooks.create(admin.principal, asked)
    admin.publish()
    return minted


def _remove(admin: LocalAdministration, asked: OfWebhook) -> WebhookRecord:
    record = admin.records.webhooks.remove(admin.principal, asked.webhook)
    admin.publish()
    return record


WEBHOOKS: Final = Action(
    "GET",
    "/v1/webhooks",
    Operation.OPERATE,
    "All webhooks, without their secrets",
    Nothing,
    tuple[WebhookRecord, ...],
    lambda admin, _: admin.records.webhooks.list(),
)
CREATE_WEBHOOK: Final = Action(
    "POST",
    "/v1/webhooks",
    Operation.OPERATE,
    "Add a place that is told of changes, and may be told of jobs; its secret is shown once",
    WebhookRequest,
    MintedWebhook,
    _create,
)
REMOVE_WEBHOOK: Final = Action(
    "DELETE", "/v1/webhooks/{webhook}", Operation.OPERATE, "Remove a webhook", OfWebhook, WebhookRecord, _remove
)
ACTIONS: Final = (WEBHOOKS, CREATE_WEBHOOK, REMOVE_WEBHOOK)
