"""Entries that wait in queues, without an event loop."""

from __future__ import annotations

from typing import Any

from salver.runtime.batch import Entry
from salver.testing import make_request


class Answer:
    """As much of a future as a queue looks at."""

    def __init__(self) -> None:
        self.gone = False

    def done(self) -> bool:
        return self.gone


def entry(
    rows: int = 1,
    *,
    cost: int | None = None,
    at_s: float = 0.0,
    shape: object = None,
    deadline_s: float = float("inf"),
    tenant: str = "",
    level: int = 0,
    received_s: float = 0.0,
) -> Entry:
    """An entry that came at `at_s`."""
    answer: Any = Answer()
    request = make_request([[0, 0]] * rows, deadline_s=deadline_s, tenant=tenant, received_s=received_s)
    return Entry(request, answer, at_s, rows if cost is None else cost, shape, level, due_s=deadline_s)


def leave(one: Entry) -> None:
    """Its caller goes."""
    answer: Any = one.answer
    answer.gone = True
