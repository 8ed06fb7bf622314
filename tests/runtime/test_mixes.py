"""Random mixes of everything that may happen to a pool: no answer may ever be another request's."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.request import Response
from salver.protocol.tables import Placement
from salver.runtime.inprocess import InProcessReplica
from salver.runtime.pool import Pool
from salver.runtime.recorder import FlightRecorder
from salver.telemetry.metrics import VersionMetrics
from salver.testing import (
    FREE_WIDTH,
    RAISES,
    ComputableModel,
    HeldReplica,
    ManualClock,
    eventually,
    make_manifest,
    make_request,
    make_spec,
)

Asked = list[tuple[np.ndarray[Any, Any], asyncio.Future[Response]]]
HONEST = {"MODEL_ERROR", "DEADLINE_EXCEEDED", "POISON_INPUT", "WORKER_LOST", "MODEL_HUNG"}


def ask(rng: random.Random, pool: Pool, clock: Any, asked: Asked) -> None:
    rows = np.array(
        [[rng.randrange(10_000)] * rng.choice((2, 2, 3)) for _ in range(1)] * rng.choice((1, 1, 2, 5)), dtype=np.float32
    )
    rows[:, 0] = [rng.randrange(10_000) for _ in rows]
    if rng.random() < 0.05:
        rows[rng.randrange(len(rows)), 0] = RAISES
    deadline_s = clock.monotonic_s() + rng.choice((0.01, 0.1)) if rng.random() < 0.2 else float("inf")
    try:
        asked.append((rows, pool(make_request(rows, deadline_s=deadline_s, received_s=clock.monotonic_s()))))
    except SalverError as error:
        assert error.code == "QUEUE_FULL"


def verify(asked: Asked, metrics: VersionMetrics) -> None:
    gone = 0
    for rows, future in asked:
        assert future.done()
        if future.cancelled():
            gone += 1
        elif (error := future.exception()) is not None:
            assert isinstance(error, SalverError)
            assert error.code in HONEST
        else:
            assert (rows != RAISES).all()
            np.testing.assert_array_equal(future.result().array("y"), 2 * rows + 1)
    assert metrics.successes + sum(metrics.failures.values()) + gone == len(asked)
    assert metrics.request_s.freeze().count == metrics.successes


@pytest.mark.parametrize("seed", range(40))
async def test_every_answer_belongs_to_its_request_and_everything_ends(seed: int) -> None:
    rng, clock, metrics = random.Random(seed), ManualClock(), VersionMetrics()
    spec = make_spec(max_batch=rng.choice((5, 16)), max_queue=30, hang_s=5.0)
    pool = Pool(spec, make_manifest(signature=FREE_WIDTH, idempotent=rng.random() < 0.8), metrics, clock)
    replicas = [HeldReplica(pool) for _ in range(rng.choice((1, 2, 3)))]
    asked: Asked = []
    for _ in range(300):
        action = rng.random()
        busy = [replica for replica in replicas if replica.batch]
        if action < 0.55:
            ask(rng, pool, clock, asked)
        elif action < 0.65 and asked:
            rng.choice(asked)[1].cancel()
        elif action < 0.70:
            clock.advance(rng.choice((0.001, 0.05)))
        elif action < 0.94 and busy:
            rng.choice(busy).finish()
        elif action < 0.96 and busy:
            dead = rng.choice(busy)
            dead.die()
            dead.revive()
        if rng.random() < 0.5:
            await asyncio.sleep(0)
    while pool.waiting or pool.running:
        await asyncio.sleep(0)
        for replica in replicas:
            if replica.batch:
                replica.finish()
    assert await pool.drain(1.0)
    verify(asked, metrics)
    await pool.stop(SalverError("NOT_READY", "the test is over"))


@pytest.mark.parametrize("placement", [Placement.AUTO, Placement.THREAD, Placement.INLINE])
async def test_so_it_is_with_real_replicas(tmp_path, placement: Placement) -> None:
    rng, clock, metrics = random.Random(7), ManualClock(), VersionMetrics()
    pool = Pool(make_spec(max_batch=16, placement=placement), make_manifest(signature=FREE_WIDTH), metrics, clock)
    recorder = FlightRecorder(tmp_path / "flight")
    models = [ComputableModel() for _ in range(2)]
    for model in models:
        pool.add(InProcessReplica(pool, model, clock, recorder, lambda _: None))
    asked: Asked = []
    for _ in range(600):
        for _ in range(rng.randrange(6)):
            ask(rng, pool, clock, asked)
        if asked and rng.random() < 0.3:
            rng.choice(asked)[1].cancel()
        clock.advance(0.001)
        await asyncio.sleep(0)
    assert await pool.drain(10.0)
    verify(asked, metrics)
    assert len(asked) > 1000
    await pool.stop(SalverError("NOT_READY", "the test is over"))
    await eventually(lambda: [model.unloads for model in models] == [1, 1])
