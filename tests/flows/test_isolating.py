"""A version that hung is recorded beside the loop, which must not wait for a disk or for a lock."""

from __future__ import annotations

import fcntl
import os
import threading
from typing import Any

from tests.flows.house import House

from salver import app
from salver.storage.isolation import read_isolated
from salver.testing import eventually

DIGEST = "ab" * 32


async def test_the_loop_turns_while_a_version_is_isolated(house: House, monkeypatch) -> None:
    await house.open()
    go, threads = threading.Event(), []
    isolate = app.isolate

    def slow(*rest: Any) -> None:
        threads.append(threading.current_thread())
        assert go.wait(30)
        isolate(*rest)

    monkeypatch.setattr(app, "isolate", slow)
    house.plane._isolate(DIGEST)
    await eventually(lambda: threads)
    assert threads[0] is not threading.main_thread()
    assert read_isolated(house.home) == {}
    go.set()
    await eventually(lambda: set(read_isolated(house.home)) == {DIGEST})


async def test_a_home_that_cannot_be_written_is_reported_and_serving_goes_on(house: House, monkeypatch, caplog) -> None:
    await house.open()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(app, "isolate", full)
    house.plane._isolate(DIGEST)
    await eventually(lambda: "isolation_not_recorded" in [record.getMessage() for record in caplog.records])
    await house.deploy("scale")
    assert (await house.ask("scale", [1, 2])).data == [4, 8]


async def test_who_holds_the_lock_of_isolation_holds_up_nobody_who_is_served(house: House) -> None:
    await house.open()
    await house.deploy("scale")
    held = os.open(house.home.path / "isolated.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    house.plane._isolate(DIGEST)
    assert (await house.ask("scale", [1, 2])).data == [4, 8]
    assert read_isolated(house.home) == {}
    os.close(held)
    await eventually(lambda: set(read_isolated(house.home)) == {DIGEST})
