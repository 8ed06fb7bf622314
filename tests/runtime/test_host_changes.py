"""Wishes that change while a version loads, and what a replaced version may still finish."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.hosting import V1, V2, Shelf, hosting
from tests.runtime.workers import alive

from salver.protocol.tables import Placement, VersionManifest
from salver.runtime import host as host_module
from salver.runtime.status import LoadState
from salver.testing import eventually, make_spec

NEVER = """
import os, pathlib, threading
import salver
class Never(salver.Model):
    inputs = [salver.TensorSpec("x", "FP32", (-1, 2))]
    outputs = [salver.TensorSpec("y", "FP32", (-1, 2))]
    def load(self, path):
        pathlib.Path({note!r}).write_text(str(os.getpid()))
        threading.Event().wait()
    def predict(self, inputs):
        return {{"y": inputs["x"]}}
"""


class Stuck:
    """A version whose load in this process waits until the test is over."""

    def __init__(self, shelf: Shelf, version: str) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        shelf.preparations[version] = self._wait

    def _wait(self) -> None:
        self.entered.set()
        self.go.wait(60)


@pytest.fixture
def stuck(shelf: Shelf) -> Stuck:
    return Stuck(shelf, "1.0.0")


def loading_for_ever(store: Any, note: Path) -> VersionManifest:
    return store.version({"model.py": NEVER.format(note=str(note))})


async def test_a_newer_wish_overtakes_a_load_that_does_not_return(store, shelf, stuck) -> None:
    async with hosting(store, shelf) as one:
        one.apply((V1, make_spec()))
        await eventually(stuck.entered.is_set)
        await asyncio.wait_for(one.settle((V2, make_spec())), 10)
        assert (one.status.state, one.status.serving) == (LoadState.READY, "arithmetic@2.0.0")
        stuck.go.set()
        await eventually(lambda: "1.0.0" in shelf.models and shelf.model("1.0.0").unloads)
        assert one.status.serving == "arithmetic@2.0.0"


async def test_a_newer_wish_ends_the_worker_that_loads_the_older(store, shelf, tmp_path) -> None:
    note = tmp_path / "pid"
    async with hosting(store, shelf) as one:
        one.apply((loading_for_ever(store, note), make_spec()))
        await eventually(lambda: note.exists() and note.read_text(), within_s=30)
        await asyncio.wait_for(one.settle((V2, make_spec())), 10)
        assert one.status.serving == "arithmetic@2.0.0"
        assert not alive(int(note.read_text()))


async def test_to_return_to_what_serves_ends_the_load_of_what_should_have_come(store, shelf, tmp_path) -> None:
    note = tmp_path / "pid"
    async with hosting(store, shelf) as one:
        await one.settle((V2, make_spec()))
        one.apply((loading_for_ever(store, note), make_spec(generation=1)))
        await eventually(lambda: note.exists() and note.read_text(), within_s=30)
        await asyncio.wait_for(one.settle((V2, make_spec(generation=2))), 10)
        assert (one.status.state, one.status.generation) == (LoadState.READY, 2)


async def test_a_removal_ends_the_worker_that_loads(store, shelf, tmp_path) -> None:
    note = tmp_path / "pid"
    async with hosting(store, shelf) as one:
        one.apply((loading_for_ever(store, note), make_spec()))
        await eventually(lambda: note.exists() and note.read_text(), within_s=30)
        one.apply()
        await eventually(lambda: not alive(int(note.read_text())))
        await eventually(lambda: list(store.scratch.iterdir()) == [])
        assert one.host.pools() == {}


async def test_closing_waits_for_the_worker_of_an_endpoint_that_was_removed(store, shelf, tmp_path) -> None:
    note = tmp_path / "pid"
    async with hosting(store, shelf) as one:
        one.apply((loading_for_ever(store, note), make_spec()))
        await eventually(lambda: note.exists() and note.read_text(), within_s=30)
        one.apply()
        await one.host.close(timeout_s=5.0)
        assert not alive(int(note.read_text()))


# Draining.


@pytest.mark.parametrize(("deadline_s", "drain_s"), [(1.0, 30.0), (300.0, 300.0), (86_400.0, 3600.0)])
async def test_a_replaced_version_may_answer_as_long_as_its_requests_may_wait(
    store, shelf, monkeypatch, deadline_s, drain_s
) -> None:
    waited: list[float] = []
    drain = host_module.Pool.drain

    async def noted(pool: Any, timeout_s: float) -> bool:
        waited.append(timeout_s)
        return await drain(pool, timeout_s)

    monkeypatch.setattr(host_module.Pool, "drain", noted)
    async with hosting(store, shelf) as one:
        await one.settle((V1, make_spec(deadline_s=deadline_s)))
        await one.settle((V2, make_spec(deadline_s=1.0)))
        await eventually(lambda: waited)
        assert drain_s <= waited[0] <= drain_s + 1


async def test_a_swap_leaves_a_slow_request_its_deadline(store, shelf, monkeypatch) -> None:
    monkeypatch.setattr(host_module, "_DRAIN_S", 0.02)
    async with hosting(store, shelf) as one:
        await one.settle((V1, make_spec(placement=Placement.THREAD, deadline_s=60.0)))
        model = shelf.model("1.0.0")
        model.hold()
        running = one.ask(1)
        await eventually(model.entered.is_set)
        await one.settle((V2, make_spec()))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(running), 0.2)
        model.release()
        assert (await running).version == "1.0.0"
