from __future__ import annotations

from typing import Any

import pytest
from tests.runtime.waiting import Answer, entry, leave

from salver.protocol.signature import Signature
from salver.protocol.tables import BatchPolicy, QueuePolicy
from salver.runtime.batch import Entry
from salver.runtime.batcher import Batcher
from salver.runtime.curve import Measured, ServiceCurve
from salver.testing import FREE_WIDTH, SIGNATURE, make_manifest, make_request, make_spec


def batcher(*entries: Entry, signature: Signature = SIGNATURE, curve: Any = None, **spec: Any) -> Batcher:
    found = Batcher(make_spec(**spec), make_manifest(signature=signature), curve or ServiceCurve())
    for one in entries:
        found.queue.append(one)
    return found


def cuts(found: Batcher, now_s: float = 0.0) -> list[int]:
    sizes = []
    while batch := found.cut(now_s):
        sizes.append(len(batch))
    return sizes


@pytest.mark.parametrize(
    ("rows", "max_batch", "sizes"),
    [
        ([1, 1, 1], 256, [3]),  # everything at once
        ([1, 1, 1], 2, [2, 1]),
        ([2, 2, 1], 3, [1, 2]),  # never split, never reordered
        ([3, 1, 3], 3, [1, 1, 1]),
        ([1] * 10, 1, [1] * 10),
    ],
)
def test_batches_are_as_large_as_may_be_in_order(rows, max_batch, sizes) -> None:
    assert cuts(batcher(*map(entry, rows), max_batch=max_batch)) == sizes


@pytest.mark.parametrize(
    ("costs", "max_cost", "sizes"),
    [
        ([5, 5, 5], 10, [2, 1]),
        ([50, 1, 1], 10, [1, 2]),  # what exceeds the bound runs alone
        ([1, 50, 1], 10, [1, 1, 1]),
        ([5, 5, 5], 0, [3]),  # no bound
    ],
)
def test_batches_keep_to_the_cost(costs, max_cost, sizes) -> None:
    assert cuts(batcher(*(entry(cost=cost) for cost in costs), max_cost=max_cost)) == sizes


def test_other_shapes_keep_their_places() -> None:
    shapes = "abacb"
    found = batcher(*(entry(shape=shape) for shape in shapes), signature=FREE_WIDTH)
    order = []
    while batch := found.cut(0.0):
        order.append("".join(str(one.class_key) for one in batch))
    assert order == ["aa", "bb", "c"]


def test_who_has_left_takes_no_room() -> None:
    entries = [entry() for _ in range(4)]
    found = batcher(*entries, max_batch=2)
    leave(entries[0])
    leave(entries[2])
    assert found.cut(0.0) == [entries[1], entries[3]]
    assert len(found) == 0


def test_who_has_left_is_forgotten() -> None:
    entries = [entry() for _ in range(3)]
    found = batcher(*entries)
    leave(entries[1])
    found.queue.drop_done()
    assert list(found.queue) == [entries[0], entries[2]]
    assert len(found) == 2


def test_halves_come_first_and_in_order() -> None:
    found = batcher()
    entries = [entry() for _ in range(5)]
    found.halve(entries)
    assert len(found) == 5
    assert found.cut_again() == entries[:2]
    found.halve(entries[:2])
    assert [found.cut_again() for _ in range(4)] == [entries[:1], entries[1:2], entries[2:], []]


def test_a_half_whose_callers_have_left_is_skipped() -> None:
    found = batcher()
    entries = [entry() for _ in range(4)]
    found.halve(entries)
    leave(entries[0])
    leave(entries[1])
    assert found.cut_again() == entries[2:]


WAITS: dict[str, Any] = {"policy": BatchPolicy.TIMEOUT, "max_wait_s": 0.01}


@pytest.mark.parametrize(
    ("rows", "spec", "now_s", "hold_s"),
    [
        ([1], {}, 0.0, 0.0),  # no wait is asked for
        ([1], WAITS, 0.0, 0.01),
        ([1], WAITS, 0.004, 0.006),
        ([1], WAITS, 0.01, 0.0),  # the oldest has waited
        ([1, 1, 2], {**WAITS, "max_batch": 4}, 0.0, 0.0),  # full
        ([1, 1, 2], {**WAITS, "max_cost": 4}, 0.0, 0.0),  # full by cost
        ([], WAITS, 0.0, 0.0),
    ],
)
def test_the_wait_for_a_fuller_batch(rows, spec, now_s, hold_s) -> None:
    found = batcher(*map(entry, rows), **spec)
    assert found.hold_s(now_s) == pytest.approx(hold_s)
    assert bool(found.cut(now_s)) == (hold_s == 0 and bool(rows))


SECOND = Measured({1: 1.0})


@pytest.mark.parametrize(
    ("deadlines_s", "measured", "now_s", "hold_s"),
    [
        ([10.0], SECOND, 0.0, 2.0),  # there is time for the whole wait
        ([2.5], SECOND, 0.0, 1.5),  # less what the batch takes
        ([10.0, 2.5], SECOND, 0.0, 0.5),  # the most urgent one decides, and two rows take twice as long
        ([2.5], SECOND, 1.0, 0.5),
        ([2.5], SECOND, 1.5, 0.0),  # the last moment
        ([0.5], SECOND, 0.0, 0.0),  # too late already: at once, then
        ([2.0], None, 0.0, 1.0),  # nothing is known: half of the time is left to the batch
    ],
)
def test_nobody_is_kept_waiting_past_a_deadline(deadlines_s, measured, now_s, hold_s) -> None:
    curve = ServiceCurve.of(measured) if measured else ServiceCurve()
    found = batcher(
        *(entry(deadline_s=each) for each in deadlines_s), curve=curve, policy=BatchPolicy.TIMEOUT, max_wait_s=2.0
    )
    assert hold_s - 0.03 <= found.hold_s(now_s) <= hold_s
    assert bool(found.cut(now_s)) == (hold_s == 0)


def test_who_has_left_hurries_nobody() -> None:
    entries = [entry(), entry(deadline_s=0.1)]
    found = batcher(*entries, policy=BatchPolicy.TIMEOUT, max_wait_s=1.0)
    assert found.hold_s(0.0) < 0.1
    leave(entries[1])
    assert found.hold_s(0.1) == pytest.approx(0.9)


def test_who_has_left_does_not_make_a_batch_full() -> None:
    entries = [entry(), entry()]
    found = batcher(*entries, **WAITS, max_batch=2)
    leave(entries[1])
    assert found.hold_s(0.0) == 0.01


@pytest.mark.parametrize(
    ("levels", "by_priority"),
    [
        (0, [0, 0, 0, 0, 0]),
        (1, [0, 0, 0, 0, 0]),
        (2, [1, 0, 1, 1, 1]),
        (3, [1, 0, 1, 2, 2]),
        (4, [2, 0, 1, 2, 3]),
        (5, [2, 0, 1, 2, 3]),
    ],
)
def test_a_request_that_says_nothing_goes_to_the_middle_level_and_numbers_beyond_the_last_to_that(levels, by_priority):
    found = batcher(priorities=(QueuePolicy(),) * levels)
    assert [found.level_of(make_request([[0, 0]], priority=number)) for number in range(5)] == by_priority
    assert found.level_of(make_request([[0, 0]], priority=2**32 - 1)) == max(0, levels - 1)


PREDICTIVE: dict[str, Any] = {"policy": BatchPolicy.PREDICTIVE}
LINE = Measured({1: 0.011, 100: 0.11})


def come(found: Batcher, *times_s: float, rows: int = 1) -> None:
    answer: Any = Answer()
    for at_s in times_s:
        found.queue.append(found.entry(make_request([[0, 0]] * rows), answer, at_s))


def test_nobody_waits_for_a_second_request_before_there_ever_was_one() -> None:
    found = batcher(curve=ServiceCurve.of(LINE), **PREDICTIVE)
    come(found, 5.0)
    assert found.hold_s(5.0) == 0


def test_while_requests_come_fast_a_batch_is_held_and_no_longer_when_they_stop() -> None:
    found = batcher(curve=ServiceCurve.of(LINE), **PREDICTIVE)
    come(found, 5.0, 5.001)
    # 2 (g + 1 ms) < 10 ms - g until g is 8/3 ms.
    assert found.hold_s(5.001) == pytest.approx(0.008 / 3, rel=0.01)
    assert found.cut(5.001) == []
    assert found.hold_s(5.001 + 0.0027) == 0
    assert len(found.cut(5.001 + 0.0027)) == 2


def test_who_sends_many_rows_at_once_has_gaps_as_much_shorter() -> None:
    single, many = (batcher(curve=ServiceCurve.of(LINE), **PREDICTIVE) for _ in range(2))
    come(single, 5.0, 5.009)
    assert single.hold_s(5.009) == 0
    come(many, 5.0, 5.009, rows=3)
    assert many._gap_s == pytest.approx(0.003)


def test_where_requests_have_a_cost_one_row_more_costs_what_the_others_do() -> None:
    # 0.1 ms for each element, ten elements a row: the same line as above.
    found = Batcher(
        make_spec(**PREDICTIVE),
        make_manifest(signature=FREE_WIDTH, cost="x"),
        ServiceCurve.of(Measured({10: 0.011, 1000: 0.11})),
    )
    answer: Any = Answer()
    for at_s in (5.0, 5.001):
        found.queue.append(found.entry(make_request([[0] * 10]), answer, at_s))
    assert found.hold_s(5.001) == pytest.approx(0.008 / 3, rel=0.01)
