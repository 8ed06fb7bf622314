"""The end of a pool, while batches still run."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from tests.runtime.asking import ask, assert_settled, code_of, started

from salver.protocol.errors import SalverError
from salver.protocol.tables import Placement
from salver.runtime.inprocess import InProcessReplica
from salver.runtime.recorder import FlightRecorder
from salver.testing import ComputableModel, HeldReplica, eventually

OVER = SalverError("NOT_READY", "over")


class Impatient(HeldReplica):
    """A replica that reports while it is being stopped."""

    def __init__(self, pool: Any, report: str, *said: Any) -> None:
        super().__init__(pool)
        self._report, self._said = report, said

    async def stop(self) -> None:
        getattr(self._pool, self._report)(self, *self._said)


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ("finished", ({"y": np.ones((1, 2), np.float32)}, 0.1)),
        ("raised", ("late",)),
        ("bad_output", ("late",)),
        ("lost", ("late",)),
    ],
)
async def test_what_a_replica_says_while_the_pool_stops_has_no_effect(make_pool, metrics, report, said) -> None:
    pool = make_pool()
    replica = Impatient(pool, report, *said)
    running = ask(pool, 1)
    await started(replica)
    await pool.stop(OVER)
    assert code_of(running) == "NOT_READY"
    assert metrics.failures == {"NOT_READY": 1}
    assert metrics.successes == 0
    assert_settled(pool)
    with pytest.raises(SalverError, match="over"):
        ask(pool, 2)
    assert not pool.available


class Noting:
    """As much of a loop as a replica's thread uses; it notes that the thread has said something."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.told = threading.Event()
        self._loop = loop

    def call_soon_threadsafe(self, *call: Any) -> None:
        self._loop.call_soon_threadsafe(*call)
        self.told.set()


async def test_a_batch_that_ends_in_its_thread_as_the_pool_stops_has_no_effect(make_pool, clock, tmp_path) -> None:
    pool = make_pool(placement=Placement.THREAD)
    model = ComputableModel()
    replica: Any = InProcessReplica(pool, model, clock, FlightRecorder(tmp_path / "flight"), lambda _: None)
    replica._loop = noting = Noting(asyncio.get_running_loop())
    pool.add(replica)
    model.hold()
    running = ask(pool, 1)
    await eventually(model.entered.is_set)
    model.release()
    assert noting.told.wait(10), "the loop stands still, and what the thread said is not heard yet"
    await pool.stop(OVER)
    await eventually(lambda: model.unloads)
    assert code_of(running) == "NOT_READY"
    assert_settled(pool)
