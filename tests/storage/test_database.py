from __future__ import annotations

import contextlib
import shutil
import sqlite3
import stat

import pytest
from sqlalchemy import insert, select

from salver.protocol.errors import SalverError
from salver.storage.database import Database, current_revision, open_database, raise_revision
from salver.storage.home import Home
from salver.storage.schema import models

OPEN = """
import sys
from salver.storage.database import open_database
from salver.storage.home import Home
sys.stdin.readline()
open_database(Home.open(sys.argv[1])).close()
print("open", flush=True)
"""


@pytest.fixture
def database(home: Home):
    """A file, whatever the other tests use: what this page says is of SQLite."""
    opened = Database.open(home.database_path)
    yield opened
    opened.close()


def revision(database: Database) -> int:
    with database.read() as connection:
        return current_revision(connection)


def fails(database: Database, code: str) -> SalverError:
    with pytest.raises(SalverError) as raised, database.begin() as connection:
        raise_revision(connection)
    assert raised.value.code == code
    assert raised.value.remedy
    return raised.value


def test_commits_are_fsynced_journalled_and_references_are_checked(database: Database, home: Home) -> None:
    with database.read() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert pragmas == ["wal", 2, 1, 10_000]
    for path in home.path.glob("salver.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_opening_a_database_again_drops_no_lock_of_this_process(
    database: Database, home: Home, python, monkeypatch
) -> None:
    # Were the locks dropped, the next process to leave would think it the last and remove the WAL.
    monkeypatch.setenv("SALVER_STORAGE_DATABASE", "")
    wal = home.path / "salver.db-wal"
    before = wal.stat().st_ino
    Database.open(home.database_path).close()
    assert python(OPEN, home.path).communicate("go\n")[0] == "open\n"
    assert wal.stat().st_ino == before
    assert revision(database) == 0


def test_a_full_disk_is_reported_and_changes_nothing(database: Database) -> None:
    with database.begin() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    def fill() -> None:
        with database.begin() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            for number in range(1000):
                connection.execute(insert(models).values(name=f"m{number}" + "x" * 500, created_s=0))

    with pytest.raises(SalverError) as raised:
        fill()
    assert raised.value.code == "STORAGE_FULL"
    with database.read() as connection:
        assert connection.execute(select(models)).all() == []


def test_a_file_that_is_no_database_is_refused(home: Home) -> None:
    home.database_path.write_bytes(b"no database at all" * 100)
    with pytest.raises(SalverError, match="the database is damaged") as raised:
        Database.open(home.database_path)
    assert raised.value.code == "CORRUPT_ARTIFACT"


def test_a_file_that_is_damaged_while_it_is_open_is_unavailable_and_used_again_when_it_is_sound(
    database: Database, home: Home
) -> None:
    with database.begin() as connection:
        raise_revision(connection)
    with contextlib.closing(sqlite3.connect(home.database_path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    kept = home.database_path.read_bytes()
    for damaged in (b"garbage!" * (len(kept) // 8), kept[:100]):
        home.database_path.write_bytes(damaged)  # in place
        for _ in range(2):
            assert "damaged" in fails(database, "CONTROL_UNAVAILABLE").message
        home.database_path.write_bytes(kept)
        with database.read() as connection:
            assert current_revision(connection) == 1
    with database.begin() as connection:
        assert raise_revision(connection) == 2


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_removed_or_replaced_takes_no_changes_that_would_be_lost(
    database: Database, home: Home, replaced: bool
) -> None:
    with database.begin() as connection:
        raise_revision(connection)
    kept = home.path / "kept"
    home.database_path.rename(kept)
    if replaced:
        shutil.copy(kept, home.database_path)
    assert "removed or replaced" in fails(database, "CONTROL_UNAVAILABLE").message
    assert home.database_path.exists() == replaced  # and none is made in its place
    kept.replace(home.database_path)
    with database.begin() as connection:
        assert raise_revision(connection) == 2


def test_a_file_system_that_cannot_be_written_is_unavailable(database: Database, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        error = sqlite3.OperationalError("attempt to write a readonly database")
        error.sqlite_errorcode = sqlite3.SQLITE_READONLY
        raise error

    with pytest.raises(SalverError, match="cannot be opened for writing") as raised, database.begin():
        refuse()
    assert raised.value.code == "CONTROL_UNAVAILABLE"


def test_a_home_says_where_its_database_is(home: Home, monkeypatch) -> None:
    monkeypatch.delenv("SALVER_STORAGE_DATABASE", raising=False)
    opened = open_database(home)
    assert repr(opened) == "<Database sqlite>"
    assert not opened.shared
    opened.close()
    for wrong in (
        "mysql://me:hidden-word@host/x",
        "postgresql://me:hidden-word@host",
        "nonsense",
        "http://[hidden-word",
    ):
        (home.path / "storage.toml").write_text(f'database = "{wrong}"')
        with pytest.raises(SalverError, match="no URL of a database") as raised:
            open_database(home)
        assert raised.value.code == "INVALID_SETTING"
        assert "hidden-word" not in f"{raised.value} {raised.value.__cause__} {raised.value.__context__}"


def test_the_server_process_imports_storage_without_sqlalchemy(python) -> None:
    program = "import sys, salver.storage, salver.security; print('sqlalchemy' in sys.modules)"
    assert python(program).communicate()[0] == "False\n"
    program = "import sys, salver.storage.database; print('sqlalchemy' in sys.modules)"
    assert python(program).communicate()[0] == "True\n"  # the check can tell


def test_opening_a_new_database_imports_neither_alembic_nor_psycopg(tmp_path, python) -> None:
    program = f"""
import sys
from pathlib import Path
from salver.storage.database import Database
Database.open(Path({str(tmp_path)!r}) / "x.db").close()
print([name for name in ("alembic", "psycopg", "sqlalchemy") if name in sys.modules])
"""
    assert python(program).communicate()[0] == "['sqlalchemy']\n"


def test_the_database_file_is_plain_sqlite(database: Database, home: Home) -> None:
    connection = sqlite3.connect(home.database_path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
