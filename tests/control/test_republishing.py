from __future__ import annotations

import asyncio

import pytest

from salver.control import republishing as following_module
from salver.control.republishing import Republishing
from salver.protocol.errors import SalverError


class Shared:
    """A database that others change, and that may be away."""

    def __init__(self) -> None:
        self.number = 7
        self.away = False
        self.published: list[int] = []

    def revision(self) -> int:
        if self.away:
            raise SalverError("CONTROL_UNAVAILABLE", "the database server does not answer")
        return self.number

    def publish(self) -> None:
        self.published.append(self.number)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(following_module, "log_event", lambda name, **_: told.append(name))
    return told


def test_it_publishes_when_the_revision_has_moved_and_only_then(events: list[str]) -> None:
    shared = Shared()
    republishing = Republishing(shared.revision, shared.publish)
    assert [republishing.tick() for _ in range(3)] == [True, False, False]
    shared.number = 9
    assert [republishing.tick() for _ in range(2)] == [True, False]
    assert shared.published == [7, 9]
    assert events == []


def test_it_says_once_that_the_database_is_away_and_once_that_it_is_back(events: list[str]) -> None:
    shared = Shared()
    republishing = Republishing(shared.revision, shared.publish)
    republishing.tick()
    shared.away = True
    assert [republishing.tick() for _ in range(3)] == [False] * 3
    shared.away, shared.number = False, 8
    assert republishing.tick()
    assert shared.published == [7, 8]
    assert events == ["database_away", "database_back"]


def test_a_publication_that_failed_is_made_at_the_next_look(events: list[str]) -> None:
    shared = Shared()
    failing = iter([True, False])

    def publish() -> None:
        if next(failing):
            raise SalverError("STORAGE_FULL", "no space")
        shared.publish()

    republishing = Republishing(shared.revision, publish)
    assert not republishing.tick()
    assert republishing.tick()
    assert shared.published == [7]


def test_a_fault_is_logged_and_it_goes_on(events: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following_module, "_TICK_S", 0)
    turns = iter(range(3))

    def revision() -> int:
        if next(turns, None) is None:
            raise asyncio.CancelledError
        raise ZeroDivisionError

    async def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            await Republishing(revision, lambda: None).run()

    asyncio.run(run())
    assert events == ["fault"] * 3
