from __future__ import annotations

import asyncio
import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.clock import SYSTEM_CLOCK
from salver.protocol.errors import SalverError
from salver.protocol.tables import FileEntry, Load
from salver.runtime.memory import MemoryBudget, Occupant, choose_unloads, private_bytes
from salver.testing import eventually, make_manifest, make_spec


def of(endpoint: str, size: int, used_s: float, *, leaves: bool = True) -> Occupant:
    return Occupant(endpoint, size, leaves, used_s)


@pytest.mark.parametrize(
    ("occupants", "needed", "chosen"),
    [
        # What fits needs nobody to leave.
        ([], 100, ()),
        ([of("a", 60, 1.0)], 40, ()),
        # The least recently used goes, and no more than it takes.
        ([of("a", 40, 2.0), of("b", 40, 1.0)], 30, ("b",)),
        ([of("a", 40, 2.0), of("b", 40, 1.0)], 70, ("b", "a")),
        # Whoever has work stays, however long ago it was asked.
        ([of("a", 40, 2.0), of("b", 40, 1.0, leaves=False)], 30, ("a",)),
        # Where even all would not do, none goes.
        ([of("a", 10, 1.0), of("b", 80, 2.0, leaves=False)], 30, None),
        ([], 101, None),
        # Already over: as many as bring it back.
        ([of("a", 70, 1.0), of("b", 70, 2.0)], 0, ("a",)),
    ],
)
def test_whom_to_unload(occupants, needed, chosen) -> None:
    assert choose_unloads(100, occupants, needed) == chosen


@given(
    st.lists(st.tuples(st.integers(0, 50), st.booleans(), st.floats(0, 10)), max_size=8),
    st.integers(0, 120),
    st.integers(1, 150),
)
def test_what_is_chosen_makes_room_and_is_needed_for_it(rows, needed, budget) -> None:
    occupants = [Occupant(str(number), *row) for number, row in enumerate(rows)]
    chosen = choose_unloads(budget, occupants, needed)
    by_name = {each.endpoint: each for each in occupants}
    total = sum(each.size_bytes for each in occupants)
    if chosen is None:
        assert total - sum(each.size_bytes for each in occupants if each.leaves) + needed > budget
        return
    assert all(by_name[name].leaves for name in chosen)
    freed = [by_name[name].size_bytes for name in chosen]
    assert total - sum(freed) + needed <= budget
    assert not chosen or total - sum(freed[:-1]) + needed > budget
    kept = [each.used_s for each in occupants if each.leaves and each.endpoint not in chosen]
    assert not chosen or not kept or max(by_name[name].used_s for name in chosen) <= min(kept)


class House:
    """Occupants that can be told to leave."""

    def __init__(self, budget_bytes: int, *occupants: Occupant) -> None:
        self.there = {each.endpoint: each for each in occupants}
        self.left: list[str] = []
        self.budget = MemoryBudget(budget_bytes, SYSTEM_CLOCK, lambda: list(self.there.values()), self.unload)

    async def unload(self, name: str) -> None:
        await asyncio.sleep(0)
        self.left.append(name)
        del self.there[name]


LAZY = make_spec(endpoint="new", load=Load.LAZY)
MANIFEST = make_manifest()
"""Of one byte, until it is measured."""


def measured(house: House, size: int) -> House:
    house.budget.measured(LAZY, MANIFEST, size)
    return house


async def test_without_a_budget_nobody_is_asked() -> None:
    await House(0, of("a", 10**12, 0.0)).budget.make_room(LAZY, MANIFEST)


async def test_what_was_measured_is_what_is_expected_next_time() -> None:
    house = House(100)
    assert house.budget.expect(LAZY, MANIFEST) == 1
    house.budget.measured(msgspec.structs.replace(LAZY, replicas=2), MANIFEST, 60)
    assert house.budget.expect(LAZY, MANIFEST) == 30
    assert house.budget.expect(msgspec.structs.replace(LAZY, replicas=3), MANIFEST) == 90


async def test_room_that_was_promised_is_nobody_elses() -> None:
    house = measured(House(100, of("a", 50, 1.0)), 60)
    await house.budget.make_room(LAZY, MANIFEST)
    assert house.left == ["a"]
    second = asyncio.ensure_future(house.budget.make_room(msgspec.structs.replace(LAZY, endpoint="other"), MANIFEST))
    await asyncio.sleep(0.06)
    assert not second.done(), "40 are left, and it needs 60"
    house.budget.release(LAZY)
    await asyncio.wait_for(second, 5)


async def test_two_that_come_at_once_do_not_both_take_the_room_of_one() -> None:
    house = measured(House(100, of("a", 50, 1.0)), 60)
    others = [msgspec.structs.replace(LAZY, endpoint=name) for name in ("b", "c")]
    rooms = [asyncio.ensure_future(house.budget.make_room(spec, MANIFEST)) for spec in others]
    await eventually(lambda: any(room.done() for room in rooms))
    await asyncio.sleep(0.06)
    assert [room.done() for room in rooms] == [True, False]
    house.budget.release(others[0])
    await asyncio.wait_for(rooms[1], 5)


async def test_a_version_waits_until_another_has_no_work() -> None:
    house = measured(House(100, of("a", 50, 1.0, leaves=False)), 60)
    waiting = asyncio.ensure_future(house.budget.make_room(LAZY, MANIFEST))
    await asyncio.sleep(0.06)
    assert (waiting.done(), house.left) == (False, [])
    house.there["a"] = of("a", 50, 1.0)
    await eventually(waiting.done)
    assert house.left == ["a"]


async def test_what_can_never_fit_is_refused_at_once_and_nobody_leaves_for_it() -> None:
    house = House(100, of("fixed", 50, float("inf"), leaves=False), of("a", 10, 1.0))
    large = make_manifest(files=(FileEntry("m.onnx", "cd" * 32, 60),))
    with pytest.raises(SalverError, match="always loaded take 50") as refused:
        await house.budget.make_room(LAZY, large)
    assert (refused.value.code, house.left) == ("NOT_READY", [])
    assert "takes about 60 bytes; of 100 for all versions" in str(refused.value)
    house.budget.measured(LAZY, large, 90)
    with pytest.raises(SalverError, match="takes about 90 bytes"):
        await house.budget.make_room(LAZY, large)


async def test_one_that_takes_more_than_there_is_says_how_much_is_loaded(caplog) -> None:
    house = House(100, of("fixed", 120, float("inf"), leaves=False), of("a", 10, 1.0))
    await house.budget.settle(LAZY, MANIFEST)
    (told,) = [record.fields for record in caplog.records if record.message == "memory_over_budget"]
    assert (told["needed_bytes"], told["loaded_bytes"], told["budget_bytes"]) == (0, 130, 100)


async def test_what_was_measured_too_high_is_tried_again_when_the_others_have_left() -> None:
    house = measured(House(100, of("fixed", 50, float("inf"), leaves=False), of("a", 10, 1.0)), 10**9)
    await house.budget.make_room(LAZY, MANIFEST)
    assert house.left == ["a"]


async def test_waiting_for_room_has_an_end() -> None:
    house = measured(House(100, of("a", 50, 1.0, leaves=False)), 60)
    with pytest.raises(SalverError, match="without work"):
        await house.budget.make_room(msgspec.structs.replace(LAZY, load_timeout_s=0.1), MANIFEST)


async def test_an_eager_version_is_loaded_whatever_it_takes_and_idle_ones_leave_for_it() -> None:
    eager = make_spec(endpoint="new")
    house = measured(House(100, of("a", 10, 1.0), of("b", 90, 2.0, leaves=False)), 60)
    await house.budget.make_room(eager, MANIFEST)
    assert house.left == ["a"]


async def test_nobody_takes_the_room_that_is_made_for_an_eager_version() -> None:
    eager = make_spec(endpoint="eager")
    house = measured(House(100, of("a", 60, 1.0)), 60)
    rooms = [asyncio.ensure_future(house.budget.make_room(spec, MANIFEST)) for spec in (eager, LAZY)]
    await rooms[0]
    await asyncio.sleep(0.06)
    assert (rooms[1].done(), house.left) == (False, ["a"])
    house.budget.release(eager)
    await asyncio.wait_for(rooms[1], 5)


async def test_a_version_that_takes_more_than_was_thought_makes_others_leave() -> None:
    house = House(100, of("a", 50, 1.0), of("b", 40, 2.0))
    await house.budget.make_room(LAZY, MANIFEST)
    house.there["new"] = of("new", 60, 3.0)
    await house.budget.settle(LAZY, MANIFEST)
    assert house.left == ["a"]
    house.there["new"] = of("new", 99, 0.0)
    await house.budget.settle(LAZY, MANIFEST)
    assert house.left == ["a", "b"]
    assert "new" in house.there, "itself never"


def test_memory_of_a_process_is_read_and_of_none_is_none() -> None:
    before = private_bytes()
    held = b"x" * 50_000_000
    assert private_bytes(os.getpid()) - before > 30_000_000
    assert len(held) == 50_000_000
    assert private_bytes(2**22 + 1) == 0
