from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from salver.protocol.errors import SalverError
from salver.registry.audit import SIGNED_AFTER_S, Audit, Inclusion, known_keys, proof_flaw
from salver.security.keys import AUDIT_KEY
from salver.storage.database import Database, open_database
from salver.storage.home import Home
from salver.testing import ManualClock


@pytest.fixture
def hands() -> ManualClock:
    return ManualClock()


@pytest.fixture
def audit(home: Home, database: Database, hands: ManualClock) -> Audit:
    return Audit(home, database, hands)


def write(audit: Audit, database: Database, count: int = 1) -> None:
    with database.begin() as connection:
        for _ in range(count):
            audit.journal.append(connection, actor="ann", action="deploy", subject="digits", details={})


def copied(home: Home) -> list[int]:
    path = home.path / "audit" / "heads.jsonl"
    return [json.loads(line)["size"] for line in path.read_bytes().splitlines()] if path.exists() else []


def test_a_record_waits_a_minute_for_its_head_and_no_longer(
    home: Home, audit: Audit, database: Database, hands: ManualClock
) -> None:
    audit.tick()
    assert copied(home) == []
    write(audit, database)
    audit.tick()
    hands.advance(SIGNED_AFTER_S - 1)
    write(audit, database)
    audit.tick()
    assert copied(home) == []
    hands.advance(1)
    audit.tick()
    assert copied(home) == [2]
    hands.advance(1000)
    audit.tick()
    write(audit, database)
    audit.tick()
    assert copied(home) == [2], "the minute begins with the first record that is not signed"
    hands.advance(SIGNED_AFTER_S)
    audit.tick()
    assert copied(home) == [2, 3]


def test_what_an_append_has_signed_is_copied_by_the_next_tick(home: Home, audit: Audit, database: Database) -> None:
    write(audit, database, 600)
    assert copied(home) == []
    audit.tick()
    assert copied(home) == [256, 512]
    head = audit.seal()
    assert head is not None
    assert copied(home) == [256, 512, 600]
    assert audit.seal() == head
    assert copied(home) == [256, 512, 600]


def test_copies_are_found_to_say_more_than_a_journal_cut_short(
    home: Home, audit: Audit, database: Database, hands: ManualClock, tmp_path: Path
) -> None:
    write(audit, database, 5)
    audit.seal()
    assert (audit.verify().ok, audit.verify().records, audit.verify().heads) == (True, 5, 1)
    other = Database.open(tmp_path / "other.db")
    shorter = Audit(home, other, hands)
    write(shorter, other, 3)
    check = shorter.verify()
    assert (check.ok, check.bad_seq) == (False, 4)
    assert check.reason == "the journal ends at 3; a signed tree head says 5"
    other.close()


def test_copies_that_were_kept_elsewhere_are_compared_too(home: Home, audit: Audit, database: Database) -> None:
    write(audit, database, 5)
    head = audit.seal()
    assert head is not None
    assert audit.verify([head]).ok
    foreign = msgspec.structs.replace(head, root="0" * 64)
    check = audit.verify([foreign])
    assert (check.ok, check.reason) == (False, "the tree head over 5 records has a signature that does not fit")


def test_a_damaged_file_of_heads_is_not_passed_over(home: Home, audit: Audit, database: Database) -> None:
    write(audit, database, 5)
    audit.seal()
    path = home.path / "audit" / "heads.jsonl"
    path.write_bytes(b"what?\n" + path.read_bytes())
    check = audit.verify()
    assert (check.ok, check.reason) == (False, "line 1 of heads.jsonl is no tree head")


def test_heads_of_a_key_that_was_replaced_are_still_believed(
    home: Home, audit: Audit, database: Database, hands: ManualClock
) -> None:
    write(audit, database)
    audit.seal()
    (home.secrets_path / AUDIT_KEY).unlink()
    later = Audit(home, database, hands)
    write(later, database)
    later.seal()
    assert later.verify().ok
    assert len(known_keys(home.path / "audit")) == 2


def test_a_proof_needs_nothing_of_the_home_but_its_public_key(home: Home, audit: Audit, database: Database) -> None:
    write(audit, database, 20)
    keys = known_keys(home.path / "audit") | dict(audit.keys())
    for seq in range(1, 21):
        assert proof_flaw(audit.prove(seq), keys) == ""
    found = audit.prove(3)
    assert proof_flaw(found, {}).startswith("the tree head is signed with key")
    assert proof_flaw(msgspec.structs.replace(found, seq=4), keys) == "the record says that it is 3"
    record = found.record.replace("ann", "eve")
    assert proof_flaw(msgspec.structs.replace(found, record=record), keys) == "the record is not in this tree"
    assert proof_flaw(msgspec.structs.replace(found, record="{"), keys) == "it cannot be read"
    assert proof_flaw(msgspec.structs.replace(found, path=("zz",)), keys) == "it cannot be read"


@pytest.mark.parametrize("seq", [0, 21])
def test_there_is_no_proof_of_a_record_that_is_not_there(audit: Audit, database: Database, seq: int) -> None:
    write(audit, database, 20)
    with pytest.raises(SalverError, match=f"no record {seq}; it has records 1 to 20"):
        audit.prove(seq)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_no_bit_of_a_proof_may_change(home: Home, audit: Audit, database: Database, data: st.DataObject) -> None:
    if not audit.journal.records():
        write(audit, database, 20)
    whole = bytearray(msgspec.json.encode(audit.prove(11)))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = msgspec.json.decode(whole, type=Inclusion)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    assert proof_flaw(found, audit.keys()) != ""


def die_at(dies_at: int) -> None:
    """Have this process killed at its n-th step in the file system, half-way through if it writes."""
    step = 0

    def counted(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal step
            step += 1
            if step == dies_at:
                if name == "write":
                    plain(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*arguments, **named)

        return call

    for name in ("write", "fsync", "ftruncate", "open", "link", "mkdir"):
        setattr(os, name, counted(name, getattr(os, name)))


def test_death_at_any_step_of_sealing_leaves_heads_that_the_next_one_completes(
    home: Home, audit: Audit, database: Database, hands: ManualClock
) -> None:
    write(audit, database, 3)
    for dies_at in range(1, 60):
        write(audit, database)
        child = os.fork()
        if child == 0:
            die_at(dies_at)
            Audit(home, open_database(home), hands).seal()
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL)
        assert audit.verify().ok
        if code == 0:
            break
        audit.seal()
        assert copied(home) == [head.size for head in audit.journal.heads()]
        assert audit.verify().heads == len(audit.journal.heads())
    else:
        pytest.fail("sealing never came to its end")
    assert dies_at > 5
    assert (home.path / "audit" / "heads.jsonl").stat().st_mode & 0o077 == 0
