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
from salver.registry.audit import SIGNED_AFTER_S, Audit, Inclusion, proof_flaw
from salver.registry.audit_keys import ROTATED, rotation
from salver.security.access import Principal, PrincipalKind, Role, local_principal
from salver.security.keys import AUDIT_KEY, AuditKey, AuditPublicKey, new_audit_pem
from salver.storage.database import Database, open_database
from salver.storage.home import Home
from salver.storage.tree_heads import TreeHead
from salver.storage.verification import UNSIGNED
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


def test_heads_of_a_key_that_was_lost_are_believed_only_by_who_knows_it(
    home: Home, audit: Audit, database: Database, hands: ManualClock
) -> None:
    write(audit, database)
    audit.seal()
    (lost,) = audit.keys().values()
    (home.secrets_path / AUDIT_KEY).unlink()
    later = Audit(home, database, hands)
    write(later, database)
    later.seal()
    check = later.verify()
    assert (check.ok, check.bad_seq) == (False, 1)
    assert f"is signed with key {lost.key_id[:16]}, which is not known here" in check.reason
    assert later.verify(pinned=[lost, *later.keys().values()]).ok


def test_a_key_that_somebody_put_beside_the_heads_is_believed_by_nobody(
    home: Home, audit: Audit, database: Database
) -> None:
    write(audit, database, 3)
    audit.seal()
    eve = AuditKey.parse(new_audit_pem())
    (home.path / "audit" / "eve.pub").write_bytes(eve.public.pem)
    forged = TreeHead(2, "0" * 64, 1.0, eve.key_id, "")
    forged = msgspec.structs.replace(forged, signature=eve.sign(forged.message).hex())
    check = audit.verify([forged])
    assert (check.ok, check.bad_seq) == (False, 2)
    assert f"key {eve.key_id[:16]}, which is not known here" in check.reason


def rotated(audit: Audit, database: Database, times: int = 1) -> list[AuditPublicKey]:
    """The keys that have signed one after the other, with records between."""
    keys = list(audit.keys().values())
    for _ in range(times):
        write(audit, database)
        done = audit.rotate(local_principal())
        assert done.before == keys[-1].key_id
        keys.append(audit.keys()[done.after])
    return keys


def test_a_key_that_follows_another_is_believed_with_it_both_ways(
    home: Home, audit: Audit, database: Database, hands: ManualClock
) -> None:
    write(audit, database)
    audit.seal()
    keys = rotated(audit, database, 2)
    assert len({key.key_id for key in keys}) == 3
    again = Audit(home, database, hands)
    assert again.verify().ok
    assert again.verify().heads == 5
    for key in keys:
        assert again.verify(pinned=[key]).ok
    check = again.verify(pinned=[AuditKey.parse(new_audit_pem()).public])
    assert (check.ok, check.bad_seq) == (False, 1)
    assert [each.action for each in again.journal.records()].count("rotate_audit_key") == 2


def test_who_has_stolen_an_old_key_makes_no_new_one_believed(home: Home, audit: Audit, database: Database) -> None:
    write(audit, database)
    audit.seal()
    stolen = AuditKey.parse((home.secrets_path / AUDIT_KEY).read_bytes())
    rotated(audit, database)
    eve = AuditKey.parse(new_audit_pem())
    with database.begin() as connection:
        details = msgspec.structs.asdict(rotation(stolen, eve))
        audit.journal.append(connection, actor="eve", action=ROTATED, subject=eve.key_id, details=details)
    believed = audit.keys()
    assert eve.key_id not in believed
    assert stolen.key_id in believed


@pytest.mark.parametrize("unsigned", ["signed_by_before", "signed_by_after"])
def test_a_rotation_that_one_of_the_two_has_not_signed_links_nothing(
    home: Home, audit: Audit, database: Database, unsigned: str
) -> None:
    write(audit, database)
    audit.seal()
    own = AuditKey.parse((home.secrets_path / AUDIT_KEY).read_bytes())
    eve = AuditKey.parse(new_audit_pem())
    links = rotation(eve, own)
    other = rotation(eve, eve)
    for said in (
        {},
        {"before": "x", "after": "y", "signed_by_before": "", "signed_by_after": ""},
        msgspec.structs.asdict(links) | {unsigned: ""},
        msgspec.structs.asdict(links) | {unsigned: "not hexadecimal"},
        msgspec.structs.asdict(links) | {unsigned: other.signed_by_before},
    ):
        with database.begin() as connection:
            audit.journal.append(connection, actor="eve", action=ROTATED, subject="x", details=said)
        assert list(audit.keys()) == [own.key_id]
    with database.begin() as connection:
        details = msgspec.structs.asdict(links)
        audit.journal.append(connection, actor="ann", action=ROTATED, subject=own.key_id, details=details)
    assert set(audit.keys()) == {own.key_id, eve.key_id}


def test_only_who_keeps_keys_rotates_the_journals(audit: Audit, database: Database) -> None:
    write(audit, database)
    with pytest.raises(SalverError, match="operator") as refused:
        audit.rotate(Principal("ann", Role.OPERATOR, "default", PrincipalKind.TOKEN))
    assert refused.value.code == "PERMISSION_DENIED"


def test_a_death_between_the_record_and_the_new_key_leaves_the_old_one(
    home: Home, audit: Audit, database: Database, hands: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(audit, database)
    (own,) = audit.keys().values()

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Home, "replace_secret", die)
    with pytest.raises(KeyboardInterrupt):
        audit.rotate(local_principal())
    monkeypatch.undo()
    later = Audit(home, database, hands)
    write(later, database)
    head = later.seal()
    assert head is not None
    assert head.key_id == own.key_id
    assert later.verify().ok
    later.rotate(local_principal())
    assert later.verify().ok


def test_a_journal_without_a_head_is_told_to_prove_little(audit: Audit, database: Database) -> None:
    assert audit.verify().reason == ""
    write(audit, database)
    check = audit.verify()
    assert (check.ok, check.heads, check.reason) == (True, 0, UNSIGNED)
    audit.seal()
    assert audit.verify().reason == ""


def test_a_proof_needs_nothing_of_the_home_but_its_public_key(home: Home, audit: Audit, database: Database) -> None:
    write(audit, database, 20)
    keys = audit.keys()
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
