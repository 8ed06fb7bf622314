from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import insert, select, text
from tests.postgres import PostgresServer

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.registry.access_tokens import AccessTokens
from salver.security.access import local_principal
from salver.storage import postgresql
from salver.storage.backends import WRITES
from salver.storage.database import Database, current_revision, open_database, raise_revision
from salver.storage.home import Home
from salver.storage.journal import Journal
from salver.storage.schema import models

HIDDEN = "hidden-word"


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    opened = Database.open(postgres_url)
    yield opened
    opened.close()


def raise_once(database: Database) -> int:
    with database.begin() as connection:
        return raise_revision(connection)


def fails(database: Database, code: str) -> SalverError:
    with pytest.raises(SalverError) as raised:
        raise_once(database)
    assert raised.value.code == code, raised.value
    assert raised.value.remedy
    return raised.value


def refused(url: str) -> SalverError:
    with pytest.raises(SalverError) as raised:
        Database.open(url)
    shown, error = [], raised.value
    while error is not None:
        shown.append(f"{error!r} {error}")
        error = error.__cause__ or error.__context__
    assert HIDDEN not in " ".join(shown)
    return raised.value


def test_sessions_are_durable_and_their_waits_finite(database: Database) -> None:
    names = ("synchronous_commit", "lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    with database.read() as connection:
        found = [connection.execute(text(f"SHOW {name}")).scalar_one() for name in names]
        isolation = connection.execute(text("SHOW transaction_isolation")).scalar_one()
    assert found == ["on", "10s", "2min", "2min"]
    assert isolation == "repeatable read"


def test_a_server_that_acknowledges_too_early_is_told_not_to(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = urlsplit(postgres_url).path[1:]
    postgres_server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    database = Database.open(postgres_url)
    with database.read() as connection:
        assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == "on"
    database.close()


def test_two_schemas_of_one_database_do_not_wait_for_each_other(database: Database, postgres_url: str) -> None:
    with database.begin() as connection:
        connection.execute(text("CREATE SCHEMA other"))
    other = Database.open(f"{postgres_url}&options=-csearch_path%3Dother")
    with database.begin() as ours:
        raise_revision(ours)
        assert raise_once(other) == 1
        assert raise_once(other) == 2
    other.close()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    with tempfile.TemporaryDirectory(prefix="salver-pg-", ignore_cleanup_errors=True) as directory:
        server = PostgresServer(Path(directory))
        try:
            server.set_up()
            yield server
        finally:
            server.stop()


def test_while_the_server_is_gone_changes_are_unavailable_and_afterwards_all_goes_on(own_server) -> None:
    database = Database.open(own_server.url("ready"))
    assert raise_once(database) == 1
    own_server.stop()
    for _ in range(2):
        error = fails(database, "CONTROL_UNAVAILABLE")
        assert error.http == 503
        assert error.retry_after_s
    assert refused(own_server.url("ready")).code == "CONTROL_UNAVAILABLE"
    own_server.start()
    assert raise_once(database) == 2

    def lose_it() -> None:
        with database.begin() as connection:
            raise_revision(connection)
            own_server.stop()
            connection.execute(select(models))

    with pytest.raises(SalverError, match="does not answer") as raised:
        lose_it()
    assert raised.value.code == "CONTROL_UNAVAILABLE"
    own_server.start()
    assert raise_once(database) == 3  # what was not committed never happened

    def lose_it_at_the_end() -> None:
        with database.begin() as connection:
            raise_revision(connection)
            own_server.stop()

    with pytest.raises(SalverError, match="may have happened or not"):
        lose_it_at_the_end()
    own_server.start()
    assert raise_once(database) == 4
    database.close()


def test_a_standby_takes_no_changes_and_says_so(postgres_server: PostgresServer, postgres_url: str) -> None:
    Database.open(postgres_url).close()
    name = urlsplit(postgres_url).path[1:]
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    database = Database.open(postgres_url)
    assert "standby or set to read only" in fails(database, "CONTROL_UNAVAILABLE").message
    with database.read() as connection:
        assert current_revision(connection) == 0
    database.close()


def test_a_full_disk_of_the_server_is_reported(database: Database) -> None:
    def fill() -> None:
        with database.begin() as connection:
            connection.execute(insert(models).values(name="m", created_s=0))
            connection.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'disk_full'; END $$"))

    with pytest.raises(SalverError, match="no space left") as raised:
        fill()
    assert raised.value.code == "STORAGE_FULL"
    with database.read() as connection:
        assert connection.execute(select(models)).all() == []


@pytest.mark.parametrize("code", ["query_canceled", "too_many_connections", "admin_shutdown"])
def test_troubles_of_the_server_are_no_faults_of_ours(database: Database, code: str) -> None:
    with pytest.raises(SalverError) as raised, database.begin() as connection:
        connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$"))
    assert raised.value.code == "CONTROL_UNAVAILABLE"


def test_neither_passwords_nor_addresses_are_told(postgres_server: PostgresServer) -> None:
    directory = postgres_server.directory
    wrong = refused(f"postgresql://salver:{HIDDEN}@/nowhere?host={directory}")
    assert wrong.code == "INVALID_SETTING"
    assert refused(f"postgresql://nobody:{HIDDEN}@/ready?host={directory}").code == "INVALID_SETTING"
    assert refused(f"postgresql://salver:{HIDDEN}@127.0.0.1:1/ready").code == "CONTROL_UNAVAILABLE"
    for url in (f"postgresql://salver:{HIDDEN}@host:port/x", f"mysql://salver:{HIDDEN}@host/x"):
        assert refused(url).code == "INVALID_SETTING"
    assert repr(postgresql.PostgreSQL(f"postgresql://salver:{HIDDEN}@host/x")) == "<PostgreSQL x>"


def test_tables_of_somebody_else_are_left_alone(postgres_server: PostgresServer) -> None:
    name = postgres_server.fresh("template1")
    postgres_server.execute("CREATE TABLE tokens (x integer)", name)
    assert refused(postgres_server.url(name)).code == "REFUSED_BY_POLICY"
    assert postgres_server.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name) == [("tokens",)]
    postgres_server.drop(name)


def test_without_psycopg_the_extra_is_named(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SalverError, match="needs psycopg") as raised:
        Database.open(postgres_url)
    assert raised.value.code == "UNSUPPORTED"
    assert "salver[postgres]" in raised.value.remedy


def test_a_home_with_other_secrets_does_not_get_in(postgres_url: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SALVER_STORAGE_DATABASE", postgres_url)
    first = Home.open(tmp_path / "first")
    database = open_database(first)
    assert database.shared
    AccessTokens(database, Journal(database, SYSTEM_CLOCK), SYSTEM_CLOCK, first.pepper()).renew_admin(local_principal())
    first.admin_token_path.write_text("token")
    second = Home.open(tmp_path / "second")
    with pytest.raises(SalverError, match="other secrets") as raised:
        open_database(second)
    assert raised.value.code == "REFUSED_BY_POLICY"
    second.pepper_path.write_bytes(first.pepper())
    with pytest.raises(SalverError, match="other secrets"):  # it would renew the administrator's token for all
        open_database(second)
    second.admin_token_path.write_text("token")
    open_database(second).close()
    database.close()


def test_writers_lock_before_they_look(database: Database) -> None:
    """Else the snapshot would be older than the lock."""
    with database.begin() as connection:
        assert connection.get_execution_options()[WRITES]
        assert connection.execute(text("SHOW transaction_isolation")).scalar_one() == "read committed"
        held = connection.execute(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")).scalar_one()
    assert held == 1
