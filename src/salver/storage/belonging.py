"""Homes that share one database must share their secrets: tokens are hashed under the pepper."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from sqlalchemy import Connection, insert, select

from salver.protocol.errors import SalverError
from salver.storage.home import Home
from salver.storage.schema import belonging, tokens

__all__ = ["check_belongs"]

_PURPOSE: Final = b"salver homes of one database"


def check_belongs(connection: Connection, home: Home) -> None:
    """Note the secrets of the first home of a database; raises REFUSED_BY_POLICY for a home with others.

    A home without an administrator's token does not belong either while there are tokens: it would make
    a new one and so revoke that of the other homes. REQUIRES a connection from `Database.begin`.
    """
    ours = hmac.new(home.pepper(), _PURPOSE, hashlib.sha256).hexdigest()
    theirs = connection.execute(select(belonging.c.secrets)).scalar_one_or_none()
    if theirs is None:
        connection.execute(insert(belonging).values(id=1, secrets=ours))
        return
    has_tokens = connection.execute(select(tokens.c.id).limit(1)).first() is not None
    if not hmac.compare_digest(ours, theirs) or (has_tokens and not home.admin_token_path.exists()):
        raise SalverError(
            "REFUSED_BY_POLICY",
            "the database belongs to homes with other secrets",
            "copy secrets/ and admin.token from a home that uses it already, or name another database",
        )
