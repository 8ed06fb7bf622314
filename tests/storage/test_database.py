from __future__ import annotations

import itertools
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError

from salver.protocol.errors import SalverError
from salver.storage import database as database_module
from salver.storage.database import Database, current_revision, raise_revision
from salver.storage.home import Home
from salver.storage.schema import SCHEMA_VERSION, models, versions

RAISE = """
import sys
from pathlib import Path
from salver.storage.database import Database, raise_revision
database = Database.open(Path(sys.argv[1]))
if sys.argv[2] == "hang":
    with database.begin() as connection:
        print(raise_revision(connection), flush=True)
        sys.stdin.read()
while True:
    with database.begin() as connection:
        number = raise_revision(connection)
    print(number, flush=True)
    if sys.argv[2] == str(number):
        break
"""
OPEN = """
import sys
from pathlib import Path
from salver.storage.database import Database
sys.stdin.readline()
Database.open(Path(sys.argv[1])).close()
print("open", flush=True)
"""


def revision(database: Database) -> int:
    with database.read() as connection:
        return current_revision(connection)


def test_commits_are_fsynced_journalled_and_references_are_checked(database: Database, home: Home) -> None:
    with database.read() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]
    assert pragmas == ["wal", 2, 1, 10_000]
    for path in home.path.glob("salver.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_block_that_raises_changes_nothing(database: Database) -> None:
    def fail() -> None:
        with database.begin() as connection:
            raise_revision(connection)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert revision(database) == 0


def test_a_reader_sees_one_moment_while_a_writer_commits(database: Database) -> None:
    with database.read() as connection:
        assert current_revision(connection) == 0
        with database.begin() as writer:
            raise_revision(writer)
        assert current_revision(connection) == 0
    assert revision(database) == 1


def test_racing_writers_follow_one_another(database: Database) -> None:
    start = threading.Barrier(4)

    def race(_: int) -> list[int]:
        start.wait()
        seen = []
        for _ in range(10):
            with database.begin() as connection:
                seen.append(raise_revision(connection))
        return seen

    with ThreadPoolExecutor(4) as threads:
        numbers = sorted(itertools.chain.from_iterable(threads.map(race, range(4))))
    assert numbers == list(range(1, 41))


def test_processes_that_open_a_fresh_database_at_once_all_succeed(home: Home, python) -> None:
    children = [python(OPEN, home.database_path) for _ in range(3)]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [child.communicate()[0] for child in children] == ["open\n"] * 3


def test_threads_that_open_a_fresh_database_at_once_all_succeed(home: Home) -> None:
    for attempt in range(10):
        start = threading.Barrier(4)

        def race(_: int, start: threading.Barrier = start, path: Path = home.path / f"{attempt}.db") -> int:
            start.wait()
            database = Database.open(path)
            found = revision(database)
            database.close()
            return found

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(race, range(4))) == [0] * 4


def test_opening_a_database_again_drops_no_lock_of_this_process(database: Database, home: Home, python) -> None:
    # Were the locks dropped, the next process to leave would think it the last and remove the WAL.
    wal = home.path / "salver.db-wal"
    before = wal.stat().st_ino
    Database.open(home.database_path).close()
    assert python(OPEN, home.database_path).communicate("go\n")[0] == "open\n"
    assert wal.stat().st_ino == before
    assert revision(database) == 0


def test_what_was_acknowledged_before_kill_9_is_there(home: Home, python) -> None:
    child = python(RAISE, home.database_path, "forever")
    acknowledged = [int(child.stdout.readline()) for _ in range(25)][-1]
    child.kill()
    child.wait()
    database = Database.open(home.database_path)
    assert revision(database) >= acknowledged
    database.close()


def test_a_transaction_killed_in_the_middle_never_happened_and_frees_the_database(
    database: Database, home: Home, python
) -> None:
    child = python(RAISE, home.database_path, "hang")
    assert child.stdout.readline() == "1\n"
    child.kill()
    child.wait()
    assert revision(database) == 0
    with database.begin() as connection:
        assert raise_revision(connection) == 1


def test_a_writer_that_does_not_finish_is_a_conflict_for_the_others(home: Home, monkeypatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.05)
    database = Database.open(home.database_path)
    with (
        database.begin(),
        pytest.raises(SalverError, match=r"has held the database for 0\.05 s") as raised,
        database.begin(),
    ):
        pass
    assert raised.value.code == "CONFLICT"
    database.close()


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


def test_a_newer_schema_is_refused(database: Database, home: Home) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE schema SET version = 99"))
    with pytest.raises(SalverError, match=f"has schema 99; this Salver knows {SCHEMA_VERSION}") as raised:
        Database.open(home.database_path)
    assert raised.value.code == "REFUSED_BY_POLICY"
    assert raised.value.remedy


def test_a_file_that_is_no_database_is_refused(home: Home) -> None:
    home.database_path.write_bytes(b"no database at all" * 100)
    with pytest.raises(SalverError, match="the database is damaged") as raised:
        Database.open(home.database_path)
    assert raised.value.code == "CORRUPT_ARTIFACT"


@pytest.mark.parametrize("statement", ["UPDATE versions SET digest = 'x'", "DELETE FROM versions"])
def test_versions_are_written_once(database: Database, statement: str) -> None:
    with database.begin() as connection:
        connection.execute(insert(models).values(name="m", created_s=0))
        row = {"model": "m", "version": "1.0.0", "ordinal": 1, "digest": "d", "format": "f", "kind": "k"}
        connection.execute(insert(versions).values(**row, created_s=0, created_by="me", manifest="{}"))
    with pytest.raises(IntegrityError, match="written once"), database.begin() as connection:
        connection.execute(text(statement))


def test_a_version_needs_its_model(database: Database) -> None:
    row = {"model": "m", "version": "1.0.0", "ordinal": 1, "digest": "d", "format": "f", "kind": "k"}
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), database.begin() as connection:
        connection.execute(insert(versions).values(**row, created_s=0, created_by="me", manifest="{}"))


def test_the_server_process_imports_storage_without_sqlalchemy(python) -> None:
    program = "import sys, salver.storage, salver.security; print('sqlalchemy' in sys.modules)"
    assert python(program).communicate()[0] == "False\n"
    program = "import sys, salver.storage.database; print('sqlalchemy' in sys.modules)"
    assert python(program).communicate()[0] == "True\n"  # the check can tell


def test_the_database_file_is_plain_sqlite(database: Database, home: Home) -> None:
    connection = sqlite3.connect(home.database_path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
