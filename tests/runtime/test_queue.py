from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runtime.waiting import entry, leave

from salver.runtime.batch import Entry
from salver.runtime.queue import Bounds, WaitingQueue

ONE = Bounds(1)


def filled(*entries: Entry, levels: int = 1) -> WaitingQueue:
    queue = WaitingQueue(levels)
    for one in entries:
        queue.append(one)
    return queue


def sent(text: str, **more: object) -> list[Entry]:
    """One row of each tenant named, in this order."""
    return [entry(tenant=tenant, at_s=at, **more) for at, tenant in enumerate(text)]


def served(queue: WaitingQueue, bounds: Bounds = ONE) -> str:
    """The tenants in the order in which they run, batches apart."""
    batches = iter(lambda: queue.take(bounds), [])
    return " ".join("".join(one.request.tenant for one in batch) for batch in batches)


# Levels.


def test_a_more_urgent_level_goes_first_and_the_others_fill_what_it_leaves() -> None:
    queue = filled(
        *(entry(tenant=tenant, level=level) for tenant, level in (("c", 2), ("a", 0), ("b", 1), ("a", 0))), levels=3
    )
    assert served(queue, Bounds(3)) == "aab c"


def test_a_full_batch_leaves_no_room_for_a_small_request_of_a_lower_level() -> None:
    queue = filled(entry(2, tenant="a"), entry(2, tenant="a"), entry(1, tenant="b", level=1), levels=2)
    assert served(queue, Bounds(3)) == "a ab"


def test_each_level_counts_its_own() -> None:
    queue = filled(entry(), entry(level=1), entry(level=1), levels=2)
    assert [queue.waiting(level) for level in (0, 1)] == [1, 2]
    assert [queue.cost_until(level) for level in (0, 1)] == [1, 3]
    queue.take(Bounds(2))
    assert [queue.waiting(level) for level in (0, 1)] == [0, 1]


def test_the_oldest_is_told_for_each_level() -> None:
    early, late = entry(at_s=1.0, level=1), entry(at_s=2.0, level=1)
    queue = filled(entry(at_s=0.0), early, late, levels=3)
    assert [queue.oldest_s(level) for level in range(3)] == [0.0, 1.0, None]
    leave(early)
    assert queue.oldest_s(1) == 2.0


def test_callers_who_have_left_a_lower_level_are_counted_off_when_a_batch_passes_them() -> None:
    gone, large = entry(level=1), entry(5, level=1)
    queue = filled(entry(), gone, large, levels=2)
    leave(gone)
    assert len(queue.take(Bounds(2))) == 1
    assert (len(queue), queue.waiting(1)) == (1, 1)


# Tenants.


@pytest.mark.parametrize(
    ("came", "ran"),
    [
        ("aaaaaab", "abaaaaa"),  # who sends one waits for one
        ("aaabbb", "ababab"),
        ("abcabc", "abcabc"),
        ("aaaabc", "abcaaa"),
        ("baaa", "baaa"),
    ],
)
def test_tenants_take_turns(came: str, ran: str) -> None:
    assert served(filled(*sent(came))).replace(" ", "") == ran


def test_who_sends_dear_requests_has_fewer_of_them_served() -> None:
    dear = [entry(cost=3, tenant="a", at_s=at) for at in range(3)]
    cheap = [entry(cost=1, tenant="b", at_s=at + 0.5) for at in range(9)]
    assert served(filled(*dear, *cheap)).replace(" ", "") == "abbbabbbabbb"


def test_within_one_batch_tenants_are_served_alike() -> None:
    assert served(filled(*sent("aaaaaabb")), Bounds(4)) == "abab aaaa"


def test_who_comes_late_is_not_repaid_for_the_time_in_which_it_asked_nothing() -> None:
    queue = filled(*sent("aaaaaaaa"))
    for _ in range(4):
        queue.take(ONE)
    for at in range(4):
        queue.append(entry(tenant="b", at_s=10 + at))
    assert served(queue).replace(" ", "") == "babababa"


def test_who_comes_back_is_not_repaid_either() -> None:
    queue = filled(*sent("baaaaaa"))
    for _ in range(4):
        queue.take(ONE)
    queue.append(entry(tenant="b", at_s=10))
    queue.append(entry(tenant="b", at_s=11))
    assert served(queue).replace(" ", "") == "babaa"


def test_when_nobody_waits_all_are_equal_again() -> None:
    queue = filled(*sent("aab"))
    queue.take(Bounds(3))
    assert queue.take(ONE) == []
    for one in sent("ab"):
        queue.append(one)
    assert served(queue) == "a b"


@pytest.mark.parametrize("passed_over", [False, True])
def test_requests_that_did_not_run_cost_their_tenant_nothing(passed_over: bool) -> None:
    abandoned = sent("a" * 50)
    queue = filled(entry(tenant="c"), *abandoned, entry(tenant="b", at_s=60))
    for one in abandoned:
        leave(one)
    if not passed_over:
        queue.drop_done()
    queue.take(ONE)
    for at in range(3):
        for tenant in "ab":
            queue.append(entry(tenant=tenant, at_s=70 + at))
    ran = served(queue).replace(" ", "")
    assert sorted(ran[:4]) == ["a", "a", "b", "b"], ran


COSTS = st.lists(st.integers(1, 9), min_size=40, max_size=60)


@given(
    COSTS, COSTS, st.lists(st.tuples(st.integers(1, 8), st.integers(0, 3)), max_size=40), st.sets(st.integers(0, 39))
)
def test_two_tenants_that_both_wait_are_served_the_same_but_for_one_request_each(
    costs_a: list[int], costs_b: list[int], turns: list[tuple[int, int]], leaves: set[int]
) -> None:
    """The bound of start-time fair queueing, over any interval in which both have something waiting."""
    queue = WaitingQueue()
    came = itertools.count()
    waiting = {
        tenant: [entry(cost=cost, tenant=tenant, at_s=next(came)) for cost in costs]
        for tenant, costs in (("a", costs_a), ("b", costs_b))
    }
    for one in (*waiting["a"], *waiting["b"]):
        queue.append(one)
    for number in leaves:
        leave(waiting["a"][number])
    had, differences = {"a": 0, "b": 0}, [0]
    for rows, others in turns:
        for _ in range(others):
            queue.append(entry(tenant="c", at_s=next(came)))
        for one in queue.take(Bounds(rows)):
            tenant = one.request.tenant
            if tenant in had:
                had[tenant] += one.cost
                waiting[tenant].remove(one)
            if not all(any(not other.answer.done() for other in each) for each in waiting.values()):
                return
            differences.append(had["a"] - had["b"])
    assert max(differences) - min(differences) <= max(costs_a) + max(costs_b) + 1


def test_the_memory_of_tenants_is_bounded_although_somebody_always_waits() -> None:
    queue = filled(entry(tenant="x", cost=10**6), entry(tenant="x"))
    queue.take(ONE)
    for number in range(5000):
        queue.append(entry(tenant=f"t{number}"))
        queue.take(ONE)
        assert len(queue._levels[0].shares) <= 2 * 256 + 2
    assert queue.take(ONE)[0].request.tenant == "x"


def test_a_thousand_tenants_that_all_wait_are_all_remembered() -> None:
    queue = WaitingQueue()
    for at in range(2):
        for number in range(1000):
            queue.append(entry(tenant=f"t{number}", at_s=at))
    first = [one.request.tenant for one in queue.take(Bounds(1000))]
    assert sorted(first) == sorted({f"t{number}" for number in range(1000)})
    assert queue.push_out(0, "new", 1) is None, "nobody has queued more than the newcomer would"
    queue.append(entry(tenant="t5", at_s=2))
    queue.append(entry(tenant="t5", at_s=3))
    pushed = queue.push_out(0, "new", 1)
    assert pushed is not None
    assert (pushed.request.tenant, pushed.enqueued_s) == ("t5", 3)


# What is ahead of a newcomer.


@pytest.mark.parametrize(
    ("waits", "tenant", "cost"),
    [
        ("", "a", 0),
        ("aaa", "a", 3),
        ("aaa", "b", 1),  # one, and then it is b's turn
        ("abc", "d", 3),
        ("aaaaab", "b", 3),  # two of a, and the one of b
    ],
)
def test_what_runs_before_a_newcomer(waits: str, tenant: str, cost: float) -> None:
    assert filled(*sent(waits)).cost_ahead(0, tenant) == cost


def test_all_of_more_urgent_levels_is_ahead() -> None:
    queue = filled(*sent("aaa"), *sent("bb", level=1), entry(level=2), levels=3)
    assert [queue.cost_ahead(level, "c") for level in range(3)] == [1, 4, 6]


@given(st.text("abcd", max_size=30), st.integers(0, 15), st.sampled_from("abcde"))
def test_for_requests_of_one_cost_it_is_what_does_run_before(came: str, taken: int, tenant: str) -> None:
    queue = filled(*sent(came))
    for _ in range(taken):
        queue.take(ONE)
    expected = queue.cost_ahead(0, tenant)
    newcomer = entry(tenant=tenant, at_s=1000)
    queue.append(newcomer)
    before = itertools.takewhile(lambda batch: batch != [newcomer], iter(lambda: queue.take(ONE), []))
    assert expected == sum(1 for _ in before)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=30), st.sampled_from("abcd"))
def test_for_others_it_is_that_within_one_request_of_each_tenant(came: list[tuple[str, int]], tenant: str) -> None:
    queue = filled(*(entry(tenant=name, cost=cost, at_s=at) for at, (name, cost) in enumerate(came)))
    expected = queue.cost_ahead(0, tenant)
    newcomer = entry(tenant=tenant, at_s=1000)
    queue.append(newcomer)
    before = itertools.takewhile(lambda batch: batch != [newcomer], iter(lambda: queue.take(ONE), []))
    assert abs(expected - sum(one.cost for batch in before for one in batch)) <= 3 * 9


# Room for others.


@pytest.mark.parametrize(
    ("waits", "tenant", "pushed"),
    [
        ("aaaa", "b", 3),  # the last of a
        ("aaaa", "a", None),  # its own would be no better
        ("aaab", "b", 2),
        ("aab", "b", None),  # both would then have two
        ("aabb", "c", 1),
        ("ab", "c", None),
        ("", "a", None),
    ],
)
def test_who_has_queued_most_makes_room(waits: str, tenant: str, pushed: int | None) -> None:
    entries = sent(waits)
    queue = filled(*entries)
    found = queue.push_out(0, tenant, 1)
    assert found is (None if pushed is None else entries[pushed])
    assert len(queue) == len(waits) - (pushed is not None)
    assert found not in list(queue)


def test_the_last_of_several_classes_makes_room() -> None:
    entries = [entry(tenant="a", shape=shape, at_s=at) for at, shape in enumerate("xyxyx")]
    queue = filled(*entries)
    assert [queue.push_out(0, "b", 1) for _ in range(3)] == entries[:1:-1]


# Classes, and requests alone.


def test_taken_one_by_one_they_come_in_the_order_of_tenants_whatever_their_class() -> None:
    entries = [entry(tenant=tenant, shape=shape, at_s=at) for at, (tenant, shape) in enumerate(["ax", "ay", "bx"])]
    queue = filled(*entries)
    assert [queue.take_one() for _ in range(4)] == [[entries[0]], [entries[2]], [entries[1]], []]


def test_what_gathers_is_what_can_run_together() -> None:
    queue = filled(
        entry(2, cost=5, at_s=1.0, shape="x", deadline_s=9.0),
        entry(1, cost=1, at_s=2.0, shape="y", deadline_s=3.0),
        entry(1, cost=2, at_s=3.0, shape="x", deadline_s=7.0, level=1),
        levels=2,
    )
    assert queue.gathering() == (3, 7, 1.0, 7.0)
    assert WaitingQueue().gathering() is None
