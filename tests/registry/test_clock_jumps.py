"""Clocks that jump: what happened stays in the order in which it happened, and nothing expires that should not."""

from __future__ import annotations

import random

import pytest
from tests.registry.promoting import DAY_S, Promoting, person

from salver.protocol.stages import Stage
from salver.registry.collection import CollectionRequest, collect
from salver.registry.history import history_of
from salver.storage.blobs import BlobStore

HOUR_S = 3600.0
JUMPS_S = (-365 * DAY_S, -HOUR_S, HOUR_S, 365 * DAY_S)
GATE = """
[[transition]]
to = "validation"
[[transition.gate]]
kind = "evaluation"
suite = "release"
within_days = 30
"""


@pytest.fixture
def house(home, database) -> Promoting:
    return Promoting(home, database)


def jump(house: Promoting, seconds: float) -> None:
    """Set the wall clock; the monotonic one knows nothing of it."""
    house.clock._wall_s += seconds


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_the_newest_evaluation_is_the_last_one_whatever_the_clock_said(house: Promoting, draft, jump_s: float) -> None:
    house.register(draft("a"))
    house.policy(GATE)
    house.evaluate("1.0.0", "successful")
    jump(house, jump_s)
    house.evaluate("1.0.0", "failed")
    jump(house, -jump_s)
    assert [each.verdict.value for each in house.records.evaluations.of("digits", "1.0.0")] == ["failed", "successful"]
    for days in (0, 1, 400):
        jump(house, days * DAY_S)
        assert not house.promote("1.0.0", "validation").moved, "what failed last does not pass by an older success"


@pytest.mark.parametrize("seed", range(3))
def test_with_a_clock_that_jumps_all_the_time_everything_is_in_order(
    house: Promoting, draft, database, seed: int
) -> None:
    moments = random.Random(seed)
    expected = []
    for number in range(6):
        jump(house, moments.choice(JUMPS_S) + moments.random())
        version = house.register(draft("abcdef"[number]))
        expected.append(("register", f"digits@{version}"))
        jump(house, moments.choice(JUMPS_S))
        assert house.promote(version, "validation").moved
        expected.append(("promote", f"digits@{version}"))
    records = house.records.journal.records(1000)
    assert [(each.action, each.subject) for each in records if each.action in ("register", "promote")] == expected
    assert [each.seq for each in records] == list(range(1, len(records) + 1))
    assert house.records.audit.seal() is not None
    assert house.records.audit.verify().ok
    versions = [each.version for each in house.records.catalog.versions("digits")]
    assert versions == [f"1.0.{number}" for number in range(6)]
    events = [event.seq for event in history_of(database, "digits", None, None, None).events]
    assert events == sorted(events)
    assert all(each.stage is Stage.VALIDATION for each in house.lifecycle.stages("digits"))


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_an_approval_before_a_jump_counts_after_it_and_a_stage_knows_its_last_move(
    house: Promoting, draft, jump_s: float
) -> None:
    house.policy('[[transition]]\nto = "validation"\n[[transition.gate]]\nkind = "approvals"')
    version = house.register(draft("a"))
    house.records.approvals.approve(person("bea", "approver"), "digits", version, Stage.VALIDATION)
    jump(house, jump_s)
    assert house.promote(version, "validation").moved
    assert len(house.lifecycle.decisions("digits", version)) == 1


@pytest.mark.parametrize("jump_s", JUMPS_S)
def test_what_is_stored_across_a_jump_and_registered_is_never_collected(
    house: Promoting, home, database, draft, jump_s: float, tmp_path
) -> None:
    from salver.protocol.tables import FileEntry

    source = tmp_path / "data"
    source.write_bytes(b"data")
    blob = BlobStore(home.blobs_path).put_file(source)
    house.register(draft("a", files=(FileEntry("model.onnx", blob.sha256, blob.size_bytes),)))
    jump(house, 300 * 365 * DAY_S + jump_s)  # files have the machine's time
    collect(home, database, house.root, house.clock, CollectionRequest(grace_s=0))
    BlobStore(home.blobs_path).verify(blob.sha256)


def test_heads_are_signed_by_a_clock_that_no_jump_moves(house: Promoting, draft) -> None:
    house.register(draft("a"))
    audit = house.records.audit
    audit.tick()
    jump(house, -365 * DAY_S)
    house.clock.advance(61.0)
    audit.tick()
    assert house.records.journal.unsigned() == 0
