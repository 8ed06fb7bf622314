"""In which stage a version was at a moment, and who put it there."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete
from tests.registry.promoting import Promoting

from salver.protocol.stages import Stage
from salver.protocol.tables import DeploymentSpec
from salver.registry.history import History, history_of
from salver.registry.stage_history import stood
from salver.storage.journal import JournalRecord
from salver.storage.registry_schema import stages

GATED = '[[transition]]\nto = "production"\n[[transition.gate]]\nkind = "approvals"\n'


@pytest.fixture
def house(home, database, draft) -> Promoting:
    made = Promoting(home, database)
    for content in "ab":
        made.register(draft(content))
        made.clock.advance(1.0)
    return made


def at(house: Promoting, at_s: float, name: str = "digits", **given: Any) -> History:
    return history_of(house.records.database, name, since_s=at_s, **given)


def places(found: History) -> dict[str, str]:
    return {each.version: each.stage.value for each in found.stages}


def test_in_which_stage_each_version_was_is_known_with_who_put_it_there_and_by_what(house, database) -> None:
    new_s = house.clock.wall_s()
    house.bring("1.0.0", "validation", "staging", "production")
    first_s = house.clock.wall_s()
    house.bring("1.0.1", "validation", "staging")
    house.policy(GATED)
    done = house.promote("1.0.1", "production", house.root, emergency=True, why="fire")
    now_s = house.clock.wall_s()
    house.clock.advance(1.0)
    house.bring("1.0.1", "staging")
    with database.begin() as connection:  # it is in no other row
        connection.execute(delete(stages))
    assert places(at(house, new_s - 0.5)) == {"1.0.0": "development", "1.0.1": "development"}
    assert places(at(house, new_s - 1.5)) == {"1.0.0": "development"}
    assert at(house, new_s - 9.0).stages == ()
    then = {each.version: each for each in at(house, first_s - 0.5).stages}
    assert (then["1.0.0"].stage, then["1.0.0"].moved_by, then["1.0.0"].decision) == (Stage.PRODUCTION, "ann", "3")
    assert (then["1.0.0"].why, then["1.0.0"].until_s) == ("a test", now_s)
    assert not then["1.0.0"].emergency
    assert at(house, first_s - 0.5).served == ()
    now = {each.version: each for each in at(house, now_s).stages}
    replaced, comer = now["1.0.0"], now["1.0.1"]
    assert (replaced.stage, replaced.replaced_by, replaced.decision, replaced.why) == ("staging", "1.0.1", "", "fire")
    assert (comer.stage, comer.moved_by, comer.decision) == ("production", "root", done.decision.id)
    assert (comer.why, comer.emergency, comer.until_s) == ("fire", True, now_s + 1.0)
    assert {each.version: each.emergency for each in at(house, house.clock.wall_s()).stages} == {
        "1.0.0": False,
        "1.0.1": True,
    }


def test_a_span_of_time_has_every_stage_in_it(house) -> None:
    start_s = house.clock.wall_s()
    house.bring("1.0.0", "validation", "staging", "archived")
    found = at(house, start_s - 0.5, until_s=start_s + 1.5).stages
    assert [each.stage for each in found if each.version == "1.0.0"] == ["development", "validation", "staging"]


def test_of_an_endpoint_the_stages_are_those_of_what_it_served(house, draft) -> None:
    house.records.deployments.deploy(house.ann, DeploymentSpec("shop", "digits", "1.0.0"))
    house.clock.advance(1.0)
    house.bring("1.0.0", "validation")
    now_s = house.clock.wall_s()
    assert places(at(house, now_s, "shop")) == {"1.0.0": "validation"}
    assert places(at(house, now_s, "digits", endpoint="shop")) == {"1.0.0": "validation"}
    assert places(at(house, now_s, "digits")) == {"1.0.0": "validation", "1.0.1": "development"}


def test_the_order_is_that_of_the_records_where_the_clock_went_back() -> None:
    def record(seq: int, at_s: float, action: str, target: str = "") -> JournalRecord:
        return JournalRecord(seq, at_s, "ann", action, "digits@1.0.0", {"target": target}, "", "")

    later, earlier = record(2, 60.0, "promote", "validation"), record(3, 55.0, "promote", "staging")
    found = stood((record(1, 50.0, "register"), later, earlier), "digits")
    assert [(each.stage, each.since_s, each.until_seq) for each in found] == [
        ("development", 50.0, 2),
        ("validation", 60.0, 3),
        ("staging", 55.0, None),
    ]


def test_what_was_retired_was_archived_by_whoever_ran_that(house) -> None:
    house.policy('[[retirement]]\nname = "old"\nolder_than_days = 0\nnotice_days = 0\n')
    house.records.retirements.propose(house.ann)
    house.records.retirements.run(house.root)
    (first, second) = at(house, house.clock.wall_s()).stages
    assert (first.stage, first.moved_by, first.decision) == (Stage.ARCHIVED, "root", "1")
    assert first.why.startswith("retirement old: ")
    assert second.stage is Stage.ARCHIVED
