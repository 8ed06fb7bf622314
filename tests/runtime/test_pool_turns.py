"""Whose turn it is: priorities, tenants, classes and objectives, through the whole pool."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from tests.runtime import asking
from tests.runtime.asking import ONE_LOOK_S, answer_of, assert_settled, code_of, rows_of, started, turn

from salver.protocol.errors import SalverError
from salver.protocol.request import Request, Response
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import QueuePolicy
from salver.protocol.tensor import Tensor
from salver.runtime.curve import Measured
from salver.runtime.pool import Pool
from salver.testing import FREE_WIDTH, HeldReplica, eventually, make_manifest, make_request

LEVELS = (QueuePolicy(), QueuePolicy(), QueuePolicy())


def ask(pool: Pool, *values: float, **changes: Any) -> asyncio.Future[Response]:
    """A request that comes now."""
    return asking.ask(pool, *values, **{"received_s": pool._clock.monotonic_s()} | changes)


async def busy(pool: Pool) -> HeldReplica:
    replica = HeldReplica(pool)
    ask(pool, 0)
    await started(replica)
    return replica


async def finish(replica: HeldReplica) -> list[float]:
    """End the batch that runs; the rows of the next."""
    replica.finish()
    await turn()
    return rows_of(replica.batch) if replica.batch else []


# Priorities.


async def test_the_most_urgent_run_first_and_the_others_fill_their_batch(make_pool) -> None:
    pool = make_pool(priorities=LEVELS, max_batch=3)
    replica = await busy(pool)
    for value, priority in ((1, 3), (2, 0), (3, 1), (4, 3), (5, 1)):
        ask(pool, value, priority=priority)
    assert await finish(replica) == [3, 5, 2]
    assert await finish(replica) == [1, 4]


async def test_a_level_has_a_deadline_of_its_own_and_a_request_can_only_shorten_it(make_pool, clock) -> None:
    pool = make_pool(priorities=(QueuePolicy(deadline_s=1.0), QueuePolicy()))
    await busy(pool)
    now_s = clock.monotonic_s()
    ask_within = {"received_s": now_s, "deadline_s": now_s + 30.0}
    urgent, patient = ask(pool, 1, priority=1, **ask_within), ask(pool, 2, priority=2, **ask_within)
    hasty = ask(pool, 3, priority=1, received_s=now_s, deadline_s=now_s + 0.5)
    clock.advance(0.5)
    with pytest.raises(SalverError, match=r"no answer after 0\.500 s"):
        await asyncio.wait_for(hasty, ONE_LOOK_S)
    assert not urgent.done()
    clock.advance(0.5)
    with pytest.raises(SalverError, match=r"no answer after 1\.000 s"):
        await asyncio.wait_for(urgent, ONE_LOOK_S)
    assert not patient.done()


async def test_without_levels_a_priority_changes_nothing(make_pool) -> None:
    pool = make_pool()
    replica = await busy(pool)
    for value in (1, 2, 3):
        ask(pool, value, priority=4 - value)
    assert await finish(replica) == [1, 2, 3]


# Tenants.


async def test_who_sends_ten_times_as_much_does_not_keep_another_waiting(make_pool) -> None:
    pool = make_pool(max_batch=4)
    replica = await busy(pool)
    for value in range(20):
        ask(pool, value, tenant="loud")
    for value in (100, 101):
        ask(pool, value, tenant="quiet")
    assert await finish(replica) == [0, 100, 1, 101]
    assert await finish(replica) == [2, 3, 4, 5]


async def test_in_a_full_queue_a_newcomer_takes_the_place_of_the_last_of_who_has_most(make_pool, metrics) -> None:
    pool = make_pool(max_queue=4)
    replica = await busy(pool)
    loud = [ask(pool, value, tenant="loud") for value in range(1, 5)]
    told: list[asyncio.Future] = []
    for answer in loud:
        answer.add_done_callback(told.append)
    quiet = [ask(pool, 100 + value, tenant="quiet") for value in range(2)]
    await turn()
    assert [code_of(answer) for answer in told] == ["QUEUE_FULL"] * 2
    assert told == [loud[3], loud[2]]
    for tenant in ("quiet", "loud"):
        with pytest.raises(SalverError, match="4 requests wait"):
            ask(pool, 9, tenant=tenant)
    assert pool.waiting == 4
    assert await finish(replica) == [1, 100, 2, 101]
    replica.finish()
    await asyncio.gather(*loud[:2], *quiet)
    assert told[:2] == [loud[3], loud[2]]
    assert len(told) == 4, "each was answered once"
    assert metrics.failures == {"QUEUE_FULL": 2}
    assert metrics.successes == 5
    assert_settled(pool)


async def test_nobody_of_another_level_is_pushed_out(make_pool) -> None:
    pool = make_pool(priorities=LEVELS, max_queue=2)
    await busy(pool)
    others = [ask(pool, value, tenant="loud", priority=priority) for value in (1, 2) for priority in (1, 3)]
    middle = [ask(pool, value, tenant="loud", priority=2) for value in (3, 4)]
    ask(pool, 5, tenant="quiet", priority=2)
    assert [answer.done() for answer in (*others, *middle)] == [False] * 5 + [True]
    assert code_of(middle[1]) == "QUEUE_FULL"


# Classes.

TEXT = Signature((TensorSpec("text", "BYTES", (-1,)),), (TensorSpec("y", "FP32", (-1, 2)),))
PADDED = Signature((TensorSpec("x", "FP32", (-1, -1), pad=-7.0),), (TensorSpec("y", "FP32", (-1, 1)),))


async def test_shorter_inputs_are_filled_up_and_everybody_gets_its_own_rows(make_pool) -> None:
    pool = make_pool(make_manifest(signature=PADDED))
    replica = HeldReplica(pool)
    replica.model.answer = lambda outputs: {"y": outputs["y"].sum(axis=1, keepdims=True)}
    asked = [[[1, 2]], [[3, 4, 5], [6, 7, 8]], [[9]]]
    answers = [pool(make_request(rows)) for rows in asked]
    batch = await started(replica)
    assert batch.inputs["x"].tolist() == [[1, 2, -7], [3, 4, 5], [6, 7, 8], [9, -7, -7]]
    assert not batch.inputs["x"].flags.writeable
    replica.finish()
    await turn()
    # y = 2 x + 1: a pad counts -13.
    assert [answer_of(answer) for answer in answers] == [[[3 + 5 - 13]], [[27], [45]], [[19 - 26]]]


async def test_texts_run_with_those_of_similar_length_and_cost_their_padded_length(make_pool, clock) -> None:
    pool = make_pool(make_manifest(signature=TEXT, length="text"), max_cost=96)
    replica = HeldReplica(pool)
    replica.model.run = lambda inputs: {"y": np.zeros((len(inputs["text"]), 2), np.float32)}
    for length in (10, 40, 12, 45, 5, 3, 33, 1, 2, 4):
        text = Tensor.from_numpy("text", np.array(["x" * length], dtype=object))
        pool(Request("arithmetic", {"text": text}))
        clock.advance(0.001)
    seen = []
    while pool.waiting or replica.batch:
        batch = await started(replica)
        assert batch.size <= 96
        seen.append([len(text) for text in batch.inputs["text"].tolist()])
        replica.finish()
        await turn()
    assert seen == [[10, 12, 5, 3, 1, 2], [40, 45], [33], [4]]


async def test_a_class_that_is_sent_all_the_time_does_not_starve_another(make_pool, clock) -> None:
    pool = make_pool(make_manifest(signature=FREE_WIDTH), max_batch=2)
    replica = await busy(pool)
    for value in (1, 2, 3, 4, 50, 5, 6, 7, 8):
        clock.advance(0.001)
        pool(make_request([[value] * (3 if value == 50 else 2)]))
    order = [await finish(replica) for _ in range(4)]
    assert order == [[1, 2], [3, 4], [50], [5, 6]]


# Objectives.


async def test_the_steered_limit_bounds_batches_and_follows_the_model(make_pool, clock) -> None:
    pool = make_pool(slo_s=0.1, max_queue=10_000)
    pool.learn(Measured({1: 0.011, 32: 0.042}))
    assert pool.batch_limit == 35
    replica = HeldReplica(pool)

    async def run(seconds_a: float, seconds_b: float, batches: int) -> None:
        for _ in range(batches):
            for rows in (1, 32):
                answer = ask(pool, *range(rows), received_s=clock.monotonic_s())
                await started(replica)
                clock.advance(seconds_a + seconds_b * rows)
                replica.finish()
                await answer

    await run(0.020, 0.002, 60)
    assert pool.batch_limit == pytest.approx(12, abs=1)
    await run(0.005, 0.0005, 60)
    assert pool.batch_limit == pytest.approx(80, abs=2)


async def test_where_no_line_fits_batches_begin_with_one_grow_in_time_and_shrink_when_late(make_pool, clock) -> None:
    pool = make_pool(slo_s=10.0)
    pool.learn(Measured({1: 0.001, 4: 5.0, 100: 0.001}))
    replica = HeldReplica(pool)
    for value in range(40):
        ask(pool, value)
    sizes = []
    for _ in range(6):
        sizes.append((await started(replica)).rows)
        replica.finish()
        await turn()
    assert sizes == [1, 2, 3, 4, 5, 6]
    assert pool.batch_limit == 7
    clock.advance(11.0)
    replica.finish()
    await turn()
    assert pool.batch_limit == 6


async def test_cancelled_requests_of_every_level_and_tenant_never_run(make_pool) -> None:
    pool = make_pool(priorities=LEVELS, max_batch=100)
    replica = await busy(pool)
    answers = [ask(pool, value, tenant="ab"[value % 2], priority=1 + value % 3) for value in range(1, 31)]
    for answer in answers[::2]:
        answer.cancel()
    ran = await finish(replica)
    assert sorted(ran) == [value for value in range(1, 31) if value % 2 == 0]
    assert await finish(replica) == []
    await eventually(lambda: pool.waiting == 0)
