"""The audit journal: its records, their verification, what was signed, and what served when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from salver.control.action import Action, Nothing
from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import check_actions
from salver.registry.audit import Inclusion
from salver.registry.history import History, history_of
from salver.registry.key_changes import Rotated
from salver.security.access import Operation
from salver.security.keys import AuditPublicKey
from salver.storage.journal import ChainCheck, JournalQuery, JournalRecord
from salver.storage.tree_heads import TreeHead

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = [
    "ACTIONS",
    "HISTORY",
    "MOST_HEADS",
    "PROVE",
    "RECORDS",
    "ROTATE_AUDIT_KEY",
    "SIGN",
    "VERIFY",
    "VERIFY_AGAINST",
    "Against",
    "OfName",
    "OfRecord",
]

MOST_HEADS: Final = 10_000
"""More than these would say no more: each is about all the records of those before it."""
_MOST_KEYS: Final = 100


class Against(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tree heads that were kept elsewhere, and the keys (PEM) to be believed instead of this home's own."""

    heads: Annotated[tuple[TreeHead, ...], msgspec.Meta(max_length=MOST_HEADS)] = ()
    public_keys: Annotated[tuple[str, ...], msgspec.Meta(max_length=_MOST_KEYS)] = ()


class OfRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks about one record."""

    seq: Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class OfName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks what served: all the time, at a moment, or from one moment to another."""

    name: str
    endpoint: str | None = None
    since_s: float | None = None
    until_s: float | None = None


def _records(admin: LocalAdministration, asked: JournalQuery) -> tuple[JournalRecord, ...]:
    check_actions(() if asked.action is None else (asked.action,))
    return admin.records.journal.find(asked)


def _verify(admin: LocalAdministration, _: Nothing) -> ChainCheck:
    return admin.records.audit.verify()


def _verify_against(admin: LocalAdministration, asked: Against) -> ChainCheck:
    pinned = [AuditPublicKey.parse(pem.encode(), f"public key {at}") for at, pem in enumerate(asked.public_keys, 1)]
    return admin.records.audit.verify(asked.heads, pinned)


def _sign(admin: LocalAdministration, _: Nothing) -> TreeHead:
    head = admin.records.audit.seal()
    if head is None:
        raise SalverError("NOT_FOUND", "the journal is empty")
    return head


def _prove(admin: LocalAdministration, asked: OfRecord) -> Inclusion:
    return admin.records.audit.prove(asked.seq)


def _history(admin: LocalAdministration, asked: OfName) -> History:
    return history_of(admin.records.database, asked.name, asked.endpoint, asked.since_s, asked.until_s)


RECORDS: Final = Action(
    "GET",
    "/v1/audit",
    Operation.READ_AUDIT,
    "Records of the audit journal",
    JournalQuery,
    tuple[JournalRecord, ...],
    _records,
)
VERIFY: Final = Action(
    "GET",
    "/v1/audit/verification",
    Operation.READ_AUDIT,
    "Check that no record of the journal was changed, removed, added or moved",
    Nothing,
    ChainCheck,
    _verify,
)
VERIFY_AGAINST: Final = Action(
    "POST",
    "/v1/audit/verification",
    Operation.READ_AUDIT,
    "The same, and that the journal still contains what these tree heads say",
    Against,
    ChainCheck,
    _verify_against,
)
SIGN: Final = Action(
    "POST",
    "/v1/audit/heads",
    Operation.READ_AUDIT,
    "Sign what the journal comes to now; the tree head is to be kept elsewhere",
    Nothing,
    TreeHead,
    _sign,
)
ROTATE_AUDIT_KEY: Final = Action(
    "POST",
    "/v1/audit/key",
    Operation.KEEP_KEYS,
    "Sign the journal with a new key from now on, which the old one vouches for",
    Nothing,
    Rotated,
    lambda admin, _: admin.records.audit.rotate(admin.principal),
)
PROVE: Final = Action(
    "GET",
    "/v1/audit/records/{seq}/proof",
    Operation.READ_AUDIT,
    "Prove that a record is in the journal",
    OfRecord,
    Inclusion,
    _prove,
)
HISTORY: Final = Action(
    "GET",
    "/v1/history/{name}",
    Operation.READ_AUDIT,
    "What a model or an endpoint served, when, and who deployed it why",
    OfName,
    History,
    _history,
)
ACTIONS: Final = (RECORDS, VERIFY, VERIFY_AGAINST, SIGN, ROTATE_AUDIT_KEY, PROVE, HISTORY)
