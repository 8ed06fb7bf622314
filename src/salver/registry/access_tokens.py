"""The tokens of a home: created, listed, revoked, each on the journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, insert, select

from salver.clock import Clock
from salver.protocol.errors import SalverError
from salver.protocol.journal_actions import JournalAction
from salver.protocol.names import check_name
from salver.protocol.tables import TokenRecord
from salver.security.access import DEFAULT_TENANT, Operation, Principal, Role, require
from salver.security.tokens import MintedToken, mint_token
from salver.storage.database import Database, raise_revision
from salver.storage.home import Home
from salver.storage.journal import Journal
from salver.storage.registry_schema import approvals
from salver.storage.schema import tokens
from salver.storage.snapshot import write_atomically

__all__ = ["ADMIN_TOKEN_NAME", "AccessTokens", "ensure_admin_token", "read_tokens"]

ADMIN_TOKEN_NAME: Final = "admin"  # noqa: S105 - a name, not a secret
"""The name of the token in `admin.token`; no other token may have it."""
_LONGEST_S: Final = 10 * 365 * 86400.0


class AccessTokens:
    """The tokens in one database, hashed under the pepper of its home."""

    __slots__ = ("_clock", "_database", "_journal", "_pepper")

    def __init__(self, database: Database, journal: Journal, clock: Clock, pepper: bytes) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self._pepper = pepper

    def create(
        self,
        principal: Principal,
        name: str,
        role: str,
        tenant: str = DEFAULT_TENANT,
        expires_in_s: float | None = None,
    ) -> MintedToken:
        """Create a token, for ever or for `expires_in_s`; what is returned is the only copy of its secret.

        A name may have several tokens, so that one can replace another without a gap, but only
        of one role and tenant: the journal knows actors by name. Raises PERMISSION_DENIED,
        INVALID_NAME, INVALID_SETTING for an unknown role or time, ALREADY_EXISTS.
        """
        require(principal, Operation.CREATE_TOKEN)
        check_name(name, "token")
        check_name(tenant, "tenant")
        if name == ADMIN_TOKEN_NAME:
            raise SalverError("INVALID_NAME", f"token name {name!r} is kept for the first administrator", "use another")
        checked = _role(role)
        _check_expiry(expires_in_s)
        with self._database.begin() as connection:
            for record in read_tokens(connection):
                if record.name == name and (record.role, record.tenant) != (checked.value, tenant):
                    raise SalverError(
                        "ALREADY_EXISTS",
                        f"token {record.id} of {name!r} has role {record.role} and tenant {record.tenant}",
                        "use the same role and tenant, another name, or revoke that token first",
                    )
            return self._mint(connection, principal, name, checked, tenant, expires_in_s)

    def list(self) -> tuple[TokenRecord, ...]:
        """All tokens by age. The caller checks READ_TOKENS."""
        with self._database.read() as connection:
            return read_tokens(connection)

    def revoke(self, principal: Principal, token_id: str) -> TokenRecord:
        """Revoke a token by its id and return what it was; NOT_FOUND for an unknown one.

        With the last token of a name go the approvals under that name that still hold: whoever had it is trusted no
        more.
        """
        require(principal, Operation.REVOKE_TOKEN)
        with self._database.begin() as connection:
            for record in read_tokens(connection):
                if record.id == token_id:
                    self._revoke(connection, principal, record, _drop_approvals(connection, record))
                    return record
        raise SalverError(
            "NOT_FOUND", f"there is no token with the id {token_id[:80]!r}", "list the tokens for their ids"
        )

    def renew_admin(self, principal: Principal) -> MintedToken:
        """Replace every token named "admin" by a new one."""
        require(principal, Operation.CREATE_TOKEN)
        with self._database.begin() as connection:
            for record in read_tokens(connection):
                if record.name == ADMIN_TOKEN_NAME:
                    self._revoke(connection, principal, record)
            return self._mint(connection, principal, ADMIN_TOKEN_NAME, Role.ADMIN, DEFAULT_TENANT)

    def _mint(
        self,
        connection: Connection,
        principal: Principal,
        name: str,
        role: Role,
        tenant: str,
        expires_in_s: float | None = None,
    ) -> MintedToken:
        minted = mint_token(name, role, tenant, pepper=self._pepper, clock=self._clock, expires_in_s=expires_in_s)
        record = minted.record
        connection.execute(insert(tokens).values(msgspec.structs.asdict(record)))
        self._record(connection, principal, "create_token", record)
        return minted

    def _revoke(
        self, connection: Connection, principal: Principal, record: TokenRecord, approved: Sequence[str] = ()
    ) -> None:
        connection.execute(delete(tokens).where(tokens.c.id == record.id))
        self._record(connection, principal, "revoke_token", record, approved)

    def _record(
        self,
        connection: Connection,
        principal: Principal,
        action: JournalAction,
        record: TokenRecord,
        approved: Sequence[str] = (),
    ) -> None:
        raise_revision(connection)
        details: dict[str, Any] = {"name": record.name, "role": record.role, "tenant": record.tenant}
        if record.expires_s is not None:
            details["expires_s"] = record.expires_s
        if approved:
            details["approvals"] = list(approved)
        public = {name: value for name, value in msgspec.structs.asdict(record).items() if name != "hash"}
        self._journal.append(
            connection,
            actor=principal.name,
            action=action,
            subject=record.id,
            details=details,
            before=public if action == "revoke_token" else None,
            after=public if action == "create_token" else None,
        )


def _drop_approvals(connection: Connection, record: TokenRecord) -> list[str]:
    """Forget what was approved under the name of a token that is its last; returns what that was."""
    if sum(each.name == record.name for each in read_tokens(connection)) > 1:
        return []
    columns, by_them = approvals.c, approvals.c.approved_by == record.name
    query = select(columns.model, columns.version, columns.target).where(by_them)
    query = query.order_by(columns.model, columns.approved_s)
    found = [f"{model}@{version} to {target}" for model, version, target in connection.execute(query)]
    connection.execute(delete(approvals).where(by_them))
    return found


def read_tokens(connection: Connection) -> tuple[TokenRecord, ...]:
    """All tokens by age, within a transaction that is already open."""
    rows = connection.execute(select(tokens).order_by(tokens.c.created_s, tokens.c.id))
    return tuple(TokenRecord(**row._mapping) for row in rows)


def ensure_admin_token(home: Home, access_tokens: AccessTokens, principal: Principal) -> bool:
    """Write a new administrator's token into the home if it has no `admin.token`; return whether.

    A file that is there stays as it is, valid or not, so a token that was revoked is not
    brought back. Death between the database and the file leaves no file: the next call
    replaces the token that nobody has seen. REQUIRES the home lock.
    """
    if home.admin_token_path.exists():
        return False
    minted = access_tokens.renew_admin(principal)
    write_atomically(home.admin_token_path, minted.token.encode() + b"\n", 0o600)
    return True


def _role(role: str) -> Role:
    try:
        return Role(role)
    except ValueError:
        raise SalverError(
            "INVALID_SETTING", f"setting role is {role[:80]!r}", f"use one of {', '.join(Role)}"
        ) from None


def _check_expiry(expires_in_s: float | None) -> None:
    if expires_in_s is not None and not 1.0 <= expires_in_s <= _LONGEST_S:
        raise SalverError(
            "INVALID_SETTING",
            f"setting expires_in_s is {expires_in_s:g}",
            f"use 1-{_LONGEST_S:.0f} seconds, or leave it out for a token that does not expire",
        )
