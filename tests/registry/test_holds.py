from __future__ import annotations

import pytest
from tests.registry.promoting import DAY_S, Promoting, person

from salver.protocol.errors import SalverError

POLICY = """
[[retirement]]
name = "old"
older_than_days = 30
"""


@pytest.fixture
def house(home, database, draft) -> Promoting:
    made = Promoting(home, database)
    made.policy(POLICY)
    made.register(draft())
    made.bring("1.0.0", "validation", "staging")
    made.clock.advance(31 * DAY_S)
    return made


def test_a_held_version_is_neither_proposed_nor_archived(house) -> None:
    house.records.retirements.propose(house.ann)
    hold = house.records.holds.hold(person("bea", "approver"), "digits", "1.0.0", "case 7")
    assert house.records.retirements.list() == ()
    assert house.records.retirements.propose(house.ann) == ()
    with pytest.raises(SalverError, match="is held by bea: case 7") as raised:
        house.promote("1.0.0", "archived")
    assert raised.value.code == "REFUSED_BY_POLICY"
    assert house.records.holds.hold(house.ann, "digits", "1.0.0", "another") == hold
    assert house.records.holds.list() == (hold,)
    assert house.records.holds.release(house.ann, "digits", "1.0.0") == hold
    with pytest.raises(SalverError, match="is not held"):
        house.records.holds.release(house.ann, "digits", "1.0.0")
    assert len(house.records.retirements.propose(house.ann)) == 1
    assert [each for each in house.actions() if "hold" in each] == ["hold", "release_hold"]


def test_a_hold_needs_a_reason_and_the_right_to(house) -> None:
    with pytest.raises(SalverError, match="a hold needs a reason"):
        house.records.holds.hold(house.ann, "digits", "1.0.0", "  ")
    with pytest.raises(SalverError) as raised:
        house.records.holds.hold(person("dev", "developer"), "digits", "1.0.0", "case")
    assert raised.value.code == "PERMISSION_DENIED"
