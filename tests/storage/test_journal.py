from __future__ import annotations

import hashlib
import json
import sqlite3

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from salver.storage.database import Database, current_revision, raise_revision
from salver.storage.home import Home
from salver.storage.journal import ChainCheck, Journal, canonical_json


def write(database: Database, journal: Journal, count: int) -> None:
    for number in range(1, count + 1):
        with database.begin() as connection:
            journal.append(
                connection, actor="local:ann", action="deploy", subject=f"e{number}", details={"n": number, "ü": [0.5]}
            )


def tamper(home: Home, *statements: str) -> None:
    """Edit the file as somebody with the rights to it can: without our triggers."""
    connection = sqlite3.connect(home.database_path)
    connection.executescript("DROP TRIGGER journal_no_update; DROP TRIGGER journal_no_delete;" + ";".join(statements))
    connection.commit()
    connection.close()


def test_records_form_a_chain_that_anybody_can_recompute(database: Database, journal: Journal) -> None:
    write(database, journal, 3)
    previous = "0" * 64
    for number, record in enumerate(journal.records(), 1):
        assert record.seq == number
        assert record.prev_hash == previous
        fields = {key: getattr(record, key) for key in ("seq", "at_s", "actor", "action", "subject", "details")}
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        previous = hashlib.sha256(bytes.fromhex(previous) + canonical).hexdigest()
        assert record.hash == previous
    assert journal.head() == (3, previous)
    assert journal.verify() == ChainCheck(3)


def test_an_empty_journal_is_sound(journal: Journal) -> None:
    assert journal.verify() == ChainCheck(0)
    assert journal.head() == (0, "0" * 64)
    assert journal.records() == ()


def test_records_come_in_pages(database: Database, journal: Journal) -> None:
    write(database, journal, 5)
    assert [record.seq for record in journal.records(limit=2)] == [1, 2]
    assert [record.seq for record in journal.records(limit=10, after=3)] == [4, 5]


def test_a_long_chain_is_walked_in_pages(database: Database, journal: Journal, monkeypatch) -> None:
    monkeypatch.setattr("salver.storage.journal._PAGE", 2)
    write(database, journal, 5)
    assert journal.verify() == ChainCheck(5)


def test_a_record_and_its_change_happen_both_or_neither(database: Database, journal: Journal) -> None:
    def fail() -> None:
        with database.begin() as connection:
            raise_revision(connection)
            journal.append(connection, actor="a", action="b", subject="c", details={})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert journal.records() == ()
    with database.read() as connection:
        assert current_revision(connection) == 0
    write(database, journal, 1)
    assert journal.verify() == ChainCheck(1)


@pytest.mark.parametrize("statement", ["UPDATE journal SET actor = 'nobody'", "DELETE FROM journal"])
def test_the_database_refuses_to_change_records(database: Database, journal: Journal, statement: str) -> None:
    write(database, journal, 1)
    with pytest.raises(IntegrityError, match="written once"), database.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    ("statements", "bad_seq", "reason"),
    [
        (["UPDATE journal SET actor = 'eve' WHERE seq = 3"], 3, "edited"),
        (["UPDATE journal SET action = 'x' WHERE seq = 1"], 1, "edited"),
        (["UPDATE journal SET subject = 'x' WHERE seq = 5"], 5, "edited"),
        (["UPDATE journal SET at_s = at_s + 1 WHERE seq = 2"], 2, "edited"),
        (["""UPDATE journal SET details = '{"n":9}' WHERE seq = 4"""], 4, "edited"),
        (["UPDATE journal SET details = replace(details, ':', ': ') WHERE seq = 4"], 4, "edited"),
        (["UPDATE journal SET details = 'no json' WHERE seq = 4"], 4, "edited"),
        (["UPDATE journal SET hash = replace(hash, substr(hash, 1, 1), 'z') WHERE seq = 2"], 2, "edited"),
        (["UPDATE journal SET prev_hash = hash WHERE seq = 2"], 2, "does not continue"),
        (["DELETE FROM journal WHERE seq = 1"], 1, "is missing"),
        (["DELETE FROM journal WHERE seq = 3"], 3, "is missing"),
        (["DELETE FROM journal WHERE seq = 5"], 5, "ends at 4; its head says 5"),
        (["DELETE FROM journal"], 1, "ends at 0; its head says 5"),
        (["DELETE FROM journal WHERE seq = 3", "UPDATE journal SET seq = seq - 1 WHERE seq > 3"], 3, "not continue"),
        (
            [
                "UPDATE journal SET seq = 99 WHERE seq = 2",
                "UPDATE journal SET seq = 2 WHERE seq = 3",
                "UPDATE journal SET seq = 3 WHERE seq = 99",
            ],
            2,
            "does not continue",
        ),
        (["UPDATE journal_head SET hash = prev FROM (SELECT prev_hash AS prev FROM journal WHERE seq = 2)"], 5, "head"),
        (["UPDATE journal_head SET seq = 4"], 5, "its head says 4"),
    ],
)
def test_an_edit_a_removal_or_a_swap_is_found_at_its_place(
    database: Database, journal: Journal, home: Home, statements: list[str], bad_seq: int, reason: str
) -> None:
    write(database, journal, 5)
    assert journal.verify() == ChainCheck(5)
    tamper(home, *statements)
    check = journal.verify()
    assert check.bad_seq == bad_seq
    assert reason in check.reason


def test_numbers_that_json_lacks_are_refused_before_anything_is_written(database: Database, journal: Journal) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"), database.begin() as connection:
        journal.append(connection, actor="a", action="b", subject="c", details={"x": float("nan")})
    assert journal.records() == ()


def test_canonical_json_has_one_form() -> None:
    assert canonical_json({"b": 1, "a": {"d": None, "c": "ü"}}) == '{"a":{"c":"ü","d":null},"b":1}'
