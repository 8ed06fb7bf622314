"""What every kind of database must do, checked over all of them: SQLite and PostgreSQL behave alike."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.storage import backends, postgresql, refusals
from salver.storage.database import Database, current_revision, raise_revision
from salver.storage.journal import Journal
from salver.storage.preparation import TABLES
from salver.storage.schema import WRITTEN_ONCE, alembic_version, journal, models, tokens, versions

Start = Callable[..., "subprocess.Popen[str]"]

RAISE = """
import sys
from pathlib import Path
from salver.storage.database import Database, raise_revision
place = sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1])
database = Database.open(place)
if sys.argv[2] == "hang":
    with database.begin() as connection:
        print(raise_revision(connection), flush=True)
        sys.stdin.read()
while True:
    with database.begin() as connection:
        number = raise_revision(connection)
    print(number, flush=True)
"""
OPEN = """
import sys
from pathlib import Path
from salver.storage.database import Database
place = sys.argv[1] if "://" in sys.argv[1] else Path(sys.argv[1])
sys.stdin.readline()
Database.open(place).close()
print("open", flush=True)
"""
VERSION = {"model": "m", "version": "1.0.0", "ordinal": 1, "digest": "d", "format": "f", "kind": "k"}
VERSION |= {"created_s": 0, "created_by": "me", "manifest": "{}", "sort_key": "", "prerelease": False}


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a database is."""
    return tmp_path / "salver.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path | str]:
    """Where a database is that nobody has opened yet."""
    if request.param == "sqlite":
        yield tmp_path / "salver.db"
        return
    server = request.getfixturevalue("postgres_server")
    name = server.fresh("template1")
    yield server.url(name)
    server.drop(name)


@pytest.fixture
def database(place: Path | str) -> Iterator[Database]:
    opened = Database.open(place)
    yield opened
    opened.close()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python programs that talk over pipes; whatever still runs afterwards is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for child in started:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "BUSY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(postgresql, "LOCK_TIMEOUT_S", 0.05)


def revision(database: Database) -> int:
    with database.read() as connection:
        return current_revision(connection)


def fails(action: Callable[[], Any], code: str, match: str = "") -> SalverError:
    with pytest.raises(SalverError, match=match) as raised:
        action()
    assert raised.value.code == code, raised.value
    return raised.value


# Transactions.


def test_a_block_that_raises_changes_nothing(database: Database) -> None:
    def fail() -> None:
        with database.begin() as connection:
            raise_revision(connection)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert revision(database) == 0


def test_tables_that_are_made_in_a_block_that_raises_are_not_there(database: Database) -> None:
    def fail() -> None:
        with database.begin() as connection:
            connection.execute(text("CREATE TABLE made (x integer)"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.read() as connection:
        assert not connection.dialect.has_table(connection, "made")


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


def test_what_a_writer_read_stays_true_until_it_commits(database: Database) -> None:
    """Two who look whether a name is free and then take it: with snapshots alone both would."""
    both_looked = threading.Barrier(2)

    def take(number: int) -> bool:
        with database.begin() as connection:
            if connection.execute(select(func.count()).select_from(models)).scalar_one():
                return False
            with contextlib.suppress(threading.BrokenBarrierError):
                both_looked.wait(0.3)
            connection.execute(insert(models).values(name=f"m{number}", created_s=0))
            return True

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(take, range(2))) == [False, True]


def test_nothing_can_be_written_while_reading(database: Database) -> None:
    def write() -> None:
        with database.read() as connection:
            raise_revision(connection)

    with pytest.raises(DBAPIError):
        write()
    assert revision(database) == 0
    with database.begin() as connection:
        assert raise_revision(connection) == 1


@pytest.mark.parametrize("text", ["a\0b", "half a pair \ud800"])
def test_a_text_that_no_database_keeps_is_refused_by_both(database: Database, text: str) -> None:
    with pytest.raises(SalverError) as raised, database.begin() as connection:
        connection.execute(models.insert().values(name=text, created_s=1.0))
    assert raised.value.code == "INVALID_PARAMETER"
    with pytest.raises(SalverError) as raised, database.read() as connection:
        connection.execute(select(models).where(models.c.name == text))
    assert raised.value.code == "INVALID_PARAMETER"
    with database.read() as connection:
        assert connection.execute(select(models)).all() == []


@pytest.mark.usefixtures("impatient")
def test_a_writer_that_does_not_finish_is_told_to_the_others(place: Path | str) -> None:
    database = Database.open(place)

    def write() -> None:
        with database.begin():
            pass

    with database.begin():
        fails(write, "CONTROL_UNAVAILABLE", r"has held the database for 0\.05 s")
        assert revision(database) == 0  # readers wait for nobody
    write()
    database.close()


def test_connections_are_finite_and_given_back(place: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sqlite", "postgresql"):
        monkeypatch.setattr(f"salver.storage.{module}.POOL_TIMEOUT_S", 0.05)
    database = Database.open(place)
    most = backends.POOL_SIZE + backends.POOL_OVERFLOW

    def nest(depth: int) -> None:
        if depth:
            with database.read() as connection:
                current_revision(connection)
                nest(depth - 1)

    nest(most)
    fails(lambda: nest(most + 1), "OVERLOADED", f"all {most} connections")
    nest(most)
    database.close()


# Processes.


def test_processes_that_open_a_fresh_database_at_once_all_succeed(fresh_place: Path | str, start: Start) -> None:
    children = [start(OPEN, fresh_place) for _ in range(3)]
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [child.communicate()[0] for child in children] == ["open\n"] * 3


def test_threads_that_open_a_fresh_database_at_once_all_succeed(fresh_place: Path | str) -> None:
    start = threading.Barrier(4)

    def race(_: int) -> int:
        start.wait()
        database = Database.open(fresh_place)
        found = revision(database)
        database.close()
        return found

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(race, range(4))) == [0] * 4


def test_what_was_acknowledged_before_kill_9_is_there(place: Path | str, start: Start) -> None:
    child = start(RAISE, place, "forever")
    acknowledged = [int(child.stdout.readline()) for _ in range(25)][-1]
    child.kill()
    child.wait()
    database = Database.open(place)
    assert revision(database) >= acknowledged
    database.close()


def test_a_transaction_killed_in_the_middle_never_happened_and_frees_the_database(
    database: Database, place: Path | str, start: Start
) -> None:
    child = start(RAISE, place, "hang")
    assert child.stdout.readline() == "1\n"
    child.kill()
    child.wait()
    assert revision(database) == 0
    with database.begin() as connection:
        assert raise_revision(connection) == 1


# What the tables promise.


@pytest.mark.parametrize("statement", [update(journal).values(actor="x"), delete(journal)])
def test_rows_that_are_written_once_refuse_to_change(database: Database, statement: Any) -> None:
    with database.begin() as connection:
        Journal(database, SYSTEM_CLOCK).append(connection, actor="a", action="b", subject="c", details={})
    with pytest.raises(IntegrityError, match="rows of journal are written once"), database.begin() as connection:
        connection.execute(statement)
    assert Journal(database, SYSTEM_CLOCK).verify().ok


@pytest.mark.parametrize("table", WRITTEN_ONCE)
def test_each_of_their_tables_refuses(database: Database, table: str) -> None:
    rows: dict[str, Any] = {}
    for column in TABLES.tables[table].columns:
        rows[column.name] = {"INTEGER": 1, "BIGINT": 1, "FLOAT": 1.0, "BOOLEAN": False}.get(str(column.type), "x")
    with database.begin() as connection:
        if table != "versions":
            connection.execute(insert(models).values(name="m", created_s=0))
            connection.execute(insert(versions).values(**VERSION))
            rows |= {"model": "m", "version": "1.0.0"} if "model" in rows else {}
        else:
            connection.execute(insert(models).values(name="x", created_s=0))
        connection.execute(insert(TABLES.tables[table]).values(rows))
    verbs = [f"UPDATE {table} SET {next(iter(rows))} = {next(iter(rows))}", f"DELETE FROM {table}"]
    verbs += [f"TRUNCATE {table} CASCADE"] if "postgresql" in repr(database) else []
    for verb in verbs:
        with pytest.raises(IntegrityError, match=f"rows of {table} are written once"), database.begin() as connection:
            connection.execute(text(verb))


def test_what_is_referred_to_must_be_there(database: Database) -> None:
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"), database.begin() as connection:
        connection.execute(insert(versions).values(**VERSION))


def test_text_is_kept_as_it_is_and_sorts_by_code_points(database: Database) -> None:
    names = ["Zebra", "a-b", "a_b", "ab", "aß", "größe ☃", "été", "🎈", "a b", 'a "q"\\n\n\t', "Ab"]
    with database.begin() as connection:
        for name in names:
            connection.execute(insert(models).values(name=name, created_s=0.1 + 0.2))
    with database.read() as connection:
        rows = connection.execute(select(models).order_by(models.c.name)).all()
        found = connection.execute(select(models.c.name).where(models.c.name.like("a%"))).scalars().all()
    assert [row.name for row in rows] == sorted(names)
    assert {row.created_s for row in rows} == {0.1 + 0.2}
    assert set(found) == {name for name in names if name.startswith("a")}  # and not Ab


def test_absence_and_truth_come_back_as_they_went(database: Database) -> None:
    with database.begin() as connection:
        row = {"id": "i", "name": "n", "role": "r", "tenant": "t", "hash": "h", "created_s": 1.5, "expires_s": None}
        connection.execute(insert(tokens).values(**row))
    with database.read() as connection:
        assert connection.execute(select(tokens)).one()._asdict() == row


# Opening.


def test_a_newer_schema_is_refused_and_left_alone(database: Database, place: Path | str) -> None:
    with database.begin() as connection:
        connection.execute(update(alembic_version).values(version_num="9999"))
    error = fails(lambda: Database.open(place), "REFUSED_BY_POLICY", "has schema 9999; this Salver knows 00")
    assert error.remedy
    with database.read() as connection:
        assert connection.execute(select(alembic_version.c.version_num)).scalar_one() == "9999"


def test_opening_again_changes_nothing(database: Database, place: Path | str) -> None:
    with database.begin() as connection:
        raise_revision(connection)
    again = Database.open(place)
    assert revision(again) == 1
    again.close()
