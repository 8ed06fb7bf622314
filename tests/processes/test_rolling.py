from __future__ import annotations

from typing import Any

import pytest

from salver.processes.child import Child
from salver.processes.order import Report
from salver.processes.rolling import Rolling


class Actor(Child):
    """A child whose process is a number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"server-{number}", "none", number)
        self.number: int | None = number
        self.report = Report()
        self.heard: list[str] = []

    @property
    def pid(self) -> int | None:
        return self.number

    def tell_to_end(self) -> None:
        self.heard.append("end")

    def kill(self) -> None:
        self.heard.append("kill")

    def dies(self) -> None:
        self.number = self.report = None

    def comes_back(self, number: int) -> None:
        self.number, self.report = number, Report()


@pytest.fixture
def actors() -> tuple[Any, ...]:
    return Actor(0), Actor(1)


def test_the_next_leaves_when_the_successor_of_the_one_before_works(actors) -> None:
    first, second = actors
    rolling = Rolling(patience_s=10.0)
    rolling.begin(actors)
    rolling.look(0.0)
    assert (first.heard, second.heard) == (["end"], [])
    rolling.look(1.0)
    first.dies()
    rolling.look(2.0)
    first.number = 7  # it runs, and loads still
    rolling.look(3.0)
    assert (first.heard, second.heard) == (["end"], [])
    first.comes_back(7)
    rolling.look(4.0)
    assert (first.heard, second.heard) == (["end"], ["end"])


def test_who_does_not_leave_is_killed_and_a_second_order_meanwhile_is_the_same_one(actors) -> None:
    first, second = actors
    rolling = Rolling(patience_s=10.0)
    rolling.begin(actors)
    rolling.look(0.0)
    rolling.begin([second])
    rolling.look(10.0)
    assert first.heard == ["end"]
    rolling.look(10.1)
    assert first.heard == ["end", "kill"]
    first.comes_back(8)
    rolling.look(11.0)
    second.comes_back(9)
    rolling.look(12.0)
    rolling.look(13.0)
    assert (first.heard, second.heard) == (["end", "kill"], ["end"])


def test_where_a_process_is_not_at_work_none_is_taken_away(actors) -> None:
    first, _ = actors
    first.dies()
    rolling = Rolling(patience_s=10.0)
    rolling.begin(actors)
    rolling.look(0.0)
    assert first.heard == []
