"""The keys whose tree heads are believed: one that is known from elsewhere, and those it is linked to by rotations.

A rotation is a record of the journal in which both keys sign that the one follows the other. So whoever knows the first
key believes its successors, and whoever knows the newest believes its predecessors; a key that only lies somewhere in
the home is believed by nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select

from salver.protocol.errors import SalverError
from salver.security.keys import AuditKey, AuditPublicKey
from salver.storage.journal_record import canonical_json
from salver.storage.schema import journal

__all__ = ["ROTATED", "Rotation", "believed_keys", "by_fingerprint", "rotation"]

ROTATED: Final = "rotate_audit_key"
_CONTEXT: Final = b"salver audit key rotation v1\n"


class Rotation(msgspec.Struct, frozen=True):
    """That key `after` follows key `before` (PEM), signed by both (hexadecimal)."""

    before: str
    after: str
    signed_by_before: str
    signed_by_after: str


def rotation(before: AuditKey, after: AuditKey) -> Rotation:
    """Have both keys sign that `after` follows `before`."""
    message = _message(before.public, after.public)
    pems = (before.public.pem.decode(), after.public.pem.decode())
    return Rotation(*pems, before.sign(message).hex(), after.sign(message).hex())


def believed_keys(connection: Connection, known: Iterable[AuditPublicKey]) -> Mapping[str, AuditPublicKey]:
    """The `known` keys, their predecessors and their successors, by their fingerprints.

    A successor of a predecessor is none of a known key: whoever has stolen an old key makes no new one believed.
    """
    known = tuple(known)
    made = list(_rotations(connection))
    return _linked(known, made) | _linked(known, [(after, before) for before, after in reversed(made)])


def by_fingerprint(keys: Iterable[AuditPublicKey]) -> dict[str, AuditPublicKey]:
    """The keys by their fingerprints."""
    return {key.key_id: key for key in keys}


def _linked(
    known: Iterable[AuditPublicKey], links: Iterable[tuple[AuditPublicKey, AuditPublicKey]]
) -> dict[str, AuditPublicKey]:
    """The known keys and all that are reached from them along `links`, in their order."""
    found = by_fingerprint(known)
    for one, other in links:
        if one.key_id in found:
            found.setdefault(other.key_id, other)
    return found


def _rotations(connection: Connection) -> Iterable[tuple[AuditPublicKey, AuditPublicKey]]:
    """Every rotation that both keys have signed, the oldest first; others say nothing."""
    query = select(journal.c.record).where(journal.c.action == ROTATED).order_by(journal.c.seq)
    for text in connection.execute(query).scalars():
        try:
            record: dict[str, Any] = msgspec.json.decode(text)
            said = msgspec.convert(record["details"], Rotation)
            before, after = (AuditPublicKey.parse(pem.encode(), "a rotation") for pem in (said.before, said.after))
            signed = [bytes.fromhex(each) for each in (said.signed_by_before, said.signed_by_after)]
        except (SalverError, msgspec.MsgspecError, KeyError, TypeError, ValueError):
            continue
        message = _message(before, after)
        if before.verifies(signed[0], message) and after.verifies(signed[1], message):
            yield before, after


def _message(before: AuditPublicKey, after: AuditPublicKey) -> bytes:
    return _CONTEXT + canonical_json({"before": before.key_id, "after": after.key_id}).encode()
