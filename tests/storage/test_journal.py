from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from tests.homes import SteppingClock

from salver.protocol.errors import SalverError
from salver.security.keys import AuditKey
from salver.storage.database import Database, current_revision, raise_revision
from salver.storage.journal import Journal, JournalQuery, JournalRecord, canonical_json, digest_of, occasion
from salver.storage.merkle import Peaks, contains, leaf_hash


@pytest.fixture
def signing(database: Database, clock: SteppingClock) -> Journal:
    key = AuditKey(Ed25519PrivateKey.generate())
    return Journal(database, clock, lambda: key)


def write(database: Database, journal: Journal, count: int, **fields: Any) -> None:
    with database.begin() as connection:
        for number in range(1, count + 1):
            given = {"actor": "local:ann", "action": "deploy", "subject": f"e{number}"} | fields
            journal.append(connection, details={"n": number, "ü": [0.5]}, **given)


def seqs(records: tuple[JournalRecord, ...]) -> list[int]:
    return [record.seq for record in records]


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
    check = journal.verify()
    assert (check.ok, check.records, check.heads, check.bad_seq) == (True, 3, 0, None)


def test_an_empty_journal_is_sound(journal: Journal) -> None:
    assert journal.verify().ok
    assert journal.head() == (0, "0" * 64)
    assert journal.records() == ()
    assert journal.changes(0).records == ()


def test_a_record_says_on_what_occasion_it_was_made_and_what_changed(database: Database, journal: Journal) -> None:
    with occasion("request-1", "ticket 7"), database.begin() as connection:
        with occasion(why="ticket 8"):
            journal.append(connection, actor="a", action="b", subject="c", details={}, before={"x": 1}, after=[2])
        journal.append(connection, actor="a", action="b", subject="c", details={})
    write(database, journal, 1)
    first, second, third = journal.records()
    assert (first.request_id, first.why) == ("request-1", "ticket 8")
    assert first.before == hashlib.sha256(b'{"x":1}').hexdigest()
    assert first.after == digest_of([2])
    assert (second.why, second.before, second.after) == ("ticket 7", "", "")
    assert (third.request_id, third.why) == ("", "")
    assert journal.verify().ok


def test_an_occasion_is_that_of_its_own_task_and_its_threads(database: Database, journal: Journal) -> None:
    async def change(name: str, began: asyncio.Barrier) -> None:
        with occasion(name):
            await began.wait()
            await asyncio.to_thread(write, database, journal, 1, subject=name)

    async def both() -> None:
        began = asyncio.Barrier(2)
        await asyncio.gather(change("one", began), change("two", began))

    asyncio.run(both())
    assert {record.subject: record.request_id for record in journal.records()} == {"one": "one", "two": "two"}


def test_records_come_in_pages(database: Database, journal: Journal) -> None:
    write(database, journal, 5)
    assert seqs(journal.records(limit=2)) == [1, 2]
    assert seqs(journal.records(limit=10, after=3)) == [4, 5]
    assert seqs(journal.find(JournalQuery(limit=2, last=True))) == [5, 4]
    assert seqs(journal.find(JournalQuery(limit=2, last=True, before=4))) == [3, 2]


def test_records_are_found_by_what_they_say(database: Database, journal: Journal) -> None:
    for actor, action, subject in (
        ("ann", "register", "digits@1.0.0"),
        ("bob", "deploy", "digits"),
        ("ann", "register", "digits2@1.0.0"),
        ("ann", "register", "digits@2.0.0"),
        ("eve", "register", "dig_ts@1.0.0"),
    ):
        write(database, journal, 1, actor=actor, action=action, subject=subject)
    times = [record.at_s for record in journal.records()]
    assert seqs(journal.find(JournalQuery(actor="ann"))) == [1, 3, 4]
    assert seqs(journal.find(JournalQuery(action="deploy"))) == [2]
    assert seqs(journal.find(JournalQuery(subject="digits"))) == [1, 2, 4]
    assert seqs(journal.find(JournalQuery(subject="dig_ts"))) == [5]
    assert seqs(journal.find(JournalQuery(subject="digits@1.0.0"))) == [1]
    assert seqs(journal.find(JournalQuery(since_s=times[1], until_s=times[3]))) == [2, 3]
    assert seqs(journal.find(JournalQuery(actor="ann", subject="digits", last=True, limit=1))) == [4]
    (found,) = journal.find(JournalQuery(subject="digits@2.0.0"))
    assert found.prev_hash == journal.records()[2].hash


def test_changes_are_followed_from_position_to_position(
    database: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salver.storage.journal._LOOKED_AT", 10)
    write(database, journal, 25)
    write(database, journal, 1, action="promote", subject="m@1.0.0")
    seen, position, asked = [], 0, 0
    while True:
        found = journal.changes(position, actions=["promote"])
        seen += seqs(found.records)
        asked += 1
        if found.position == found.head:
            break
        assert found.position > position
        position = found.position
    assert (seen, asked) == ([26], 3)
    some = journal.changes(0, limit=2, subjects=["e2", "e4", "e6"])
    assert (seqs(some.records), some.position) == ([2, 4], 4)
    assert journal.changes(26) == journal.changes(26, 1)
    assert journal.changes(99).position == 99


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
    assert journal.verify().records == 1


@pytest.mark.parametrize("table", ["journal", "tree_heads"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET at_s = 0", "DELETE FROM {}"])
def test_the_database_refuses_to_change_records_and_heads(
    database: Database, signing: Journal, table: str, statement: str
) -> None:
    write(database, signing, 1)
    signing.sign()
    with pytest.raises(DBAPIError, match="written once"), database.begin() as connection:
        connection.execute(text(statement.format(table)))


def test_the_head_holds_the_peaks_of_the_tree_over_all_records(database: Database, journal: Journal) -> None:
    peaks = Peaks()
    for _ in range(13):
        write(database, journal, 1)
        with database.read() as connection:
            canonical = connection.execute(text("SELECT record FROM journal ORDER BY seq DESC LIMIT 1")).scalar_one()
            kept = connection.execute(text("SELECT peaks FROM journal_head")).scalar_one()
        peaks.add(leaf_hash(canonical.encode()))
        assert kept == peaks.text


def test_each_256th_record_is_signed_in_its_own_transaction(database: Database, signing: Journal) -> None:
    write(database, signing, 255)
    assert (signing.heads(), signing.unsigned()) == ((), 255)

    def fail() -> None:
        with database.begin() as connection:
            signing.append(connection, actor="a", action="b", subject="c", details={})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert signing.heads() == ()
    write(database, signing, 300)
    assert [head.size for head in signing.heads()] == [256, 512]
    assert signing.unsigned() == 555 - 512


def test_what_is_signed_is_not_signed_again(database: Database, signing: Journal) -> None:
    assert signing.sign() is None
    write(database, signing, 3)
    first = signing.sign()
    assert first is not None
    assert signing.sign() == first
    write(database, signing, 1)
    second = signing.sign()
    assert second is not None
    assert (first.size, second.size) == (3, 4)
    assert signing.heads(after=3) == (second,)
    assert signing.heads(last=1) == (second,)


def test_a_record_is_proved_to_be_among_those_that_were_signed(
    database: Database, signing: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("salver.storage.journal._PAGE", 4)
    write(database, signing, 11)
    head = signing.sign()
    write(database, signing, 2)
    assert head is not None
    for seq in range(1, 12):
        record, path = signing.prove(seq, head.size)
        assert json.loads(record)["seq"] == seq
        assert contains(bytes.fromhex(head.root), head.size, seq - 1, leaf_hash(record.encode()), path)


def test_numbers_that_json_lacks_are_refused_before_anything_is_written(database: Database, journal: Journal) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"), database.begin() as connection:
        journal.append(connection, actor="a", action="b", subject="c", details={"x": float("nan")})
    assert journal.records() == ()


def test_a_record_that_cannot_be_read_is_told_as_damage(database: Database, journal: Journal) -> None:
    write(database, journal, 1)
    with database.begin() as connection:
        row = {"seq": 2, "at_s": 0.0, "actor": "a", "action": "b", "subject": "c", "record": "no json", "hash": "0"}
        columns = ", ".join(row)
        connection.execute(text(f"INSERT INTO journal ({columns}) VALUES (:{columns.replace(', ', ', :')})"), row)
    with pytest.raises(SalverError, match="`salver audit verify`") as refused:
        journal.records()
    assert refused.value.code == "CORRUPT_ARTIFACT"
    check = journal.verify()
    assert (check.ok, check.records, check.bad_seq) == (False, 1, 2)


def test_canonical_json_has_one_form() -> None:
    assert canonical_json({"b": 1, "a": {"d": None, "c": "ü"}}) == '{"a":{"c":"ü","d":null},"b":1}'
