"""Tokens: `slv_<id>_<secret>_<crc>`, shown once and kept only as a keyed hash.

The id finds the record, the secret (256 bits) proves, the checksum lets scanners and this
module tell a token from noise without any secret. A fast hash is right here: there is nothing
to guess in 256 random bits; the pepper makes a stolen table worthless.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Iterable
from typing import Final

import msgspec

from salver.clock import Clock
from salver.protocol.tables import TokenRecord
from salver.security.access import Principal, PrincipalKind, Role

__all__ = ["MintedToken", "TokenVerifier", "hash_secret", "mint_token"]

_ID_ALPHABET: Final = string.ascii_lowercase + string.digits
_SECRET_ALPHABET: Final = string.ascii_letters + string.digits
_ID_LENGTH: Final = 8
_SECRET_LENGTH: Final = 43
"""62**43 > 2**256."""
_TOKEN: Final = re.compile(rf"(slv_([a-z0-9]{{{_ID_LENGTH}}})_([A-Za-z0-9]{{{_SECRET_LENGTH}}}))_([0-9a-f]{{8}})")
_TOKEN_LENGTH: Final = len("slv_") + _ID_LENGTH + 1 + _SECRET_LENGTH + 1 + 8
_CACHE_SIZE: Final = 4096


class MintedToken(msgspec.Struct, frozen=True):
    """A new token: `token` is shown to its owner once, `record` is what is stored."""

    token: str
    record: TokenRecord

    def __repr__(self) -> str:
        return f"<MintedToken {self.record.id} {self.record.name}>"


def mint_token(name: str, role: Role, tenant: str, *, pepper: bytes, clock: Clock) -> MintedToken:
    """A new random token for `name`. The caller has checked the names and who asks."""
    token_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
    secret = "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(_SECRET_LENGTH))
    body = f"slv_{token_id}_{secret}"
    record = TokenRecord(token_id, name, role.value, tenant, hash_secret(pepper, secret), clock.wall_s())
    return MintedToken(f"{body}_{_checksum(body)}", record)


def hash_secret(pepper: bytes, secret: str) -> str:
    """HMAC-SHA-256 of a token's secret under the home's pepper, as hex."""
    return hmac.digest(pepper, secret.encode(), "sha256").hex()


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


class TokenVerifier:
    """The check of tokens against one published set of records.

    Make a new one when the records change: that is also what empties its memory of tokens
    already verified. That memory is bounded and keyed by a hash under a random key of this
    object, so it holds nothing that could be sent again. Use it from one thread.
    """

    __slots__ = ("_cache", "_cache_key", "_nobody", "_pepper", "_records")

    def __init__(self, records: Iterable[TokenRecord], pepper: bytes) -> None:
        roles = {role.value: role for role in Role}
        # A role that this Salver does not know grants nothing.
        self._records = {
            record.id: (record.hash, Principal(record.name, roles[record.role], record.tenant, PrincipalKind.TOKEN))
            for record in records
            if record.role in roles
        }
        self._pepper = pepper
        self._nobody = hash_secret(pepper, secrets.token_hex())
        self._cache: dict[bytes, Principal] = {}
        self._cache_key = secrets.token_bytes(32)

    def __repr__(self) -> str:
        return f"<TokenVerifier {len(self._records)} tokens>"

    def verify(self, token: str) -> Principal | None:
        """Whose token this is; None for a malformed, unknown or wrong one.

        Anything of another length or alphabet is refused before any hash; an unknown id costs
        the same as a wrong secret.
        """
        if len(token) != _TOKEN_LENGTH or not token.isascii():
            return None
        key = hashlib.blake2b(token.encode(), digest_size=32, key=self._cache_key).digest()
        known = self._cache.get(key)
        if known is not None:
            return known
        principal = self._check(token)
        if principal is not None:
            if len(self._cache) >= _CACHE_SIZE:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = principal
        return principal

    def _check(self, token: str) -> Principal | None:
        match = _TOKEN.fullmatch(token)
        if match is None or _checksum(match[1]) != match[4]:
            return None
        stored, principal = self._records.get(match[2], (self._nobody, None))
        return principal if hmac.compare_digest(stored, hash_secret(self._pepper, match[3])) else None
