from __future__ import annotations

import enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from salver.transitions import IllegalTransition, Machine, Move


class Light(enum.StrEnum):
    RED = "red"
    GREEN = "green"
    OFF = "off"


LIGHT = Machine(
    "light",
    (
        Move(Light.RED, "go", Light.GREEN),
        Move(Light.GREEN, "stop", Light.RED),
        Move(Light.GREEN, "fail", Light.OFF),
    ),
)


def test_an_event_leads_to_the_state_of_its_row() -> None:
    assert LIGHT.after(Light.RED, "go") is Light.GREEN
    assert LIGHT.way(Light.GREEN, Light.OFF).event == "fail"


def test_an_illegal_event_says_what_is_possible() -> None:
    with pytest.raises(IllegalTransition, match="light: stop is not possible in red; possible there: go") as raised:
        LIGHT.after(Light.RED, "stop")
    assert (raised.value.state, raised.value.wanted, raised.value.allowed) == ("red", "stop", ("go",))
    with pytest.raises(IllegalTransition, match="off; possible there: nothing"):
        LIGHT.way(Light.OFF, Light.RED)


def test_a_final_state_has_no_moves() -> None:
    assert LIGHT.moves_from(Light.OFF) == ()


@pytest.mark.parametrize("second", [Move(Light.RED, "go", Light.OFF), Move(Light.RED, "run", Light.GREEN)])
def test_a_table_that_contradicts_itself_is_refused(second: Move[Light]) -> None:
    with pytest.raises(ValueError, match="the same event or the same target"):
        Machine("light", (Move(Light.RED, "go", Light.GREEN), second))


@given(st.lists(st.sampled_from(["go", "stop", "fail", "nonsense"]), max_size=30))
def test_a_random_walk_goes_by_the_table_only(events: list[str]) -> None:
    state = Light.RED
    for event in events:
        rows = {move.event: move.target for move in LIGHT.moves if move.source is state}
        if event in rows:
            state = LIGHT.after(state, event)
            assert state is rows[event]
        else:
            with pytest.raises(IllegalTransition):
                LIGHT.after(state, event)
