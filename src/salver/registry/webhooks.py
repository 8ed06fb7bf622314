"""The webhooks of a home: places that are told of jobs and of changes. Operators make them, each on the journal."""

from __future__ import annotations

import ipaddress
import secrets
from typing import Final

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import JournalAction, check_actions
from salver.protocol.names import check_name
from salver.protocol.tables import Webhook
from salver.security.access import Operation, Principal, require
from salver.security.egress import parse_target, require_public
from salver.security.signing import secret_text, webhook_secret
from salver.storage.database import Database, raise_revision
from salver.storage.journal import Journal, JournalRecord
from salver.storage.registry_schema import change_deliveries, change_positions
from salver.storage.schema import webhooks

__all__ = [
    "MintedWebhook",
    "WebhookRecord",
    "WebhookRequest",
    "Webhooks",
    "find_webhook",
    "read_webhooks",
    "webhook_records",
]

_MOST: Final = 256
_MOST_ACTIONS: Final = 100


class WebhookRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A webhook to be."""

    name: str
    url: str
    tenant: str = ""
    """Whose jobs may name it; empty for everybody's."""
    allow_private: bool = False
    """Whether it may be on this machine or in its network."""
    actions: tuple[str, ...] = ()
    """Actions of the journal that it is told of, such as register or promote; "*" stands for all."""


class WebhookRecord(msgspec.Struct, frozen=True):
    """A webhook as it is stored. Its secret is not; see `security.signing`."""

    id: str
    name: str
    url: str
    tenant: str
    allow_private: bool
    created_s: float
    actions: tuple[str, ...] = ()
    """Actions of the journal that it is told of; "*" stands for all."""


class MintedWebhook(msgspec.Struct, frozen=True):
    """A new webhook and its secret, which is shown this once."""

    record: WebhookRecord
    secret: str

    def __repr__(self) -> str:
        return f"<MintedWebhook {self.record.name}>"


class Webhooks:
    """The webhooks in one database."""

    __slots__ = ("_clock", "_database", "_journal", "_pepper")

    def __init__(self, database: Database, journal: Journal, clock: Clock, pepper: bytes) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self._pepper = pepper

    def create(self, principal: Principal, request: WebhookRequest) -> MintedWebhook:
        """Add a webhook.

        Raises PERMISSION_DENIED, INVALID_NAME, INVALID_SETTING for a URL that is none of https (or
        http, where it may be private), REFUSED_BY_POLICY for an address that is not public,
        ALREADY_EXISTS, QUEUE_FULL.
        What a host name resolves to is looked at when it is called, each time.
        """
        require(principal, Operation.OPERATE)
        check_name(request.name, "webhook")
        if request.tenant:
            check_name(request.tenant, "tenant")
        _check_actions(request)
        host = parse_target(request.url, allow_private=request.allow_private).host
        if not request.allow_private and _is_address(host):
            require_public(host, [host])
        record = WebhookRecord(
            secrets.token_hex(8),
            request.name,
            request.url,
            request.tenant,
            request.allow_private,
            self._clock.wall_s(),
            request.actions,
        )
        with self._database.begin() as connection:
            present = {each.name for each in webhook_records(connection)}
            if record.name in present:
                raise SalverError(
                    "ALREADY_EXISTS", f"there is a webhook {record.name!r}", "remove it first, or use another name"
                )
            if len(present) >= _MOST:
                raise SalverError("QUEUE_FULL", f"there are {_MOST} webhooks, the most a home has", "remove some")
            actions = msgspec.json.encode(record.actions).decode()
            connection.execute(insert(webhooks).values(msgspec.structs.asdict(record) | {"actions": actions}))
            begun = self._record(connection, principal, "create_webhook", record)
            if record.actions:
                connection.execute(insert(change_positions).values(webhook=record.name, seq=begun.seq))
        return MintedWebhook(record, secret_text(webhook_secret(self._pepper, record.id)))

    def list(self) -> tuple[WebhookRecord, ...]:
        """All webhooks by name. The caller checks OPERATE."""
        with self._database.read() as connection:
            return webhook_records(connection)

    def remove(self, principal: Principal, name: str) -> WebhookRecord:
        """Remove a webhook and return what it was: jobs that have not told it by now will not."""
        require(principal, Operation.OPERATE)
        with self._database.begin() as connection:
            for record in webhook_records(connection):
                if record.name == name:
                    connection.execute(delete(webhooks).where(webhooks.c.name == name))
                    connection.execute(delete(change_positions).where(change_positions.c.webhook == name))
                    connection.execute(delete(change_deliveries).where(change_deliveries.c.webhook == name))
                    self._record(connection, principal, "remove_webhook", record)
                    return record
        raise _unknown(name)

    def _record(
        self, connection: Connection, principal: Principal, action: JournalAction, record: WebhookRecord
    ) -> JournalRecord:
        raise_revision(connection)
        return self._journal.append(
            connection,
            actor=principal.name,
            action=action,
            subject=record.name,
            details=msgspec.to_builtins(record),
            before=record if action == "remove_webhook" else None,
            after=record if action == "create_webhook" else None,
        )


def read_webhooks(connection: Connection) -> tuple[Webhook, ...]:
    """What the data path needs to know of the webhooks."""
    return tuple(Webhook(record.name, record.tenant) for record in webhook_records(connection))


def webhook_records(connection: Connection) -> tuple[WebhookRecord, ...]:
    """All webhooks by name."""
    return tuple(_record(row) for row in connection.execute(select(webhooks).order_by(webhooks.c.name)))


def _record(row: Row[tuple[object, ...]]) -> WebhookRecord:
    fields = dict(row._mapping)
    return WebhookRecord(**fields | {"actions": msgspec.json.decode(row.actions, type=tuple[str, ...])})


def find_webhook(connection: Connection, name: str) -> WebhookRecord:
    """The webhook of that name; raises NOT_FOUND."""
    for record in webhook_records(connection):
        if record.name == name:
            return record
    raise _unknown(name)


def _unknown(name: str) -> SalverError:
    return SalverError("NOT_FOUND", f"there is no webhook {name[:80]!r}", "list them: salver webhook list")


def _check_actions(request: WebhookRequest) -> None:
    if len(request.actions) > _MOST_ACTIONS:
        raise SalverError("INVALID_SETTING", f"{len(request.actions)} actions are named", '"*" stands for all')
    check_actions(each for each in request.actions if each != "*")
    if request.actions and request.tenant:
        raise SalverError(
            "INVALID_SETTING",
            f"webhook {request.name!r} is for tenant {request.tenant!r}, and changes belong to no tenant",
            "leave out the tenant, or the actions",
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
