"""One run for all who ask the same, through a pool whose replica runs when it is told to."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable

import pytest
from tests.runtime.asking import ONE_LOOK_S, answer_of, assert_settled, code_of, started, turn

from salver.protocol.errors import SalverError
from salver.protocol.request import CacheNote, Request, Response
from salver.protocol.tables import QueuePolicy
from salver.runtime.admission import queue_bounds
from salver.runtime.flights import Flights
from salver.runtime.pool import Pool
from salver.telemetry.metrics import VersionMetrics
from salver.testing import RAISES, HeldReplica, ManualClock, eventually, make_request, make_spec

KEY = b"k"


class Crowd:
    """Flights over a pool with one replica, and what was kept."""

    def __init__(self, pool: Pool, metrics: VersionMetrics, clock: ManualClock) -> None:
        self.pool, self.metrics, self.clock = pool, metrics, clock
        self.replica = HeldReplica(pool)
        self.kept: list[tuple[bytes, Response]] = []
        self.flights = Flights(pool, metrics, clock, self._keep)

    def _keep(self, key: bytes, response: Response) -> CacheNote:
        self.kept.append((key, response))
        return CacheNote("miss", "tag", 1.0, 2.0)

    def lead(
        self, value: float = 1.0, *, within_s: float = float("inf"), **changes: object
    ) -> asyncio.Future[Response]:
        return self.flights.lead(KEY, self._request(value, within_s, changes))

    def join(
        self, value: float = 1.0, *, within_s: float = float("inf"), **changes: object
    ) -> asyncio.Future[Response]:
        request = self._request(value, within_s, changes)
        flight = self.flights.find(KEY, request)
        assert flight is not None
        return self.flights.join(flight, request)

    def _request(self, value: float, within_s: float, changes: dict[str, object]) -> Request:
        now_s = self.clock.monotonic_s()
        return make_request([[value, value]], received_s=now_s, deadline_s=now_s + within_s, **changes)

    def counted(self) -> tuple[int, dict[str, int]]:
        failures = {code: count for code, count in self.metrics.failures.items() if count}
        assert self.metrics.request_s.freeze().count == self.metrics.successes
        return self.metrics.successes, failures

    def assert_settled(self) -> None:
        assert self.flights.under_way == 0
        assert (self.flights._joined, self.flights._newest) == (set(), {})
        assert_settled(self.pool)


Gather = Callable[..., Crowd]


@pytest.fixture
def gather(make_pool, metrics: VersionMetrics, clock: ManualClock) -> Gather:
    return lambda **spec: Crowd(make_pool(**spec), metrics, clock)


async def test_all_who_ask_the_same_get_the_answer_of_one_run(gather: Gather) -> None:
    crowd = gather()
    leader, others = crowd.lead(), [crowd.join() for _ in range(3)]
    await started(crowd.replica)
    late = crowd.join()
    crowd.replica.finish()
    responses = await asyncio.gather(leader, *others, late)
    assert len(crowd.replica.started) == 1
    assert {str(response.array("y").tolist()) for response in responses} == {"[[3.0, 3.0]]"}
    assert [response.cache.source for response in responses] == ["miss", "shared", "shared", "shared", "shared"]
    assert {(response.cache.tag, response.cache.ttl_s) for response in responses} == {("tag", 2.0)}
    assert crowd.kept == [(KEY, responses[0])]
    assert crowd.counted() == (5, {})
    assert crowd.metrics.computed == 1
    crowd.assert_settled()


async def test_who_joins_takes_no_place_in_the_queue(gather: Gather) -> None:
    crowd = gather(max_queue=1)
    busy = crowd.pool(make_request([[7, 7]]))
    await started(crowd.replica)
    leader, others = crowd.lead(), [crowd.join() for _ in range(100)]
    assert crowd.pool.waiting == 1
    with pytest.raises(SalverError, match="1 requests wait"):
        crowd.flights.lead(b"other", make_request([[2, 2]]))
    assert crowd.flights.find(b"other", make_request([[2, 2]])) is None, "who is refused leads nothing"
    crowd.replica.finish()
    await busy
    await started(crowd.replica)
    crowd.replica.finish()
    await asyncio.gather(leader, *others)
    crowd.assert_settled()


async def test_inputs_are_held_once_for_all_who_wait(gather: Gather) -> None:
    crowd = gather()
    crowd.lead()
    first, second = (make_request([[1, 1]]) for _ in range(2))
    for request in (first, second):
        crowd.flights.join(crowd.flights.find(KEY, request), request)
    assert first.inputs is second.inputs
    await started(crowd.replica)
    crowd.replica.finish()


@pytest.mark.parametrize("running", [False, True])
async def test_when_the_leader_leaves_the_others_still_get_the_answer_of_its_run(gather: Gather, running: bool) -> None:
    crowd = gather()
    busy = None if running else crowd.pool(make_request([[7, 7]]))
    if busy:
        await started(crowd.replica)
    leader, other, third = crowd.lead(), crowd.join(), crowd.join()
    if running:
        await started(crowd.replica)
    assert leader.cancel()
    assert not leader.cancel(), "once"
    if busy:
        crowd.replica.finish()
        await busy
        await started(crowd.replica)
    crowd.replica.finish()
    await eventually(lambda: other.done() and third.done())
    assert other.result().cache.source == third.result().cache.source == "shared"
    assert len(crowd.replica.started) == (1 if running else 2)
    assert crowd.counted() == (2 if running else 3, {})
    crowd.assert_settled()


async def test_when_all_have_left_nothing_starts_for_them(gather: Gather) -> None:
    crowd = gather()
    busy = crowd.pool(make_request([[7, 7]]))
    await started(crowd.replica)
    for waiting in [crowd.join(), crowd.join(), crowd.lead()] if crowd.lead() else ():
        waiting.cancel()
    await turn()
    assert crowd.flights.under_way == 0
    crowd.replica.finish()
    await busy
    await turn()
    assert len(crowd.replica.started) == 2
    crowd.replica.finish()
    await turn()
    crowd.assert_settled()


async def test_a_task_that_waits_and_is_cancelled_has_left(gather: Gather) -> None:
    crowd = gather()
    busy = crowd.pool(make_request([[7, 7]]))
    await started(crowd.replica)

    async def wait() -> Response:
        return await crowd.lead()

    task = asyncio.create_task(wait())
    await turn()
    other = crowd.join()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    other.cancel()
    assert crowd.flights.under_way == 0, "at once, so that nobody joins what will not run"
    crowd.replica.finish()
    await busy
    await turn()
    assert len(crowd.replica.started) == 1
    crowd.assert_settled()


async def test_who_leaves_in_the_moment_of_the_answer_takes_nothing_from_the_others(gather: Gather) -> None:
    crowd = gather()
    leader, other = crowd.lead(), crowd.join()
    await started(crowd.replica)
    crowd.replica.finish()
    leader.cancel()
    assert (await other).cache.source == "shared"
    assert crowd.counted() == (1, {})

    alone = crowd.lead()
    await started(crowd.replica)
    crowd.replica.finish()
    alone.cancel()
    await turn()
    assert len(crowd.kept) == 2, "the work was done"
    crowd.assert_settled()


async def test_a_failure_is_everybodys_and_is_not_kept(gather: Gather) -> None:
    crowd = gather()
    leader, other, third = crowd.lead(RAISES), crowd.join(RAISES), crowd.join(RAISES)
    await started(crowd.replica)
    crowd.replica.finish()
    await asyncio.wait([leader, other, third])
    assert [code_of(each) for each in (leader, other, third)] == ["MODEL_ERROR"] * 3
    assert crowd.counted() == (0, {"MODEL_ERROR": 3})
    assert crowd.kept == []
    crowd.assert_settled()
    leader, other = crowd.lead(RAISES), crowd.join(RAISES)
    await started(crowd.replica)
    leader.cancel()
    crowd.replica.finish()
    await asyncio.wait([other])
    assert code_of(other) == "MODEL_ERROR"
    assert crowd.counted() == (0, {"MODEL_ERROR": 4}), "who has left is not counted"
    crowd.assert_settled()


async def test_each_who_waits_is_answered_at_its_own_deadline(gather: Gather, clock: ManualClock) -> None:
    crowd = gather()
    leader = crowd.lead()
    patient, hasty, hastier = crowd.join(within_s=60.0), crowd.join(within_s=0.03), crowd.join(within_s=0.02)
    await started(crowd.replica)
    clock.advance(0.025)
    await eventually(hastier.done)
    assert code_of(hastier) == "DEADLINE_EXCEEDED"
    assert str(hastier.exception()) == "no answer after 0.025 s: it waited for the answer to an identical request"
    await asyncio.sleep(ONE_LOOK_S)
    assert not hasty.done(), "no clock but its own counts"
    clock.advance(0.01)
    await eventually(hasty.done)
    assert code_of(hasty) == "DEADLINE_EXCEEDED"
    assert not leader.done()
    assert not patient.done()
    crowd.replica.finish()
    await asyncio.gather(leader, patient)
    assert crowd.counted() == (2, {"DEADLINE_EXCEEDED": 2})
    crowd.assert_settled()


async def test_deadlines_of_all_cost_one_timer(gather: Gather) -> None:
    crowd = gather()
    waiting = [crowd.lead(), crowd.join(within_s=30.0)]
    timer = crowd.flights._timer
    waiting += [crowd.join(within_s=30.0 + number) for number in range(100)]
    assert crowd.flights._timer is timer is not None
    await started(crowd.replica)
    crowd.replica.finish()
    await asyncio.gather(*waiting)
    assert timer.cancelled(), "it would hold the version for as long as the deadline"
    crowd.assert_settled()


async def test_when_the_leaders_deadline_passes_another_leads_anew(gather: Gather, clock: ManualClock) -> None:
    crowd = gather()
    leader, short, longest = crowd.lead(within_s=0.1), crowd.join(within_s=5.0), crowd.join(within_s=60.0)
    first = await started(crowd.replica)
    clock.advance(0.2)
    await eventually(leader.done)
    assert code_of(leader) == "DEADLINE_EXCEEDED"
    assert not short.done()
    assert crowd.pool.waiting == 1
    crowd.replica.finish()
    second = await eventually(lambda: crowd.replica.batch is not first and crowd.replica.batch)
    assert second.entries[0].request.deadline_s - clock.monotonic_s() > 50, "the most patient of them"
    crowd.replica.finish()
    assert answer_of_all(await asyncio.gather(short, longest)) == [[[3, 3]]] * 2
    assert crowd.counted() == (2, {"DEADLINE_EXCEEDED": 1})
    assert len(crowd.kept) == 1
    crowd.assert_settled()


def answer_of_all(responses: list[Response]) -> list[list[list[float]]]:
    return [response.array("y").tolist() for response in responses]


async def test_a_leader_that_left_and_expired_is_counted_nowhere(gather: Gather, clock: ManualClock) -> None:
    crowd = gather()
    leader, other = crowd.lead(within_s=0.1), crowd.join(within_s=60.0)
    first = await started(crowd.replica)
    leader.cancel()
    clock.advance(0.2)
    await eventually(lambda: crowd.pool.waiting == 1)
    assert crowd.counted() == (0, {})
    assert crowd.metrics.fail_s == pytest.approx(0.0)
    crowd.replica.finish()
    await eventually(lambda: crowd.replica.batch is not first and crowd.replica.batch)
    crowd.replica.finish()
    await other
    assert crowd.counted() == (1, {})
    crowd.assert_settled()


async def test_who_is_over_time_when_the_leader_fails_does_not_lead(
    metrics: VersionMetrics, clock: ManualClock
) -> None:
    levels = Levels(metrics, clock)
    leader, other = levels.ask(1), levels.ask(1)
    clock.advance(6.0)
    levels.asked[0][1].set_exception(SalverError("DEADLINE_EXCEEDED", "late"))
    await turn()
    assert (code_of(leader), code_of(other)) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")
    assert len(levels.asked) == 1
    assert metrics.failures == {"DEADLINE_EXCEEDED": 1}, "the leader's is counted by who failed it"
    assert levels.flights.under_way == 0


async def test_who_cannot_lead_anew_is_told_why(gather: Gather, clock: ManualClock) -> None:
    crowd = gather()
    leader, others = crowd.lead(within_s=0.1), [crowd.join(within_s=60.0) for _ in range(3)]
    await started(crowd.replica)
    crowd.pool._unavailable = SalverError("NOT_READY", "no worker is left")
    clock.advance(0.2)
    await eventually(leader.done)
    await asyncio.wait(others)
    assert [code_of(each) for each in others] == ["NOT_READY"] * 3
    assert crowd.counted() == (0, {"DEADLINE_EXCEEDED": 1, "NOT_READY": 3})
    crowd.replica.finish()
    await turn()
    crowd.assert_settled()


class Levels:
    """Flights over three priority levels, to a service that the test answers for."""

    def __init__(self, metrics: VersionMetrics, clock: ManualClock) -> None:
        self.asked: list[tuple[Request, asyncio.Future[Response]]] = []
        bounds = queue_bounds(make_spec(priorities=(QueuePolicy(deadline_s=5.0), QueuePolicy(), QueuePolicy())))
        self.flights = Flights(self._service, metrics, clock, lambda *_: CacheNote("miss"), bounds)

    def _service(self, request: Request) -> asyncio.Future[Response]:
        self.asked.append((request, asyncio.get_running_loop().create_future()))
        return self.asked[-1][1]

    def ask(self, priority: int) -> asyncio.Future[Response]:
        request = make_request([[1, 1]], priority=priority, received_s=1000.0)
        flight = self.flights.find(KEY, request)
        return self.flights.lead(KEY, request) if flight is None else self.flights.join(flight, request)


async def test_the_most_urgent_leads_anew(metrics: VersionMetrics, clock: ManualClock) -> None:
    levels = Levels(metrics, clock)
    leader, last, middle = levels.ask(1), levels.ask(3), levels.ask(0)
    for refused, chosen in ((leader, 0), (middle, 3)):
        levels.asked[-1][1].set_exception(SalverError("QUEUE_FULL", "pushed out"))
        await turn()
        assert code_of(refused) == "QUEUE_FULL"
        assert levels.asked[-1][0].priority == chosen
    levels.asked[-1][1].cancel()
    await turn()
    assert code_of(last) == "INTERNAL", "nobody waits for ever, whatever the service does"


async def test_who_is_more_urgent_waits_behind_nobody_less_so(metrics: VersionMetrics, clock: ManualClock) -> None:
    levels = Levels(metrics, clock)
    waiting = [levels.ask(priority) for priority in (3, 3, 0, 2, 9, 1, 1)]
    assert [request.priority for request, _ in levels.asked] == [3, 0, 1], "0 is the middle one of three"
    for each in waiting:
        each.cancel()
    await turn()
    assert levels.flights.under_way == 0


async def test_who_joins_has_no_longer_than_its_level_gives(metrics: VersionMetrics, clock: ManualClock) -> None:
    levels = Levels(metrics, clock)
    leader, other = levels.ask(1), levels.ask(1)
    clock.advance(5.1)
    levels.flights._look()
    assert code_of(other) == "DEADLINE_EXCEEDED"
    assert not leader.done(), "the leader's deadline is the queue's business"
    leader.cancel()


async def test_of_two_flights_with_one_key_the_newer_is_joined_and_kept(gather: Gather) -> None:
    crowd = gather()
    older, with_older = crowd.lead(1.0), crowd.join(1.0)
    await started(crowd.replica)
    newer = crowd.lead(2.0)
    with_newer = crowd.join(2.0)
    crowd.replica.finish()
    await older
    assert crowd.kept == []
    await started(crowd.replica)
    crowd.replica.finish()
    await newer
    assert answer_of(with_older) == [[3, 3]]
    assert answer_of(with_newer) == [[5, 5]]
    assert [response.array("y").tolist() for _, response in crowd.kept] == [[[5, 5]]]
    crowd.assert_settled()


async def test_whoever_has_been_answered_is_freed_at_once(gather: Gather) -> None:
    crowd = gather()
    gc.collect()
    gc.disable()
    try:
        leader, other, leaving = crowd.lead(), crowd.join(), crowd.join()
        gone = [weakref.ref(each) for each in (leader, other, leaving, crowd.flights._newest[KEY].run)]
        await started(crowd.replica)
        leaving.cancel()
        crowd.replica.finish()
        await asyncio.gather(leader, other)
        crowd.replica.started.clear()
        del leader, other, leaving
        await turn()
        assert [ref() for ref in gone] == [None] * 4
    finally:
        gc.enable()
