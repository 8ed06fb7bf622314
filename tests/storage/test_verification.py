"""Whatever is done to the journal in its file, by somebody with all rights to it, is found at its place."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.homes import SteppingClock

from salver.protocol.errors import SalverError
from salver.security.keys import AuditKey
from salver.storage.database import Database
from salver.storage.database_copy import read_copy
from salver.storage.journal import Journal
from salver.storage.journal_record import canonical_json, chain_hash
from salver.storage.merkle import Peaks, leaf_hash
from salver.storage.tree_heads import TreeHead
from salver.storage.verification import ChainCheck, verify_journal

RECORDS = 12
HEADS = (4, 9, 12)
TABLES = ("journal", "journal_head", "tree_heads")


class Written(NamedTuple):
    """A journal of twelve records with heads over 4, 9 and 12 of them."""

    path: Path
    key: AuditKey
    heads: tuple[TreeHead, ...]

    def check(self, path: Path, kept: tuple[TreeHead, ...] = ()) -> ChainCheck:
        with read_copy(path) as connection:
            return verify_journal(connection, {self.key.key_id: self.key.public}, kept)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    path = tmp_path_factory.mktemp("journal") / "salver.db"
    key = AuditKey(Ed25519PrivateKey.generate())
    database = Database.open(path)
    journal = Journal(database, SteppingClock(), lambda: key)
    for number in range(1, RECORDS + 1):
        with database.begin() as connection:
            details = {"n": number, "ü": [0.5]}
            journal.append(connection, actor="local:ann", action="deploy", subject=f"e{number}", details=details)
        if number in HEADS:
            journal.sign()
    heads = journal.heads()
    database.close()
    with sqlite3.connect(path) as raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("PRAGMA journal_mode = DELETE")
    raw.close()
    return Written(path, key, heads)


@pytest.fixture
def copy(written: Written, tmp_path: Path) -> Path:
    return Path(shutil.copy(written.path, tmp_path / "copy.db"))


def change(path: Path, *statements: str, **values: Any) -> None:
    connection = sqlite3.connect(path)
    try:
        for statement in statements:
            connection.execute(statement, values)
        connection.commit()
    finally:
        connection.close()


def content(path: Path) -> list[Any]:
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    try:
        return [connection.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in TABLES]
    finally:
        connection.close()


def test_what_nobody_touched_is_whole(written: Written, copy: Path) -> None:
    assert written.check(copy) == ChainCheck(ok=True, records=12, heads=3)
    assert written.check(copy, written.heads) == ChainCheck(ok=True, records=12, heads=3)
    assert msgspec.json.encode(written.check(copy)) == b'{"ok":true,"records":12,"heads":3,"bad_seq":null,"reason":""}'


def test_a_long_journal_is_walked_in_pages(written: Written, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salver.storage.verification._PAGE", 5)
    assert written.check(copy).records == 12


@pytest.mark.parametrize(
    ("statements", "bad_seq", "reason"),
    [
        (["UPDATE journal SET actor = 'eve' WHERE seq = 3"], 3, "columns say something else"),
        (["UPDATE journal SET action = 'x' WHERE seq = 1"], 1, "columns say something else"),
        (["UPDATE journal SET subject = 'x' WHERE seq = 5"], 5, "columns say something else"),
        (["UPDATE journal SET at_s = at_s + 1 WHERE seq = 2"], 2, "columns say something else"),
        (["""UPDATE journal SET record = replace(record, '"n":4', '"n":9') WHERE seq = 4"""], 4, "edited"),
        (["UPDATE journal SET record = replace(record, ':', ': ') WHERE seq = 4"], 4, "edited"),
        (["UPDATE journal SET record = 'no json' WHERE seq = 4"], 4, "edited"),
        (["UPDATE journal SET record = CAST(record AS BLOB) WHERE seq = 4"], 4, "edited"),
        (["UPDATE journal SET record = CAST(x'ff' AS TEXT) WHERE seq = 4"], 4, "cannot be read"),
        (["UPDATE journal SET hash = upper(hash) WHERE seq = 2"], 2, "edited"),
        (["DELETE FROM journal WHERE seq = 1"], 1, "is missing"),
        (["DELETE FROM journal WHERE seq = 3"], 3, "is missing"),
        (["DELETE FROM journal WHERE seq = 12"], 12, "ends at 11; its head says 12"),
        (["DELETE FROM journal"], 1, "ends at 0; its head says 12"),
        (["DELETE FROM journal WHERE seq = 3", "UPDATE journal SET seq = seq - 1 WHERE seq > 3"], 3, "not continue"),
        (
            [
                "UPDATE journal SET seq = 99 WHERE seq = 2",
                "UPDATE journal SET seq = 2 WHERE seq = 3",
                "UPDATE journal SET seq = 3 WHERE seq = 99",
            ],
            2,
            "not continue",
        ),
        (["INSERT INTO journal SELECT 0, at_s, actor, action, subject, record, hash FROM journal LIMIT 1"], 0, "first"),
        (["INSERT INTO journal SELECT 13, at_s, actor, action, subject, record, hash FROM journal LIMIT 1"], 13, "not"),
        (["UPDATE journal_head SET hash = 'x'"], 12, "head has another hash"),
        (["UPDATE journal_head SET seq = 9"], 10, "its head says 9"),
        (["UPDATE journal_head SET seq = 'x'"], 12, "its head says x"),
        (["UPDATE journal_head SET peaks = ''"], 12, "other peaks"),
        (["DELETE FROM journal_head"], 12, "lost its head"),
        (["UPDATE tree_heads SET root = 'x' WHERE size = 9"], 9, "a signature that does not fit"),
        (["UPDATE tree_heads SET key_id = 'x' WHERE size = 4"], 4, "which is not known here"),
        (["UPDATE tree_heads SET signature = upper(signature) WHERE size = 4"], 4, "a signature that does not fit"),
        (["UPDATE tree_heads SET at_s = at_s + 1 WHERE size = 4"], 4, "a signature that does not fit"),
        (["UPDATE tree_heads SET size = 5 WHERE size = 4"], 5, "a signature that does not fit"),
        (["UPDATE tree_heads SET size = -5 WHERE size = 4"], 1, "over -5 records"),
    ],
)
def test_an_edit_a_removal_an_addition_or_a_swap_is_found_at_its_place(
    written: Written, copy: Path, statements: list[str], bad_seq: int, reason: str
) -> None:
    change(copy, *statements)
    check = written.check(copy)
    assert not check.ok
    assert check.bad_seq == bad_seq
    assert reason in check.reason
    assert check.records <= max(bad_seq, 0)


def forge(path: Path, upto: int, skip: int | None = None) -> None:
    """Write the chain anew up to a record, without another one, with a head that fits: what a patient forger does."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT * FROM journal WHERE seq <= ? ORDER BY seq", (upto,)).fetchall()
    connection.execute("DELETE FROM journal")
    last_hash, peaks = "0" * 64, Peaks()
    for seq, *columns, record, _ in [row for row in rows if row[0] != skip]:
        number = peaks.size + 1
        canonical = canonical_json(msgspec.json.decode(record) | {"seq": number}) if number != seq else record
        last_hash = chain_hash(last_hash, canonical)
        peaks.add(leaf_hash(canonical.encode()))
        connection.execute("INSERT INTO journal VALUES (?,?,?,?,?,?,?)", (number, *columns, canonical, last_hash))
    connection.execute("UPDATE journal_head SET seq = ?, hash = ?, peaks = ?", (peaks.size, last_hash, peaks.text))
    connection.commit()
    connection.close()


def test_a_truncation_with_a_head_to_fit_is_found_by_the_signed_heads(written: Written, copy: Path) -> None:
    forge(copy, 10)
    check = written.check(copy)
    assert (check.bad_seq, check.reason) == (11, "the journal ends at 10; a signed tree head says 12")
    change(copy, "DELETE FROM tree_heads WHERE size > 10")
    assert written.check(copy).ok, "nothing in the database itself tells"
    check = written.check(copy, written.heads)
    assert (check.ok, check.records, check.bad_seq) == (False, 10, 11)


def test_a_chain_written_anew_is_found_by_the_signed_heads(written: Written, copy: Path) -> None:
    forge(copy, 12, skip=6)
    check = written.check(copy)
    assert (check.records, check.bad_seq) == (4, 5)
    assert check.reason == "one of the records 5 to 9 is not what was there when the tree head was signed"
    change(copy, "DELETE FROM tree_heads")
    assert written.check(copy).ok, "nothing in the database itself tells"
    assert written.check(copy, written.heads[1:]).bad_seq == 1


def test_heads_signed_with_another_key_are_worth_nothing(written: Written, copy: Path) -> None:
    eve = AuditKey(Ed25519PrivateKey.generate())
    with read_copy(copy) as connection:
        check = verify_journal(connection, {eve.key_id: eve.public})
    assert (check.bad_seq, check.records) == (4, 3)
    assert "not known here" in check.reason


@pytest.fixture
def changed(written: Written, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("changed") / "copy.db"
    yield path
    path.unlink(missing_ok=True)


_MUTATING = settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@_MUTATING
@given(st.data())
def test_no_byte_of_any_column_may_change(written: Written, changed: Path, data: st.DataObject) -> None:
    shutil.copy(written.path, changed)
    table = data.draw(st.sampled_from(TABLES))
    connection = sqlite3.connect(changed)
    connection.text_factory = bytes
    names = [row[1].decode() for row in connection.execute(f"PRAGMA table_info({table})")]
    rows = connection.execute(f"SELECT * FROM {table}").fetchall()
    row = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.integers(1 if table == "journal_head" else 0, len(names) - 1))
    value = rows[row][column]
    new: Any
    if isinstance(value, bytes):
        text = bytearray(value)
        text[data.draw(st.integers(0, len(text) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        new, cast = bytes(text), data.draw(st.sampled_from(("TEXT", "BLOB")))
    elif isinstance(value, float):
        double = bytearray(struct.pack("d", value))
        double[data.draw(st.integers(0, 7))] ^= 1 << data.draw(st.integers(0, 7))
        (new,), cast = struct.unpack("d", double), "REAL"
    else:
        new, cast = value ^ (1 << data.draw(st.integers(0, 30))), "INTEGER"
    assume(new == new)  # SQLite has no NaN
    try:
        connection.execute(
            f"UPDATE {table} SET {names[column]} = CAST(? AS {cast}) WHERE {names[0]} = ?", (new, rows[row][0])
        )
        connection.commit()
    except sqlite3.IntegrityError:
        assume(False)
    finally:
        connection.close()
    check = written.check(changed)
    assert not check.ok
    if table == "journal" and column > 0:
        assert (check.bad_seq, check.records) == (row + 1, row)


@_MUTATING
@given(st.data())
def test_no_row_may_go_come_or_move(written: Written, changed: Path, data: st.DataObject) -> None:
    shutil.copy(written.path, changed)
    one, other = data.draw(st.lists(st.integers(1, RECORDS), min_size=2, max_size=2, unique=True).map(sorted))
    which = data.draw(st.sampled_from(("removed", "cut", "swapped", "doubled", "exchanged")))
    columns = "at_s, actor, action, subject, record, hash"
    if which == "removed":
        change(changed, "DELETE FROM journal WHERE seq = :one", one=one)
    elif which == "cut":
        change(changed, "DELETE FROM journal WHERE seq >= :one", one=one)
    elif which == "swapped":
        change(
            changed,
            "UPDATE journal SET seq = :one + :other - seq + 1000 WHERE seq IN (:one, :other)",
            one=one,
            other=other,
        )
        change(changed, "UPDATE journal SET seq = seq - 1000 WHERE seq > 1000")
    elif which == "doubled":
        change(changed, "UPDATE journal SET seq = seq + 1001 WHERE seq >= :one", one=one)
        change(changed, "UPDATE journal SET seq = seq - 1000 WHERE seq > 1000")
        change(changed, f"INSERT INTO journal SELECT :one, {columns} FROM journal WHERE seq = :one + 1", one=one)
        one += 1
    else:
        change(
            changed,
            f"UPDATE journal SET ({columns}) = (SELECT {columns} FROM journal WHERE seq = :other) WHERE seq = :one",
            one=one,
            other=other,
        )
    check = written.check(changed, written.heads)
    # A doubled row fits where it is put; it is the one behind it that no longer does.
    assert (check.ok, check.bad_seq) == (False, one if which != "doubled" else check.bad_seq)
    assert check.bad_seq in (one - 1, one)


@_MUTATING
@given(st.data())
def test_no_byte_of_the_file_may_change_what_the_journal_says(
    written: Written, changed: Path, data: st.DataObject
) -> None:
    whole = bytearray(written.path.read_bytes())
    # Most of the file is other tables and nothing at all; what matters is where the records are.
    near = whole.index(b'{"action":"deploy"')
    at = data.draw(
        st.one_of(st.integers(max(near - 4096, 0), min(near + 4096, len(whole) - 1)), st.integers(0, len(whole) - 1))
    )
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    changed.write_bytes(whole)
    try:
        check = written.check(changed)
    except SalverError as error:
        assert error.code == "CORRUPT_ARTIFACT"
        return
    if check.ok:
        assert content(changed) == content(written.path)
