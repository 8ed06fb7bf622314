from __future__ import annotations

import itertools
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, select, text
from tests.postgres import PostgresServer
from tests.storage.deaths import deaths

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.protocol.names import SemanticVersion
from salver.storage.database import Database, open_database
from salver.storage.home import Home
from salver.storage.journal import Journal
from salver.storage.merkle import Peaks, leaf_hash
from salver.storage.migrations import migrate, newest
from salver.storage.schema import SCHEMA_REVISION, journal, journal_head, webhooks

OLD = Path(__file__).parent / "old_homes" / "schema_3.sql"
"""The database of a home of the first released Salver, which that Salver filled and `sqlite3 .dump` wrote."""

OPEN = """
from pathlib import Path
from salver.storage import migrations
from salver.storage.database import Database
def act(directory):
    Database.open(Path(directory) / "salver.db").close()
"""


def old_database(path: Path) -> Path:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(OLD.read_text(encoding="utf-8"))
    connection.close()
    return path


def laid_out(path: Path) -> dict[tuple[str, str], str]:
    """Every table, index and trigger of a file, by its own words."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall()
    connection.close()
    return {(kind, name): re.sub(r"\s+", " ", words or "") for kind, name, words in rows}


def layout(database: Database) -> dict[str, Any]:
    """The same of a server: what its catalogue says."""
    found: dict[str, Any] = {}
    with database.read() as connection:
        catalogue = inspect(connection)
        for table in catalogue.get_table_names():
            columns = catalogue.get_columns(table)
            found[table] = {
                "columns": [(c["name"], str(c["type"]), c["nullable"], c["default"]) for c in columns],
                "collations": sorted(
                    connection.execute(
                        text(
                            "SELECT column_name, collation_name FROM information_schema.columns WHERE table_name = :t"
                        ),
                        {"t": table},
                    ).all()
                ),
                "key": catalogue.get_pk_constraint(table),
                "foreign": sorted(map(str, catalogue.get_foreign_keys(table))),
                "unique": sorted(map(str, catalogue.get_unique_constraints(table))),
                "checks": sorted(map(str, catalogue.get_check_constraints(table))),
                "indexes": sorted(map(str, catalogue.get_indexes(table))),
            }
        triggers = "SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"
        found["triggers"] = sorted(map(tuple, connection.execute(text(triggers))))
    return found


def test_the_newest_step_is_the_one_that_a_new_database_is_said_to_have() -> None:
    assert newest() == SCHEMA_REVISION


def test_an_old_home_comes_to_what_a_new_one_has(tmp_path: Path) -> None:
    """Fails when a table is changed without a step that does the same: see `salver.storage.migrations`."""
    migrated = old_database(tmp_path / "old.db")
    Database.open(migrated).close()
    Database.open(tmp_path / "new.db").close()
    old, new = laid_out(migrated), laid_out(tmp_path / "new.db")
    assert old.keys() ^ new.keys() == set()
    assert {what: old[what] for what in old if old[what] != new[what]} == {}


def test_all_steps_on_a_server_come_to_what_a_new_one_has(postgres_server: PostgresServer, postgres_url: str) -> None:
    name = postgres_server.fresh("template1")
    stepped = postgres_server.url(name)
    fresh = Database.open(postgres_url)
    from salver.storage.postgresql import PostgreSQL

    backend = PostgreSQL(stepped)
    migrating = Database(backend, backend.engine())
    with migrating.begin() as connection:
        migrate(connection, "")
    assert layout(migrating) == layout(fresh)
    migrating.close()
    fresh.close()
    Database.open(stepped).close()
    postgres_server.drop(name)


def test_what_was_in_an_old_home_is_still_there(tmp_path: Path) -> None:
    path = old_database(tmp_path / "salver.db")
    before = sqlite3.connect(path)
    kept = {
        table: before.execute(f"SELECT * FROM {table}").fetchall()
        for table in ("models", "versions", "deployments", "tokens", "revision")
    }
    hashes = before.execute("SELECT seq, hash FROM journal ORDER BY seq").fetchall()
    hooks = before.execute("SELECT * FROM webhooks").fetchall()
    before.close()
    assert all(kept.values())
    assert len(hashes) > 30
    database = Database.open(path)
    with database.read() as connection:
        sorted_by = list(connection.execute(text("SELECT version, sort_key, prerelease FROM versions")))
        assert [(SemanticVersion.parse(row[0]).sort_key, bool(row[2])) for row in sorted_by] == [
            (row[1], "-" in row[0]) for row in sorted_by
        ]
        for table, rows in kept.items():
            found = [tuple(row)[: len(rows[0])] for row in connection.execute(text(f"SELECT * FROM {table}"))]
            assert found == rows
        found = connection.execute(select(journal.c.seq, journal.c.hash).order_by(journal.c.seq)).all()
        assert [tuple(row) for row in found] == hashes
        assert [tuple(row) for row in connection.execute(select(webhooks))] == [
            (*row[:-2], False, row[-1], "[]") for row in hooks
        ]
        tree = Peaks()
        for record in connection.execute(select(journal.c.record).order_by(journal.c.seq)).scalars():
            tree.add(leaf_hash(record.encode()))
        assert connection.execute(select(journal_head.c.peaks)).scalar_one() == tree.text
    log = Journal(database, SYSTEM_CLOCK)
    assert log.verify().ok
    assert log.verify().records == len(hashes)
    assert any(record.actor == "größe ☃" and record.details["big"] == 1e300 for record in log.records())
    with database.begin() as connection:
        log.append(connection, actor="a", action="b", subject="c", details={})
    assert log.verify().records == len(hashes) + 1
    database.close()


def test_what_had_been_tampered_with_is_still_found(tmp_path: Path) -> None:
    for statement in (
        "UPDATE journal SET details = '{\"n\":1}' WHERE seq = 7",
        "UPDATE journal SET details = 'nonsense' WHERE seq = 7",
        "UPDATE journal SET actor = 'me' WHERE seq = 7",
        "DELETE FROM journal WHERE seq = 7",
    ):
        path = tmp_path / f"{abs(hash(statement))}.db"
        old_database(path)
        connection = sqlite3.connect(path)
        connection.executescript(f"DROP TRIGGER journal_no_update; DROP TRIGGER journal_no_delete; {statement};")
        connection.executescript(
            "CREATE TRIGGER journal_no_update BEFORE UPDATE ON journal BEGIN SELECT 1; END;"
            "CREATE TRIGGER journal_no_delete BEFORE DELETE ON journal BEGIN SELECT 1; END;"
        )
        connection.close()
        database = Database.open(path)
        check = Journal(database, SYSTEM_CLOCK).verify()
        assert (check.ok, check.bad_seq) == (False, 7), statement
        database.close()


def test_the_old_file_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    old_database(home.database_path)
    before = laid_out(home.database_path)
    open_database(home).close()
    kept = home.path / f"salver.db.before-{SCHEMA_REVISION}"
    assert laid_out(kept) == before
    assert kept.stat().st_mode & 0o077 == 0
    stamp = kept.stat().st_mtime_ns
    open_database(home).close()
    assert kept.stat().st_mtime_ns == stamp


def test_who_must_not_change_a_database_is_told_to_have_it_brought_up_to_date(tmp_path: Path) -> None:
    path = old_database(tmp_path / "salver.db")
    before = laid_out(path)
    with pytest.raises(SalverError, match="has schema 0001, not 00") as raised:
        Database.open(path, upgrade=False)
    assert raised.value.code == "CONFLICT"
    assert laid_out(path) == before


def test_a_schema_of_no_release_is_refused(tmp_path: Path) -> None:
    path = old_database(tmp_path / "salver.db")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE schema SET version = 2")
    connection.close()
    with pytest.raises(SalverError, match="schema 2, which no released Salver wrote"):
        Database.open(path)


def test_death_at_any_step_leaves_the_old_schema_or_the_new_one(tmp_path: Path) -> None:
    old = laid_out(old_database(tmp_path / "reference.db"))
    Database.open(tmp_path / "new.db").close()
    new = laid_out(tmp_path / "new.db")
    seen = []
    with deaths(OPEN) as die:
        # The copy and what surrounds it step by step, of the many statements one in seven.
        for step in itertools.chain(range(1, 16), itertools.count(16, 7)):
            home = tmp_path / str(step)
            home.mkdir()
            path = old_database(home / "salver.db")
            died = die(step, home)
            found = laid_out(path)
            assert found in (old, new)
            seen.append(found == new)
            if len(seen) % 10 == 0 or not died:  # the next one completes it
                database = Database.open(path)
                assert Journal(database, SYSTEM_CLOCK).verify().records == 34
                database.close()
                assert laid_out(path) == new
            shutil.rmtree(home)
            if not died:
                break
    assert seen[0] is False
    assert seen[-1] is True
    assert seen == sorted(seen)
    assert len(seen) > 20
