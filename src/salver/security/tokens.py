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
from typing import Final, NamedTuple

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
_ROLES: Final = {role.value: role for role in Role}


class MintedToken(msgspec.Struct, frozen=True):
    """A new token: `token` is shown to its owner once, `record` is what is stored."""

    token: str
    record: TokenRecord

    def __repr__(self) -> str:
        return f"<MintedToken {self.record.id} {self.record.name}>"


def mint_token(
    name: str, role: Role, tenant: str, *, pepper: bytes, clock: Clock, expires_in_s: float | None = None
) -> MintedToken:
    """A new random token for `name`, for ever or for `expires_in_s`. The caller has checked all of it and who asks."""
    token_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
    secret = "".join(secrets.choice(_SECRET_ALPHABET) for _ in range(_SECRET_LENGTH))
    body = f"slv_{token_id}_{secret}"
    now_s = clock.wall_s()
    expires_s = None if expires_in_s is None else now_s + expires_in_s
    record = TokenRecord(token_id, name, role.value, tenant, hash_secret(pepper, secret), now_s, expires_s)
    return MintedToken(f"{body}_{_checksum(body)}", record)


def hash_secret(pepper: bytes, secret: str) -> str:
    """HMAC-SHA-256 of a token's secret under the home's pepper, as hex."""
    return hmac.digest(pepper, secret.encode(), "sha256").hex()


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"


class _Owner(NamedTuple):
    """Who a token stands for, and until when; `stored` is the hash of its secret."""

    stored: str
    principal: Principal
    expires_s: float | None

    @classmethod
    def of(cls, record: TokenRecord) -> _Owner:
        principal = Principal(record.name, _ROLES[record.role], record.tenant, PrincipalKind.TOKEN)
        return cls(record.hash, principal, record.expires_s)


class TokenVerifier:
    """The check of tokens against one published set of records, and of their expiry against the date.

    Make a new one when the records change, from the one `before`: of the tokens that it verified it
    remembers those that are still worth the same. That memory is bounded and keyed by a hash under a
    random key, so it holds nothing that could be sent again. Use it from one thread.
    """

    __slots__ = ("_cache", "_cache_key", "_clock", "_nobody", "_owners", "_pepper")

    def __init__(
        self, records: Iterable[TokenRecord], pepper: bytes, clock: Clock, before: TokenVerifier | None = None
    ) -> None:
        # A role that this Salver does not know grants nothing.
        self._owners = {record.id: _Owner.of(record) for record in records if record.role in _ROLES}
        self._pepper = pepper
        self._clock = clock
        self._nobody = hash_secret(pepper, secrets.token_hex())
        self._cache: dict[bytes, str] = {}
        """The ids of verified tokens."""
        self._cache_key = secrets.token_bytes(32)
        if before is not None and before._pepper == pepper:
            self._cache_key = before._cache_key
            self._cache = {key: known for key, known in before._cache.items() if self._is_as_in(before, known)}

    def __repr__(self) -> str:
        return f"<TokenVerifier {len(self._owners)} tokens>"

    def _is_as_in(self, before: TokenVerifier, token_id: str) -> bool:
        owner = self._owners.get(token_id)
        return owner is not None and owner.stored == before._owners[token_id].stored

    def verify(self, token: str) -> Principal | None:
        """Whose token this is; None for a malformed, unknown, wrong or expired one.

        Anything of another length or alphabet is refused before any hash; an unknown id costs
        the same as a wrong secret.
        """
        if len(token) != _TOKEN_LENGTH or not token.isascii():
            return None
        key = self._key(token)
        token_id = self._cache.get(key) or self._check(token)
        if token_id is None:
            return None
        if key not in self._cache:
            if len(self._cache) >= _CACHE_SIZE:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = token_id
        return self._in_time(token_id)

    def recall(self, token: str) -> Principal | None:
        """Whose token this is if it was verified before and is remembered; None says nothing about it."""
        if len(token) != _TOKEN_LENGTH or not token.isascii():
            return None
        token_id = self._cache.get(self._key(token))
        return None if token_id is None else self._in_time(token_id)

    def _key(self, token: str) -> bytes:
        return hashlib.blake2b(token.encode(), digest_size=32, key=self._cache_key).digest()

    def _in_time(self, token_id: str) -> Principal | None:
        _, principal, expires_s = self._owners[token_id]
        return principal if expires_s is None or self._clock.wall_s() < expires_s else None

    def _check(self, token: str) -> str | None:
        """The id of a token whose secret is right."""
        match = _TOKEN.fullmatch(token)
        if match is None or _checksum(match[1]) != match[4]:
            return None
        owner = self._owners.get(match[2])
        stored = self._nobody if owner is None else owner.stored
        right = hmac.compare_digest(stored, hash_secret(self._pepper, match[3]))
        return match[2] if right and owner is not None else None
