from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.profile import FeatureProfile, InputProfile, Profile
from salver.protocol.request import Response
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import Validate
from salver.protocol.tensor import Tensor
from salver.runtime.batch import Batch
from salver.runtime.pool import Pool
from salver.testing import FREE_WIDTH, RAISES, HeldReplica, eventually, make_manifest, make_request

ONE_LOOK_S = 0.05


def ask(pool: Pool, *values: float, **changes: Any) -> asyncio.Future[Response]:
    """One request with a row [v, v] for each value."""
    return pool(make_request([[value, value] for value in values], **changes))


async def started(replica: HeldReplica) -> Batch:
    await eventually(lambda: replica.batch)
    assert replica.batch is not None
    return replica.batch


async def turn() -> None:
    """Let everything that is ready run."""
    for _ in range(4):
        await asyncio.sleep(0)


def rows_of(batch: Batch) -> list[float]:
    return batch.inputs["x"][:, 0].tolist()


def answer_of(future: asyncio.Future[Response]) -> list[list[float]]:
    return future.result().array("y").tolist()


def code_of(future: asyncio.Future[Response]) -> str:
    error = future.exception()
    assert isinstance(error, SalverError)
    return error.code


def assert_settled(pool: Pool) -> None:
    assert (pool.waiting, pool.running) == (0, 0)


# The departed caller.


async def test_a_departed_caller_does_not_strand_its_batch(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    first, leaver, last = ask(pool, 1), ask(pool, 2), ask(pool, 3)
    assert rows_of(await started(replica)) == [1, 2, 3]
    leaver.cancel()
    replica.finish()
    assert (await first).array("y").tolist() == [[3, 3]]
    assert (await last).array("y").tolist() == [[7, 7]]
    assert leaver.cancelled()
    assert_settled(pool)


async def test_a_caller_that_departs_while_it_waits_is_not_in_the_batch(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    running = ask(pool, 0)
    await started(replica)
    first, leaver, last = ask(pool, 1), ask(pool, 2), ask(pool, 3)
    leaver.cancel()
    replica.finish()
    assert rows_of(await started(replica)) == [1, 3]
    replica.finish()
    await asyncio.gather(running, first, last)
    assert (answer_of(first), answer_of(last)) == ([[3, 3]], [[7, 7]])
    assert_settled(pool)


async def test_when_all_callers_depart_nothing_runs(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    for future in [ask(pool, 1), ask(pool, 2)]:
        future.cancel()
    await turn()
    assert replica.started == []
    assert_settled(pool)


async def test_departed_callers_make_room_in_a_full_queue(make_pool, clock) -> None:
    pool = make_pool(max_queue=3)
    replica = HeldReplica(pool)
    running = ask(pool, 0)
    await started(replica)
    leavers = [ask(pool, 1), ask(pool, 2), ask(pool, 3)]
    for future in leavers:
        future.cancel()
    clock.advance(1.0)
    stays = ask(pool, 4)
    replica.finish()
    assert rows_of(await started(replica)) == [4]
    replica.finish()
    await asyncio.gather(running, stays)


async def test_departed_callers_do_not_keep_a_pool_from_draining(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    running = ask(pool, 0)
    await started(replica)
    ask(pool, 1).cancel()
    drained = asyncio.ensure_future(pool.drain(5.0))
    await turn()
    replica.finish()
    assert await drained
    assert running.done()


async def test_a_success_that_nobody_received_is_not_counted(make_pool, metrics) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    stays, leaver = ask(pool, 1), ask(pool, 2)
    await started(replica)
    leaver.cancel()
    replica.finish()
    await stays
    assert (metrics.successes, metrics.rows, metrics.request_s.freeze().count) == (1, 2, 1)


# Deadlines.


async def test_an_expired_request_never_starts(make_pool, clock) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    running = ask(pool, 0)
    await started(replica)
    late = ask(pool, 1, deadline_s=clock.monotonic_s() + 1.0)
    patient = ask(pool, 2)
    clock.advance(1.0)
    # Before anybody looked at deadlines the replica is free again.
    replica.finish()
    assert rows_of(await started(replica)) == [2]
    assert code_of(late) == "DEADLINE_EXCEEDED"
    replica.finish()
    await asyncio.gather(running, patient)


async def test_a_waiting_request_hears_of_its_deadline_while_the_model_is_busy(make_pool, clock, metrics) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    running = ask(pool, 0)
    await started(replica)
    late = ask(pool, 1, deadline_s=clock.monotonic_s() + 1.0, received_s=clock.monotonic_s())
    clock.advance(1.0)
    with pytest.raises(SalverError, match=r"no answer after 1\.000 s") as raised:
        await asyncio.wait_for(late, ONE_LOOK_S)
    assert raised.value.code == "DEADLINE_EXCEEDED"
    assert metrics.failures == {"DEADLINE_EXCEEDED": 1}
    assert not running.done()
    replica.finish()
    await running
    assert len(replica.started) == 1


async def test_a_running_request_hears_of_its_deadline_too(make_pool, clock) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    late = ask(pool, 1, deadline_s=clock.monotonic_s() + 0.5)
    mate = ask(pool, 2)
    await started(replica)
    clock.advance(0.5)
    with pytest.raises(SalverError):
        await asyncio.wait_for(late, ONE_LOOK_S)
    replica.finish()
    assert (await mate).array("y").tolist() == [[5, 5]]


async def test_a_later_request_with_an_earlier_deadline_expires_first(make_pool, clock) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    running = ask(pool, 0)
    await started(replica)
    patient = ask(pool, 1, deadline_s=clock.monotonic_s() + 9.0)
    hasty = ask(pool, 2, deadline_s=clock.monotonic_s() + 1.0)
    clock.advance(2.0)
    with pytest.raises(SalverError):
        await asyncio.wait_for(hasty, ONE_LOOK_S)
    assert not patient.done()
    clock.advance(8.0)
    with pytest.raises(SalverError):
        await asyncio.wait_for(patient, ONE_LOOK_S)
    replica.finish()
    await running


async def test_expired_requests_are_answered_without_any_replica(make_pool, clock) -> None:
    pool = make_pool()
    late = ask(pool, 1, deadline_s=clock.monotonic_s() + 1.0)
    clock.advance(1.0)
    with pytest.raises(SalverError):
        await asyncio.wait_for(late, ONE_LOOK_S)
    clock.advance(1.0)
    await eventually(lambda: pool.waiting == 0)


# Cutting batches.


async def test_an_idle_replica_takes_what_comes_at_once(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    alone = ask(pool, 1)
    await turn()
    assert rows_of(await started(replica)) == [1]
    replica.finish()
    await alone


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
    pool = make_pool(make_manifest(signature=signature), max_wait_s=60.0)
    replica = HeldReplica(pool)
    futures = [ask(pool, 1), ask(pool, 2)]
    for value in (1, 2):
        assert rows_of(await started(replica)) == [value]
        replica.finish()
        await turn()
    assert [(await future).array("y").tolist() for future in futures] == [[[3, 3]], [[5, 5]]]


async def test_with_max_wait_a_batch_starts_when_it_is_full(make_pool) -> None:
    pool = make_pool(max_wait_s=60.0, max_batch=3)
    replica = HeldReplica(pool)
    futures = [ask(pool, 1), ask(pool, 2)]
    await turn()
    assert replica.batch is None
    futures.append(ask(pool, 3))
    assert rows_of(await started(replica)) == [1, 2, 3]
    replica.finish()
    await asyncio.gather(*futures)


async def test_with_max_wait_a_batch_starts_when_the_oldest_has_waited(make_pool, clock) -> None:
    pool = make_pool(max_wait_s=0.005)
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
    pool = make_pool(max_wait_s=0.01)
    replica = HeldReplica(pool)
    alone = ask(pool, 1)
    await turn()
    clock.advance(0.01)
    assert rows_of(await started(replica)) == [1]
    replica.finish()
    await alone


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


# Failing models.


async def test_only_the_request_that_raises_fails(make_pool, metrics) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    values = [0.0, 1.0, 2.0, RAISES, 4.0, 5.0, 6.0]
    futures = [ask(pool, value) for value in values]
    while not all(future.done() for future in futures):
        await started(replica)
        replica.finish()
        await turn()
    for value, future in zip(values, futures, strict=True):
        if value == RAISES:
            assert code_of(future) == "MODEL_ERROR"
            assert "marked to raise" not in str(future.exception())
        else:
            assert answer_of(future) == [[2 * value + 1] * 2]
    assert (metrics.successes, metrics.failures) == (6, {"MODEL_ERROR": 1})
    assert_settled(pool)


async def test_halves_run_before_what_came_later(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    futures = [ask(pool, 1), ask(pool, RAISES)]
    await started(replica)
    futures.append(ask(pool, 9))
    cuts = []
    for _ in range(4):
        cuts.append(rows_of(await started(replica)))
        replica.finish()
        await turn()
    assert cuts == [[1, RAISES], [1], [RAISES], [9]]
    assert all(future.done() for future in futures)
    assert code_of(futures[1]) == "MODEL_ERROR"


async def test_a_caller_that_left_is_not_run_again(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    stays, leaver, bad = ask(pool, 1), ask(pool, 2), ask(pool, RAISES)
    await started(replica)
    leaver.cancel()
    while not (stays.done() and bad.done()):
        await started(replica)
        replica.finish()
        await turn()
    assert [rows_of(batch) for batch in replica.started] == [[1, 2, RAISES], [1], [RAISES]]
    assert code_of(bad) == "MODEL_ERROR"


BAD_ANSWERS = {
    "one row too few": lambda y: {"y": y["y"][:-1]},
    "one row too many": lambda y: {"y": np.vstack([y["y"], y["y"][:1]])},
    "another type": lambda y: {"y": y["y"].astype(np.float64)},
    "another width": lambda y: {"y": y["y"][:, :1]},
    "another rank": lambda y: {"y": y["y"].reshape(-1)},
    "no output": lambda _: {},
    "None": lambda _: None,
    "a bare array": lambda y: y["y"],
    "a list": lambda y: {"y": y["y"].tolist()},
    "objects": lambda y: {"y": y["y"].astype(object)},
    "complex numbers": lambda y: {"y": y["y"].astype(np.complex64)},
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
async def test_outputs_that_contradict_the_signature_fail_the_whole_batch(make_pool, metrics, answer) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    futures = [ask(pool, 1), ask(pool, 2, 3)]
    await started(replica)
    replica.model.answer = answer
    replica.finish()
    assert [code_of(future) for future in futures] == ["BAD_MODEL_OUTPUT"] * 2
    assert (metrics.successes, metrics.failures) == (0, {"BAD_MODEL_OUTPUT": 2})
    replica.model.answer = lambda outputs: outputs
    after = ask(pool, 4)
    await started(replica)
    replica.finish()
    assert (await after).array("y").tolist() == [[9, 9]]


async def test_a_fault_of_ours_while_a_batch_starts_answers_everybody_and_keeps_the_replica(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)

    def fail(_: Batch) -> None:
        raise RuntimeError("a fault")

    replica.start = fail  # type: ignore[method-assign]
    futures = [ask(pool, 1), ask(pool, 2)]
    await turn()
    assert [code_of(future) for future in futures] == ["INTERNAL"] * 2
    del replica.start
    after = ask(pool, 3)
    await started(replica)
    replica.finish()
    assert (await after).array("y").tolist() == [[7, 7]]
    assert_settled(pool)


# Hangs.


async def test_a_batch_that_hangs_fails_and_the_queue_moves_on(make_pool, clock, metrics) -> None:
    pool = make_pool(hang_s=0.3)
    hanging = HeldReplica(pool)
    stuck = ask(pool, 1)
    await started(hanging)
    waiting = ask(pool, 2)
    other = HeldReplica(pool)
    assert rows_of(await started(other)) == [2]
    clock.advance(0.25)
    other.finish()
    assert (await waiting).array("y").tolist() == [[5, 5]]
    assert not stuck.done()
    clock.advance(0.1)
    with pytest.raises(SalverError, match=r"did not return within 0\.3 s") as raised:
        await asyncio.wait_for(stuck, 1.0)
    assert (raised.value.code, raised.value.http) == ("MODEL_HUNG", 504)
    assert hanging.given_up == 1
    after = ask(pool, 3)
    assert rows_of(await started(other)) == [3]
    other.finish()
    await after
    assert metrics.failures == {"MODEL_HUNG": 1}
    assert_settled(pool)


async def test_without_a_setting_a_batch_may_take_three_times_the_longest_seen_and_five_seconds(make_pool) -> None:
    pool = make_pool()
    assert pool.hang_s == 5.0
    pool.curve.observe(1, 4.0)
    assert pool.hang_s == 12.0
    assert make_pool(hang_s=0.5).hang_s == 0.5


async def test_time_in_which_the_loop_itself_stood_still_is_no_hang(make_pool, clock) -> None:
    pool = make_pool(hang_s=1.0)
    replica = HeldReplica(pool)
    future = ask(pool, 1)
    await started(replica)
    clock.advance(30.0)
    pool._look()
    assert not future.done()
    assert replica.given_up == 0
    pool._look()
    assert code_of(future) == "MODEL_HUNG"


# Worker deaths.


async def test_after_a_worker_died_its_requests_run_again_alone(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    futures = [ask(pool, 1), ask(pool, 2)]
    await started(replica)
    replica.die()
    assert not any(future.done() for future in futures)
    later = ask(pool, 3)
    replica.revive()
    for value in (1, 2, 3):
        assert rows_of(await started(replica)) == [value]
        replica.finish()
        await turn()
    assert [answer_of(future)[0][0] for future in (*futures, later)] == [3, 5, 7]


async def test_a_request_that_kills_two_workers_is_refused_and_its_mates_are_answered(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    good, poison = ask(pool, 1), ask(pool, 13)
    while not (good.done() and poison.done()):
        if 13 in rows_of(await started(replica)):
            replica.die()
            replica.revive()
        else:
            replica.finish()
        await turn()
    assert answer_of(good) == [[3, 3]]
    assert code_of(poison) == "POISON_INPUT"
    assert poison.exception().http == 422
    assert [rows_of(batch) for batch in replica.started] == [[1, 13], [1], [13]]


async def test_what_is_not_idempotent_does_not_run_again(make_pool) -> None:
    pool = make_pool(make_manifest(idempotent=False))
    replica = HeldReplica(pool)
    future = ask(pool, 1)
    await started(replica)
    replica.die("signal SIGKILL")
    assert code_of(future) == "WORKER_LOST"
    assert "SIGKILL" in str(future.exception())


async def test_past_its_deadline_a_request_does_not_run_again(make_pool, clock) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    future = ask(pool, 1, deadline_s=clock.monotonic_s() + 1)
    await started(replica)
    clock.advance(1.0)
    replica.die()
    assert code_of(future) == "WORKER_LOST"
    assert_settled(pool)


async def test_a_suspended_replica_gets_no_batch(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    pool.suspend(replica)
    assert not pool.healthy
    future = ask(pool, 1)
    await turn()
    assert replica.started == []
    pool.ready(replica)
    await started(replica)
    replica.finish()
    await future


async def test_without_any_replica_the_queue_is_answered_and_requests_are_refused_until_one_is_ready(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    running = ask(pool, 0)
    await started(replica)
    waiting = ask(pool, 1)
    pool.unavailable(SalverError("NOT_READY", "another replica died"))
    assert pool.available, "one replica still runs"
    replica.die()
    pool.unavailable(SalverError("NOT_READY", "all replicas died"))
    assert [code_of(future) for future in (running, waiting)] == ["NOT_READY"] * 2
    with pytest.raises(SalverError, match="all replicas died"):
        ask(pool, 2)
    assert (pool.available, pool.healthy) == (False, False)
    replica.revive()
    assert pool.healthy
    after = ask(pool, 3)
    await started(replica)
    replica.finish()
    await after


async def test_refusing_again_and_again_keeps_nothing_alive(make_pool) -> None:
    pool = make_pool()
    pool.unavailable(SalverError("NOT_READY", "no replica"))

    def depth() -> int:
        try:
            ask(pool, 1)
        except SalverError as error:
            frames, traceback = 0, error.__traceback__
            while traceback is not None:
                frames, traceback = frames + 1, traceback.tb_next
            return frames
        raise AssertionError

    assert len({depth() for _ in range(50)}) == 1


# Screening.


PROFILE = Profile((InputProfile("x", 10, (FeatureProfile(0, 10, 5, 1, 0),) * 2),))


async def test_values_outside_the_profile_are_warned_of(make_pool, metrics) -> None:
    pool = make_pool(make_manifest(profile=PROFILE))
    replica = HeldReplica(pool)
    inside, outside = ask(pool, 3), ask(pool, 4, 11)
    await started(replica)
    replica.finish()
    assert (await inside).warnings == ()
    (warning,) = (await outside).warnings
    assert "2 values of input 'x'" in warning
    assert "row 1, feature 0: 11 is not in [0, 10]" in warning
    assert metrics.outside_profile == 1


async def test_a_batch_that_runs_again_warns_once(make_pool, metrics) -> None:
    pool = make_pool(make_manifest(profile=PROFILE))
    replica = HeldReplica(pool)
    outside, bad = ask(pool, 11), ask(pool, RAISES)
    while not (outside.done() and bad.done()):
        await started(replica)
        replica.finish()
        await turn()
    assert len(outside.result().warnings) == 1
    assert metrics.outside_profile == 2


async def test_strict_refuses_them_and_runs_the_rest(make_pool) -> None:
    pool = make_pool(make_manifest(profile=PROFILE), validate=Validate.STRICT)
    replica = HeldReplica(pool)
    inside, outside, nan = ask(pool, 3), ask(pool, 4, 11), ask(pool, float("nan"))
    assert rows_of(await started(replica)) == [3]
    assert [code_of(future) for future in (outside, nan)] == ["OUTSIDE_PROFILE"] * 2
    replica.finish()
    assert (await inside).array("y").tolist() == [[7, 7]]


async def test_a_batch_of_which_nothing_is_left_leaves_the_replica_free(make_pool) -> None:
    pool = make_pool(make_manifest(profile=PROFILE), validate=Validate.STRICT)
    replica = HeldReplica(pool)
    refused = ask(pool, 11)
    drained = asyncio.ensure_future(pool.drain(5.0))
    with pytest.raises(SalverError):
        await refused
    assert await drained
    accepted = ask(pool, 1)
    await started(replica)
    replica.finish()
    await accepted


async def test_off_looks_at_nothing(make_pool, metrics) -> None:
    pool = make_pool(make_manifest(profile=PROFILE), validate=Validate.OFF)
    replica = HeldReplica(pool)
    outside = ask(pool, 11)
    await started(replica)
    replica.finish()
    assert (await outside).warnings == ()
    assert metrics.outside_profile == 0


# The end.


async def test_draining_waits_for_what_is_queued_and_running(make_pool) -> None:
    pool = make_pool(max_batch=1)
    replica = HeldReplica(pool)
    futures = [ask(pool, 1), ask(pool, 2)]
    drained = asyncio.ensure_future(pool.drain(10.0))
    for _ in futures:
        await started(replica)
        assert not drained.done()
        replica.finish()
        await turn()
    assert await drained
    await asyncio.gather(*futures)


async def test_draining_says_when_it_took_too_long(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    future = ask(pool, 1)
    await started(replica)
    assert not await pool.drain(0.01)
    replica.finish()
    await future


async def test_stopping_answers_whatever_is_left(make_pool) -> None:
    pool = make_pool()
    replica = HeldReplica(pool)
    running = ask(pool, 1)
    await started(replica)
    waiting = ask(pool, 2)
    await pool.stop(SalverError("NOT_READY", "taken away"))
    assert [code_of(future) for future in (running, waiting)] == ["NOT_READY"] * 2
    assert replica.stopped
    with pytest.raises(SalverError, match="taken away"):
        ask(pool, 3)
    assert_settled(pool)


async def test_an_answer_names_the_version_and_how_long_it_waited_and_ran(make_pool, clock) -> None:
    pool = make_pool(make_manifest(version="2.1.0"))
    replica = HeldReplica(pool)
    first = ask(pool, 0)
    await started(replica)
    second = ask(pool, 1)
    clock.advance(0.25)
    replica.finish(seconds=0.25)
    await started(replica)
    replica.finish(seconds=0.5)
    response = await second
    assert (response.model, response.version) == ("arithmetic", "2.1.0")
    assert (response.queue_s, response.compute_s) == (0.25, 0.5)
    assert (await first).queue_s == 0
    assert pool.curve.predict(1) is not None
