"""The tokens of a home."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from salver.control.action import Action, Nothing
from salver.protocol.tables import TokenRecord
from salver.security.access import DEFAULT_TENANT, Operation
from salver.security.tokens import MintedToken

if TYPE_CHECKING:
    from salver.control.administration import LocalAdministration

__all__ = ["ACTIONS", "CREATE_TOKEN", "REVOKE_TOKEN", "TOKENS", "OfToken", "TokenRequest"]


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


def _create(admin: LocalAdministration, asked: TokenRequest) -> MintedToken:
    minted = admin.records.tokens.create(admin.principal, asked.name, asked.role, asked.tenant, asked.expires_in_s)
    admin.publish()
    return minted


def _revoke(admin: LocalAdministration, asked: OfToken) -> TokenRecord:
    record = admin.records.tokens.revoke(admin.principal, asked.token)
    admin.publish()
    return record


TOKENS: Final = Action(
    "GET",
    "/v1/tokens",
    Operation.READ_TOKENS,
    "All tokens, without their secrets",
    Nothing,
    tuple[TokenRecord, ...],
    lambda admin, _: admin.records.tokens.list(),
)
CREATE_TOKEN: Final = Action(
    "POST", "/v1/tokens", Operation.CREATE_TOKEN, "Make a token", TokenRequest, MintedToken, _create
)
REVOKE_TOKEN: Final = Action(
    "DELETE", "/v1/tokens/{token}", Operation.REVOKE_TOKEN, "Make a token worthless", OfToken, TokenRecord, _revoke
)
ACTIONS: Final = (TOKENS, CREATE_TOKEN, REVOKE_TOKEN)
