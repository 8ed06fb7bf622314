"""State machines as tables.

A machine is rows (state, event, next state) and nothing else: what is not in a row does not happen. It holds no
state itself; whoever keeps the state asks what an event makes of it, so an illegal event changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

__all__ = ["IllegalTransition", "Machine", "Move"]

State = TypeVar("State", bound=enum.StrEnum)


class Move(NamedTuple, Generic[State]):
    """One row of a machine: in `source` the event `event` leads to `target`."""

    source: State
    event: str
    target: State


class IllegalTransition(Exception):  # noqa: N818 - a word of the field
    """An event, or a wished state, that the table does not know in this state. Nothing has changed."""

    def __init__(self, machine: str, state: str, wanted: str, allowed: Iterable[str]) -> None:
        self.state = state
        self.wanted = wanted
        self.allowed = tuple(allowed)
        listed = ", ".join(self.allowed) or "nothing"
        super().__init__(f"{machine}: {wanted} is not possible in {state}; possible there: {listed}")


class Machine(Generic[State]):
    """A table of moves. At most one move leads from one state to another, and one event leads to one state.

    Raises ValueError for a table that contradicts itself, when it is made.

    >>> class Door(enum.StrEnum):
    ...     OPEN = "open"
    ...     SHUT = "shut"
    >>> door = Machine("door", [Move(Door.OPEN, "close", Door.SHUT), Move(Door.SHUT, "open", Door.OPEN)])
    >>> door.after(Door.OPEN, "close")
    <Door.SHUT: 'shut'>
    >>> door.after(Door.OPEN, "open")
    Traceback (most recent call last):
    salver.transitions.IllegalTransition: door: open is not possible in open; possible there: close
    """

    __slots__ = ("moves", "name")

    def __init__(self, name: str, moves: Iterable[Move[State]]) -> None:
        self.name = name
        self.moves = tuple(moves)
        by_event = {(move.source, move.event) for move in self.moves}
        by_target = {(move.source, move.target) for move in self.moves}
        if not len(by_event) == len(by_target) == len(self.moves):
            raise ValueError(f"{name}: two moves of one state have the same event or the same target")

    def after(self, state: State, event: str) -> State:
        """The state that `event` leads to; raises IllegalTransition."""
        for move in self.moves:
            if (move.source, move.event) == (state, event):
                return move.target
        raise IllegalTransition(self.name, state, event, (move.event for move in self.moves_from(state)))

    def way(self, source: State, target: State) -> Move[State]:
        """The move between two states; raises IllegalTransition where there is none."""
        for move in self.moves:
            if (move.source, move.target) == (source, target):
                return move
        raise IllegalTransition(self.name, source, target, (move.target for move in self.moves_from(source)))

    def moves_from(self, state: State) -> tuple[Move[State], ...]:
        """What is possible in a state; nothing in a final one."""
        return tuple(move for move in self.moves if move.source == state)
