from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tests.runtime.asking import answer_of, ask, assert_settled, code_of, rows_of, started, turn

from salver.protocol.errors import SalverError
from salver.protocol.profile import FeatureProfile, InputProfile, Profile
from salver.protocol.signature import Signature, TensorSpec
from salver.protocol.tables import Validate
from salver.runtime.batch import Batch
from salver.runtime.curve import Measured
from salver.runtime.pool import Pool
from salver.testing import RAISES, HeldReplica, make_manifest, make_spec

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


async def test_a_large_answer_on_its_way_is_no_hang(make_pool, clock) -> None:
    pool = make_pool(hang_s=0.3)
    replica = HeldReplica(pool)
    answer = ask(pool, 1)
    await started(replica)
    for _ in range(4):
        clock.advance(0.2)
        pool._look()
        pool.arriving(replica)
    assert not answer.done()
    clock.advance(0.35)
    pool._look()
    assert code_of(answer) == "MODEL_HUNG"
    pool.arriving(replica)


async def test_without_a_setting_a_batch_may_take_three_times_the_longest_seen_and_five_seconds(make_pool) -> None:
    pool = make_pool()
    assert pool.hang_limit_s(1) == pool.spec.deadline_s  # nothing is known before the first run
    pool.curve.observe(1, 0.1)
    assert pool.hang_limit_s(1) == 5.0
    pool.curve.observe(1, 4.0)
    assert pool.hang_limit_s(1) == 12.0
    assert make_pool(hang_s=0.5).hang_limit_s(1) == 0.5


@pytest.mark.parametrize(
    "spec", [TensorSpec("text", "BYTES", (-1,)), TensorSpec("ids", "INT64", (-1, -1))], ids=["text", "ids"]
)
async def test_rows_of_many_lengths_have_the_deadlines_time_however_short_the_longest_seen(
    clock, metrics, spec
) -> None:
    manifest = make_manifest(signature=Signature((spec,), (TensorSpec("y", "FP32", (-1, 1)),)))
    pool = Pool(make_spec(), manifest, metrics, clock)
    pool.curve.observe(1, 0.1)
    assert pool.hang_limit_s(1) == pool.spec.deadline_s > 5.0
    pool.curve.observe(1, 20.0)
    assert pool.hang_limit_s(1) == 60.0


async def test_a_batch_larger_than_any_seen_may_take_longer_than_any_seen(make_pool) -> None:
    pool = make_pool()
    pool.curve.adopt(Measured({1: 0.5}, 0.5))
    assert pool.hang_limit_s(1) == 5.0
    assert pool.hang_limit_s(64) == 3 * 64 * 0.5


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
    assert pool.available
    pool.suspend(replica)
    assert not pool.available, "what comes now waits for a worker that does not run yet"
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
    assert not pool.available
    replica.revive()
    assert pool.available
    after = ask(pool, 3)
    await started(replica)
    replica.finish()
    await after


async def test_who_is_refused_until_a_replica_is_ready_is_told_how_long_that_takes_from_then(make_pool, clock) -> None:
    pool = make_pool()
    waiting = ask(pool, 0)
    pool.unavailable(SalverError("NOT_READY", "all replicas died", retry_after_s=8.0))
    assert waiting.exception().retry_after_s == 8.0
    for left_s in (8.0, 5.5, None):
        with pytest.raises(SalverError) as refused:
            ask(pool, 1)
        assert refused.value.retry_after_s == left_s
        clock.advance(2.5 if left_s == 8.0 else 6.0)


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
