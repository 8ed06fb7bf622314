from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from tests.runtime.asking import answer_of, ask, rows_of, started, turn

from salver.protocol.errors import SalverError
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tensor import Tensor
from salver.runtime import pool as pool_module
from salver.runtime.curve import Measured
from salver.testing import FREE_WIDTH, HeldReplica, ManualClock, eventually, make_manifest, make_request

# Cutting batches.


async def test_an_idle_replica_takes_what_comes_at_once(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    alone = ask(pool, 1)
    await turn()
    assert rows_of(await started(replica)) == [1]
    replica.finish()
    await alone


async def test_time_before_and_behind_the_model_is_counted_once_per_batch(
    make_pool, metrics, clock, monkeypatch
) -> None:
    for name, seconds in (("join_inputs", 0.25), ("check_outputs", 0.5)):
        monkeypatch.setattr(pool_module, name, _taking(clock, seconds, getattr(pool_module, name)))
    pool = make_pool()
    replicas = [HeldReplica(pool), HeldReplica(pool)]
    futures = [ask(pool, 1), ask(pool, 2, 3)]
    await eventually(lambda: any(replica.batch for replica in replicas))
    clock.advance(2.0)
    next(replica for replica in replicas if replica.batch).finish(2.0)
    responses = await asyncio.gather(*futures)
    assert [(response.queue_s, response.batch.compute_s) for response in responses] == [(0.0, 2.0)] * 2
    assert (metrics.input_s, metrics.compute_s, metrics.output_s) == (0.5, 4.0, 1.0)
    assert (metrics.batch_input_seconds, metrics.batch_output_seconds) == ({3: 0.25}, {3: 0.5})


async def test_the_time_in_which_another_batch_is_joined_is_time_in_the_queue(make_pool, metrics, clock, monkeypatch):
    monkeypatch.setattr(pool_module, "join_inputs", _taking(clock, 0.25, pool_module.join_inputs))
    pool = make_pool(max_batch=1)
    replicas = [HeldReplica(pool), HeldReplica(pool)]
    futures = [ask(pool, 1), ask(pool, 2)]
    await eventually(lambda: all(replica.batch for replica in replicas))
    for replica in replicas:
        replica.finish()
    await asyncio.gather(*futures)
    assert metrics.batch_input_seconds == {1: 0.5}, "each counts its own joining only"
    assert [future.result().hold_s for future in futures] == [0.0, 0.0]
    assert metrics.queue_s.total == 0.25


def _taking(clock: ManualClock, seconds: float, function: Any) -> Any:
    def slow(*arguments: Any) -> Any:
        clock.advance(seconds)
        return function(*arguments)

    return slow


async def test_requests_of_one_turn_of_the_loop_form_one_batch(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    futures = [ask(pool, value) for value in range(5)]
    assert rows_of(await started(replica)) == [0, 1, 2, 3, 4]
    replica.finish()
    await asyncio.gather(*futures)
    assert [answer_of(future)[0][0] for future in futures] == [1, 3, 5, 7, 9]


async def test_the_queue_grows_while_the_replica_is_busy_and_then_runs_together(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    futures = [ask(pool, 0)]
    await started(replica)
    for value in (1, 2, 3):
        futures.append(ask(pool, value))
        await turn()
    assert (pool.waiting, pool.running) == (3, 1)
    replica.finish()
    assert rows_of(await started(replica)) == [1, 2, 3]
    replica.finish()
    await asyncio.gather(*futures)


async def test_a_batch_has_at_most_max_batch_rows_in_order(make_pool) -> None:
    pool = make_pool(max_batch=4)
    replica = HeldReplica(pool)
    futures = [ask(pool, 1, 2), ask(pool, 3), ask(pool, 4, 5), ask(pool, 6)]
    assert rows_of(await started(replica)) == [1, 2, 3]
    replica.finish()
    assert rows_of(await started(replica)) == [4, 5, 6]
    replica.finish()
    await asyncio.gather(*futures)
    assert answer_of(futures[2]) == [[9, 9], [11, 11]]


async def test_a_request_with_exactly_max_batch_rows_runs_and_one_more_row_is_refused(make_pool) -> None:
    pool = make_pool(max_batch=2)
    replica = HeldReplica(pool)
    fits = ask(pool, 1, 2)
    with pytest.raises(SalverError, match="3 rows; arithmetic runs at most 2") as raised:
        ask(pool, 1, 2, 3)
    assert raised.value.code == "TOO_MANY_ROWS"
    await started(replica)
    replica.finish()
    await fits


async def test_a_full_queue_refuses_and_says_how_full(make_pool) -> None:
    pool = make_pool(max_queue=2)
    replica = HeldReplica(pool)
    futures = [ask(pool, 0)]
    await started(replica)
    futures += [ask(pool, 1), ask(pool, 2)]
    with pytest.raises(SalverError, match="2 requests wait for arithmetic; at most 2 may") as raised:
        ask(pool, 3)
    assert (raised.value.code, raised.value.http) == ("QUEUE_FULL", 429)
    replica.finish()
    await started(replica)
    replica.finish()
    await asyncio.gather(*futures)


async def test_a_batch_costs_at_most_max_cost_and_the_dearest_request_runs_alone(make_pool) -> None:
    pool = make_pool(make_manifest(signature=FREE_WIDTH, cost="x"), max_cost=6)
    replica = HeldReplica(pool)
    futures = [ask(pool, 1), ask(pool, 2), ask(pool, 3, 3), ask(pool, 4, 4, 4, 4), ask(pool, 5)]
    cuts = []
    for _ in range(4):
        cuts.append(rows_of(await started(replica)))
        replica.finish()
        await turn()
    assert cuts == [[1, 2], [3, 3], [4, 4, 4, 4], [5]]
    await asyncio.gather(*futures)


async def test_different_trailing_shapes_never_share_a_batch(make_pool) -> None:
    pool = make_pool(make_manifest(signature=FREE_WIDTH))
    replica = HeldReplica(pool)
    narrow, wide, narrow_too = (pool(make_request(rows)) for rows in ([[1, 1]], [[2, 2, 2]], [[3, 3]]))
    assert rows_of(await started(replica)) == [1, 3]
    replica.finish()
    assert (await started(replica)).inputs["x"].shape == (1, 3)
    replica.finish()
    assert (await wide).array("y").tolist() == [[5, 5, 5]]
    assert [(await one).array("y").tolist() for one in (narrow, narrow_too)] == [[[3, 3]], [[7, 7]]]


async def test_rows_without_any_width_keep_their_number(make_pool) -> None:
    pool = make_pool(make_manifest(signature=FREE_WIDTH))
    replica = HeldReplica(pool)
    futures = [pool(make_request(np.zeros((rows, 0)))) for rows in (2, 3)]
    assert (await started(replica)).inputs["x"].shape == (5, 0)
    replica.finish()
    assert [(await future).array("y").shape for future in futures] == [(2, 0), (3, 0)]


async def test_requests_with_and_without_an_optional_input_do_not_share_a_batch(make_pool) -> None:
    signature = Signature(
        (TensorSpec("x", "FP32", (-1, 2)), TensorSpec("z", "FP32", (-1, 2), optional=True)),
        (TensorSpec("y", "FP32", (-1, 2)),),
    )
    pool = make_pool(make_manifest(signature=signature))
    replica = HeldReplica(pool)
    with_z = make_request([[1, 1]])
    with_z.inputs["z"] = Tensor.from_numpy("z", np.ones((1, 2), np.float32))
    futures = [pool(with_z), ask(pool, 2)]
    assert sorted((await started(replica)).inputs) == ["x", "z"]
    replica.finish()
    assert sorted((await started(replica)).inputs) == ["x"]
    replica.finish()
    await asyncio.gather(*futures)


async def test_without_a_batch_dimension_each_request_runs_alone_and_gets_all_of_it(make_pool) -> None:
    signature = Signature((TensorSpec("x", "FP32", (1, 2)),), (TensorSpec("y", "FP32", (1, 2)),))
    pool = make_pool(make_manifest(signature=signature), policy="timeout", max_wait_s=60.0)
    replica = HeldReplica(pool)
    futures = [ask(pool, 1), ask(pool, 2)]
    for value in (1, 2):
        assert rows_of(await started(replica)) == [value]
        replica.finish()
        await turn()
    assert [(await future).array("y").tolist() for future in futures] == [[[3, 3]], [[5, 5]]]


async def test_with_max_wait_a_batch_starts_when_it_is_full(make_pool) -> None:
    pool = make_pool(policy="timeout", max_wait_s=60.0, max_batch=3)
    replica = HeldReplica(pool)
    futures = [ask(pool, 1), ask(pool, 2)]
    await turn()
    assert replica.batch is None
    futures.append(ask(pool, 3))
    assert rows_of(await started(replica)) == [1, 2, 3]
    replica.finish()
    await asyncio.gather(*futures)


async def test_with_max_wait_a_batch_starts_when_the_oldest_has_waited(make_pool, clock) -> None:
    pool = make_pool(policy="timeout", max_wait_s=0.005)
    replica = HeldReplica(pool)
    futures = [ask(pool, 1)]
    await turn()
    assert replica.batch is None
    clock.advance(0.005)
    futures.append(ask(pool, 2))
    assert rows_of(await started(replica)) == [1, 2]
    replica.finish()
    await asyncio.gather(*futures)


async def test_the_wait_for_more_ends_by_itself(make_pool, clock) -> None:
    pool = make_pool(policy="timeout", max_wait_s=0.01)
    replica = HeldReplica(pool)
    alone = ask(pool, 1)
    await turn()
    clock.advance(0.01)
    assert rows_of(await started(replica)) == [1]
    replica.finish()
    await alone


async def test_with_max_wait_a_request_in_a_hurry_is_answered_in_time(make_pool, clock) -> None:
    pool = make_pool(policy="timeout", max_wait_s=0.5)
    pool.learn(Measured({1: 0.01}))
    replica = HeldReplica(pool)
    alone = ask(pool, 1, deadline_s=clock.monotonic_s() + 0.1)
    await turn()
    assert replica.batch is None, "for a while more may come"
    clock.advance(0.09)
    assert rows_of(await started(replica)) == [1]
    replica.finish()
    assert answer_of(alone) == [[3, 3]]


async def test_with_max_wait_a_later_request_in_more_hurry_shortens_the_wait(make_pool, clock) -> None:
    pool = make_pool(policy="timeout", max_wait_s=60.0)
    pool.learn(Measured({1: 0.01, 3: 0.01}))
    replica = HeldReplica(pool)
    patient = ask(pool, 1)
    await turn()
    hurried = ask(pool, 2, deadline_s=clock.monotonic_s() + 0.1)
    await turn()
    clock.advance(0.09)
    assert rows_of(await started(replica)) == [1, 2]
    replica.finish()
    await asyncio.gather(patient, hurried)


async def test_idle_replicas_share_what_waits(make_pool) -> None:
    pool = make_pool(max_batch=1)
    replicas = [HeldReplica(pool), HeldReplica(pool)]
    futures = [ask(pool, 1), ask(pool, 2), ask(pool, 3)]
    await turn()
    assert sorted(rows_of(replica.started[0])[0] for replica in replicas) == [1, 2]
    assert pool.waiting == 1
    for _ in range(2):
        for replica in replicas:
            if replica.batch:
                replica.finish()
        await turn()
    await asyncio.gather(*futures)
