"""The tokens of a home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action, Nothing
from salver.protocol.tables import TokenRecord
from salver.security.access import DEFAULT_TENANT, Operation

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "CREATE_TOKEN", "REVOKE_TOKEN", "TOKENS", "NewToken", "OfToken", "ShownToken", "TokenRequest"]


class TokenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token to be."""

    name: str
    role: str
    tenant: str = DEFAULT_TENANT
    expires_in_s: float | None = None
    """Seconds from now; None for a token that does not expire."""


class OfToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Asks about one token, by its id."""

    token: str


class ShownToken(msgspec.Struct, frozen=True):
    """A token without its secret, and without the hash of that."""

    id: str
    name: str
    role: str
    tenant: str
    created_s: float
    expires_s: float | None


class NewToken(msgspec.Struct, frozen=True):
    """A token, which is shown this once."""

    token: str
    record: ShownToken


def _shown(record: TokenRecord) -> ShownToken:
    return msgspec.convert(record, ShownToken, from_attributes=True)


def _create(admin: LocalAdministration, asked: TokenRequest) -> NewToken:
    minted = admin.records.tokens.create(admin.principal, asked.name, asked.role, asked.tenant, asked.expires_in_s)
    admin.publish()
    return NewToken(minted.token, _shown(minted.record))


def _list(admin: LocalAdministration, asked: Nothing) -> tuple[ShownToken, ...]:
    del asked
    return tuple(map(_shown, admin.records.tokens.list()))


def _revoke(admin: LocalAdministration, asked: OfToken) -> ShownToken:
    record = admin.records.tokens.revoke(admin.principal, asked.token)
    admin.publish()
    return _shown(record)


TOKENS: Final = Action(
    "GET",
    "/v1/tokens",
    Operation.READ_TOKENS,
    "All tokens, without their secrets",
    Nothing,
    tuple[ShownToken, ...],
    _list,
)
CREATE_TOKEN: Final = Action(
    "POST", "/v1/tokens", Operation.CREATE_TOKEN, "Make a token", TokenRequest, NewToken, _create
)
REVOKE_TOKEN: Final = Action(
    "DELETE", "/v1/tokens/{token}", Operation.REVOKE_TOKEN, "Make a token worthless", OfToken, ShownToken, _revoke
)
ACTIONS: Final = (TOKENS, CREATE_TOKEN, REVOKE_TOKEN)
