from __future__ import annotations

from typing import Any

import pytest

from salver.protocol.signature import Signature, TensorSpec
from salver.runtime.batch import Entry
from salver.runtime.batcher import Batcher
from salver.runtime.curve import Measured, ServiceCurve
from salver.testing import FREE_WIDTH, SIGNATURE, make_manifest, make_request, make_spec


class Answer:
    """As much of a future as a batcher looks at."""

    def __init__(self) -> None:
        self.gone = False

    def done(self) -> bool:
        return self.gone


def entry(
    rows: int = 1,
    *,
    cost: int | None = None,
    at_s: float = 0.0,
    shape: object = None,
    deadline_s: float = float("inf"),
) -> Entry:
    answer: Any = Answer()
    request = make_request([[0, 0]] * rows, deadline_s=deadline_s)
    return Entry(request, answer, at_s, rows if cost is None else cost, shape)


def leave(one: Entry) -> None:
    answer: Any = one.answer
    answer.gone = True


def batcher(*entries: Entry, signature: Signature = SIGNATURE, curve: Any = None, **spec: Any) -> Batcher:
    found = Batcher(make_spec(**spec), make_manifest(signature=signature), curve or ServiceCurve())
    found.queue.extend(entries)
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
        order.append("".join(str(one.shape_key) for one in batch))
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
    queue = found.queue
    found.drop_done()
    assert found.queue is queue
    assert list(queue) == [entries[0], entries[2]]


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


@pytest.mark.parametrize(
    ("rows", "spec", "now_s", "hold_s"),
    [
        ([1], {}, 0.0, 0.0),  # no wait is asked for
        ([1], {"max_wait_s": 0.01}, 0.0, 0.01),
        ([1], {"max_wait_s": 0.01}, 0.004, 0.006),
        ([1], {"max_wait_s": 0.01}, 0.01, 0.0),  # the oldest has waited
        ([1, 1, 2], {"max_wait_s": 0.01, "max_batch": 4}, 0.0, 0.0),  # full
        ([1, 1, 2], {"max_wait_s": 0.01, "max_cost": 4}, 0.0, 0.0),  # full by cost
        ([], {"max_wait_s": 0.01}, 0.0, 0.0),
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
    found = batcher(*(entry(deadline_s=each) for each in deadlines_s), curve=curve, max_wait_s=2.0)
    assert hold_s - 0.03 <= found.hold_s(now_s) <= hold_s
    assert bool(found.cut(now_s)) == (hold_s == 0)


def test_who_has_left_hurries_nobody() -> None:
    entries = [entry(), entry(deadline_s=0.1)]
    found = batcher(*entries, max_wait_s=1.0)
    assert found.hold_s(0.0) < 0.1
    leave(entries[1])
    assert found.hold_s(0.0) == 1.0


def test_who_has_left_does_not_make_a_batch_full() -> None:
    entries = [entry(), entry()]
    found = batcher(*entries, max_wait_s=0.01, max_batch=2)
    leave(entries[1])
    assert found.hold_s(0.0) == 0.01


def test_what_may_share_a_batch_is_decided_by_shape_and_presence() -> None:
    found = batcher(signature=FREE_WIDTH)
    assert not found.uniform
    narrow, wide = make_request([[1, 2]]), make_request([[1, 2, 3]])
    assert found.shape_key(narrow) == found.shape_key(make_request([[5, 6], [7, 8]])) != found.shape_key(wide)
    assert batcher().uniform
    optional = Signature((TensorSpec("x", "FP32", (-1, 2), optional=True),), SIGNATURE.outputs)
    assert not batcher(signature=optional).uniform


def test_cost_is_the_size_of_the_named_input_or_the_rows() -> None:
    found = Batcher(make_spec(), make_manifest(cost="x"), ServiceCurve())
    assert found.costed
    assert found.cost(make_request([[1, 2], [3, 4]])) == 4
    request = make_request([[1, 2]])
    request.inputs.clear()
    assert found.cost(request) == 1
