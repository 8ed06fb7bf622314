from __future__ import annotations

import pytest
from tests.runtime.asking import ask, started, turn

from salver.protocol.errors import SalverError
from salver.protocol.tables import QueuePolicy
from salver.runtime.admission import Ahead, QueueBounds, queue_bounds, wait_s
from salver.runtime.curve import Line, Measured
from salver.testing import HeldReplica, eventually, make_manifest, make_spec

MEASURED = Measured({1: 0.011, 32: 0.042})
"""10 ms, and 1 ms for each row: 35 rows of which two fit into 100 ms."""


@pytest.fixture
def fill(clock):
    """Ask until somebody is refused, at most `most` times; the answers, and the refusal."""

    def asking(pool, most=200, **changes):
        answers = []
        for value in range(most):
            try:
                answers.append(ask(pool, value, received_s=clock.monotonic_s(), **changes))
            except SalverError as error:
                return answers, error
        return answers, None

    return asking


async def busy(pool, clock) -> HeldReplica:
    """A replica that has begun a batch of one row this moment."""
    replica = HeldReplica(pool)
    ask(pool, 0, received_s=clock.monotonic_s())
    await started(replica)
    return replica


def test_levels_take_from_the_deployment_what_they_do_not_say() -> None:
    spec = make_spec(max_queue=50, max_age_s=2.0, deadline_s=9.0)
    assert queue_bounds(spec) == (QueueBounds(50, 2.0, 9.0),)
    levels = (QueuePolicy(max_queue=5), QueuePolicy(), QueuePolicy(max_age_s=1.0, deadline_s=3.0))
    assert queue_bounds(make_spec(max_queue=50, max_age_s=2.0, deadline_s=9.0, priorities=levels)) == (
        QueueBounds(5, 2.0, 9.0),
        QueueBounds(50, 2.0, 9.0),
        QueueBounds(50, 1.0, 3.0),
    )


@pytest.mark.parametrize(
    ("cost", "running_s", "size", "replicas", "seconds"),
    [
        (0, 0.0, 32, 1, 0.0),
        (0, 0.005, 32, 1, 0.005),
        (31, 0.005, 32, 1, 0.005),  # it joins them
        (32, 0.005, 32, 1, 0.047),
        (64, 0.005, 32, 2, 0.047),
        (100, 0.0, 1, 1, 1.1),
    ],
)
def test_the_wait_is_that_for_the_batches_that_are_full_without_the_newcomer(cost, running_s, size, replicas, seconds):
    assert wait_s(Ahead(cost, running_s), Line(0.010, 0.001), size, replicas) == pytest.approx(seconds)


async def test_who_would_be_answered_too_late_is_refused_and_told_when_to_come_again(make_pool, clock, fill) -> None:
    pool = make_pool(slo_s=0.1)
    pool.learn(MEASURED)
    await busy(pool, clock)
    # 11 ms until it is free, 45 ms for 35 rows: the next would be answered after 101 ms.
    answers, error = fill(pool)
    assert len(answers) == 35
    assert (error.code, error.http, error.grpc) == ("OVERLOADED", 503, "UNAVAILABLE")
    assert error.retry_after_s == pytest.approx(0.001, abs=1e-6)
    assert "would take about 0.101 s; its objective is 0.1 s" in error.message
    clock.advance(0.002)
    assert not ask(pool, 1, received_s=clock.monotonic_s()).done()


async def test_time_that_went_by_before_the_queue_counts(make_pool, clock) -> None:
    pool = make_pool(slo_s=0.1)
    pool.learn(MEASURED)
    await busy(pool, clock)
    ask(pool, 1, received_s=clock.monotonic_s() - 0.07)
    with pytest.raises(SalverError, match="objective"):
        ask(pool, 1, received_s=clock.monotonic_s() - 0.08)


async def test_a_second_replica_takes_as_many_again(make_pool, clock, fill) -> None:
    pool = make_pool(slo_s=0.1)
    pool.learn(MEASURED)
    await busy(pool, clock)
    await busy(pool, clock)
    answers, error = fill(pool)
    assert len(answers) == 70
    assert error.code == "OVERLOADED"


async def test_a_model_that_cannot_meet_its_objective_is_served_when_it_is_free_all_the_same(make_pool, clock) -> None:
    pool = make_pool(slo_s=0.1)
    pool.learn(Measured({1: 1.0, 32: 1.0}))
    replica = await busy(pool, clock)
    with pytest.raises(SalverError) as raised:
        ask(pool, 1, received_s=clock.monotonic_s())
    assert (raised.value.code, raised.value.retry_after_s) == ("OVERLOADED", pytest.approx(0.9))
    clock.advance(0.95)
    late = ask(pool, 1, received_s=clock.monotonic_s())
    replica.finish()
    await started(replica)
    replica.finish()
    await late


async def test_a_request_that_alone_takes_longer_than_the_objective_is_served_when_it_is_its_turn(make_pool, clock):
    pool = make_pool(slo_s=0.1)
    pool.learn(MEASURED)
    replica = HeldReplica(pool)
    large = ask(pool, *range(120), received_s=clock.monotonic_s())
    await started(replica)
    replica.finish()
    await large


async def test_a_request_of_many_rows_counts_as_what_it_takes_itself(make_pool, clock) -> None:
    pool = make_pool(slo_s=0.1)
    pool.learn(MEASURED)
    await busy(pool, clock)
    ask(pool, *range(78), received_s=clock.monotonic_s())
    pool = make_pool(slo_s=0.1)
    pool.learn(MEASURED)
    await busy(pool, clock)
    with pytest.raises(SalverError, match=r"about 0\.101 s"):
        ask(pool, *range(80), received_s=clock.monotonic_s())


async def test_an_idle_server_refuses_nobody_whatever_became_of_others(make_pool, clock, fill) -> None:
    pool = make_pool(slo_s=0.1, max_age_s=0.05)
    pool.learn(MEASURED)
    replica = await busy(pool, clock)
    answers, _ = fill(pool)
    for answer in answers:
        answer.cancel()
    clock.advance(0.1)
    await eventually(lambda: pool.waiting == 0)
    answers, _ = fill(pool)
    assert len(answers) == 70, "two batches of them: nobody is ahead any more, and the replica should be free"
    for answer in answers:
        answer.cancel()
    replica.finish()
    await turn()
    assert not replica.batch
    assert not ask(pool, 1, received_s=clock.monotonic_s()).done()


async def test_without_any_measurement_nothing_is_predicted(make_pool, clock, fill) -> None:
    pool = make_pool(slo_s=0.001)
    await busy(pool, clock)
    answers, error = fill(pool)
    assert (len(answers), error) == (200, None)


async def test_newcomers_are_refused_while_the_oldest_has_waited_too_long(make_pool, clock) -> None:
    pool = make_pool(max_age_s=1.0)
    replica = await busy(pool, clock)
    oldest = ask(pool, 1)
    clock.advance(1.0)
    ask(pool, 2)
    clock.advance(0.5)
    with pytest.raises(SalverError, match=r"have waited 1\.500 s; newcomers are refused beyond 1 s") as raised:
        ask(pool, 3)
    assert (raised.value.code, raised.value.retry_after_s) == ("OVERLOADED", 1.5)
    oldest.cancel()
    ask(pool, 4)
    replica.finish()
    assert (await started(replica)).rows == 2


async def test_each_level_has_its_own_patience_and_its_own_length(make_pool, clock, fill) -> None:
    pool = make_pool(priorities=(QueuePolicy(max_queue=2), QueuePolicy(max_age_s=1.0)), max_queue=3)
    await busy(pool, clock)
    assert [len(fill(pool, priority=priority)[0]) for priority in (1, 2)] == [2, 3]
    clock.advance(2.0)
    assert [str(fill(pool, priority=priority)[1]) for priority in (1, 2)] == [
        "2 requests of priority 1 wait for arithmetic; at most 2 may; "
        "retry later, add replicas, or raise max_queue of its --priority",
        "requests of priority 2 for arithmetic have waited 2.000 s; newcomers are refused beyond 1 s; "
        "retry later, add replicas, or raise max_age_s of its --priority",
    ]


async def test_a_level_without_a_length_of_its_own_has_the_deployments(make_pool, clock, fill) -> None:
    pool = make_pool(priorities=(QueuePolicy(max_queue=2), QueuePolicy()), max_queue=3)
    await busy(pool, clock)
    refusal = str(fill(pool, priority=2)[1])
    assert refusal.startswith("3 requests of priority 2 wait for arithmetic; at most 3 may; ")
    assert refusal.endswith("raise --max-queue")


async def test_nobody_is_refused_for_how_long_others_of_another_level_have_waited(make_pool, clock) -> None:
    pool = make_pool(priorities=(QueuePolicy(), QueuePolicy()), max_age_s=1.0)
    now_s = clock.monotonic_s()
    ask(pool, 1, priority=2, received_s=now_s)
    clock.advance(2.0)
    ask(pool, 2, priority=1, received_s=now_s)
    with pytest.raises(SalverError, match=r"have waited 2\.000 s"):
        ask(pool, 3, priority=2, received_s=now_s)


async def test_more_urgent_requests_do_not_wait_for_less_urgent_ones_at_the_door_either(make_pool, clock, fill) -> None:
    pool = make_pool(slo_s=0.1, priorities=(QueuePolicy(), QueuePolicy()))
    pool.learn(MEASURED)
    await busy(pool, clock)
    assert len(fill(pool, priority=2)[0]) == 35
    assert len(fill(pool, priority=1)[0]) == 35
    assert fill(pool, priority=2)[1].retry_after_s == pytest.approx(0.046, abs=1e-6)


@pytest.mark.parametrize(
    ("measured", "retry_s"),
    [
        (None, None),
        (MEASURED, 0.015),
        (Measured({1: 0.01, 4: 5.0, 8: 0.1, 32: 9.0}), 1.40625),
        (Measured({1: 70.0}), 60.0),
    ],
)
async def test_a_full_queue_says_when_it_will_have_run(make_pool, clock, fill, measured, retry_s) -> None:
    pool = make_pool(max_queue=5, max_batch=8)
    if measured:
        pool.learn(measured)
    await busy(pool, clock)
    answers, error = fill(pool)
    assert (len(answers), error.code) == (5, "QUEUE_FULL")
    assert error.retry_after_s == pytest.approx(retry_s) if retry_s else error.retry_after_s is None


async def test_what_a_refused_request_would_have_cost_is_not_counted_as_waiting(
    make_pool, clock, fill, metrics
) -> None:
    pool = make_pool(slo_s=0.1)
    pool.learn(MEASURED)
    replica = await busy(pool, clock)
    fill(pool)
    for _ in range(50):
        assert fill(pool)[1].retry_after_s == pytest.approx(0.001, abs=1e-6)
    assert pool.waiting == 35
    clock.advance(0.011)
    replica.finish()
    assert (await started(replica)).rows == pytest.approx(35, abs=1)
    assert metrics.failures == {}


async def test_where_requests_have_a_cost_it_is_cost_that_waits(make_pool, clock, fill) -> None:
    pool = make_pool(make_manifest(cost="x"), slo_s=0.1)
    replica = HeldReplica(pool)
    for rows in (1, 16):
        answer = ask(pool, *range(rows), received_s=clock.monotonic_s())
        await started(replica)
        clock.advance(0.010 + 0.001 * 2 * rows)
        replica.finish()
        await answer
    assert pool.batch_limit == pytest.approx(35, abs=1)
    ask(pool, 1, received_s=clock.monotonic_s())
    await started(replica)
    answers, error = fill(pool)
    assert error.code == "OVERLOADED"
    assert 2 * len(answers) == pytest.approx(35, abs=1)
