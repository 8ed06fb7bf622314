"""PostgreSQL as the database of a home, or of several: through psycopg, the extra `postgres`.

Writers take an advisory lock for their transaction, one per schema of the database, so they follow
one another as on SQLite. They read at READ COMMITTED, after they have the lock: what the writer
before them committed is seen, and nobody else writes. Readers have one snapshot.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from salver.protocol.errors import SalverError
from salver.storage.backends import POOL_OVERFLOW, POOL_SIZE, POOL_TIMEOUT_S, WRITES

__all__ = ["PostgreSQL"]

LOCK_TIMEOUT_S: Final = 10.0
"""How long a writer waits for another one."""
_STATEMENT_TIMEOUT_S: Final = 120.0
_IDLE_TIMEOUT_S: Final = 120.0
"""A transaction whose client has stopped is ended by the server, or it would hold up all others."""
_CONNECT: Final[dict[str, str]] = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
    "application_name": "salver",
}
_RECYCLE_S: Final = 1800
_RETRY_AFTER_S: Final = 5.0

_FULL: Final = frozenset({"53100"})
_WAITED: Final = frozenset({"55P03", "40001", "40P01"})
_DENIED: Final = frozenset({"28000", "28P01", "3D000", "3F000", "42501"})
_READ_ONLY: Final = "25006"
_DAMAGED: Final = frozenset({"XX001", "XX002"})
_AWAY: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "57014", "53300", "53200", "25P03", "58030"})
"""Shutting down, crashed, starting, session ended, statement too long, too many connections, no memory, idle, I/O."""


class PostgreSQL:
    """The database at a URL, which may hold a password and so appears in no message."""

    shared = True

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            raise _wrong_url() from None
        if parsed.drivername not in ("postgresql", "postgres") or not parsed.database:
            raise _wrong_url()
        given = {name: value for name, value in _CONNECT.items() if name not in parsed.query}
        self._url = parsed.set(drivername="postgresql+psycopg").update_query_dict(given)

    def __repr__(self) -> str:
        return f"<PostgreSQL {self._url.database}>"

    def engine(self) -> Engine:
        """See `Backend`; UNSUPPORTED where psycopg is not installed."""
        try:
            engine = create_engine(
                self._url,
                pool_size=POOL_SIZE,
                max_overflow=POOL_OVERFLOW,
                pool_timeout=POOL_TIMEOUT_S,
                pool_pre_ping=True,
                pool_recycle=_RECYCLE_S,
                hide_parameters=True,
            )
        except ImportError:
            raise SalverError(
                "UNSUPPORTED", "a database on PostgreSQL needs psycopg", "pip install 'salver[postgres]'"
            ) from None
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        return engine

    def one_opener(self) -> contextlib.AbstractContextManager[None]:
        """The advisory lock does it."""
        return contextlib.nullcontext()

    def check_place(self) -> None:
        """The server knows its databases."""

    def keep_copy(self, suffix: str) -> None:
        """The server's own backups are the way back; the migration is one transaction."""

    def refusal(self, error: BaseException | None, *, writing: bool) -> SalverError | None:
        """See `Backend`."""
        state = getattr(error, "sqlstate", None)
        if state in _WAITED:
            return SalverError(
                "CONTROL_UNAVAILABLE",
                f"another writer has held the database for {LOCK_TIMEOUT_S:g} s",
                "nothing has changed: repeat, and look for a stopped process that uses this database",
                retry_after_s=1.0,
            )
        if state in _FULL:
            return SalverError(
                "STORAGE_FULL",
                "the database server has no space left",
                "free some space on the server's disk, then repeat",
            )
        if state in _DAMAGED:
            return SalverError("CORRUPT_ARTIFACT", "the database is damaged", "restore it from a backup")
        if state in _DENIED or _denied_at_once(error):
            return SalverError(
                "INVALID_SETTING",
                "the database server does not let this user use that database",
                "check user, password and database in storage.toml, and the user's rights: it makes tables",
            )
        if state == _READ_ONLY and writing:
            return _away("the database server takes no changes: it is a standby or set to read only")
        if state in _AWAY or (state or "").startswith("08") or (state is None and _is_operational(error)):
            return _away("the database server does not answer")
        return None

    def prepare(self, connection: Connection) -> None:
        """Without a schema to work in there would be no lock either."""
        if connection.exec_driver_sql("SELECT current_schema()").scalar_one() is None:
            raise SalverError(
                "INVALID_SETTING",
                "the database has no schema for this user",
                "create one of the user's name, or one named public, and let the user create in it",
            )


def _configure(connection: Any, _record: Any) -> None:
    settings = {
        "lock_timeout": f"{LOCK_TIMEOUT_S * 1000:.0f}",
        "statement_timeout": f"{_STATEMENT_TIMEOUT_S * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{_IDLE_TIMEOUT_S * 1000:.0f}",
        "TimeZone": "UTC",
    }
    calls = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in settings.items())
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {calls}")
        # What a commit acknowledges is on the server's disk; who asked for more (remote_apply) keeps it.
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        )
    connection.commit()


def _begin(connection: Connection) -> None:
    if connection.get_execution_options()[WRITES]:
        connection.exec_driver_sql(
            "SELECT pg_advisory_xact_lock(hashtext('salver'), hashtext(coalesce(current_schema(), '')))"
        )
    else:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")


def _is_operational(error: BaseException | None) -> bool:
    import psycopg  # noqa: PLC0415 - the extra `postgres`

    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def _denied_at_once(error: BaseException | None) -> bool:
    """Whether the server refused at the connection: psycopg gives no code there, only the server's words."""
    return (
        _is_operational(error)
        and getattr(error, "sqlstate", None) is None
        and "FATAL:" in str(error)
        and any(words in str(error) for words in ("authentication failed", "does not exist", "no pg_hba.conf entry"))
    )


def _away(message: str) -> SalverError:
    return SalverError(
        "CONTROL_UNAVAILABLE",
        message,
        "serving goes on; repeat the change when the database is back",
        retry_after_s=_RETRY_AFTER_S,
    )


def _wrong_url() -> SalverError:
    return SalverError(
        "INVALID_SETTING",
        "setting database is no URL of a database",
        "use postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or leave it empty for a file in the home",
    )
