from __future__ import annotations

import numpy as np

from salver.protocol.signature import Signature
from salver.runtime.recent import InputsAtRest, RecentInputs, Sample
from salver.testing import make_manifest, make_request


def test_the_last_are_kept_one_a_second_at_most() -> None:
    recent = RecentInputs()
    for second in range(20):
        assert recent.due_s <= second
        recent.take(make_request([[second, 0]]), float(second))
        assert recent.due_s == second + 1
    kept = [int(sample.inputs["x"].numpy()[0, 0]) for sample in recent.samples()]
    assert kept == list(range(4, 20))


def test_they_are_bounded_in_bytes_and_large_ones_are_left_out() -> None:
    recent = RecentInputs()
    rows = 2**18 // 8
    for second in range(8):
        recent.take(make_request(np.full((rows, 2), second, np.float32)), float(second))
    assert sum(sample.size_bytes for sample in recent.samples()) == 2**20
    assert repr(recent) == f"<RecentInputs 4 in {2**20} bytes>"
    recent.take(make_request(np.zeros((rows + 1, 2), np.float32)), 9.0)
    assert len(recent.samples()) == 4


def test_what_is_kept_is_a_copy_that_holds_nothing_else() -> None:
    recent = RecentInputs()
    message = bytearray(make_request([[1, 2]]).inputs["x"].data)
    request = make_request([[0, 0]])
    tensor = request.inputs["x"]
    request.inputs["x"] = type(tensor)("x", tensor.datatype, tensor.shape, memoryview(message))
    recent.take(request, 0.0)
    message[:] = bytes(len(message))
    (sample,) = recent.samples()
    assert sample.inputs["x"].numpy().tolist() == [[1, 2]]


SIGNATURE = Signature((), ())


def samples(size: int, count: int = 1) -> tuple[Sample, ...]:
    return (Sample({}, 1, size),) * count


def test_what_is_at_rest_is_given_back_once_and_to_the_same_signature() -> None:
    rest = InputsAtRest()
    rest.keep("a", SIGNATURE, samples(1))
    rest.keep("a", SIGNATURE, samples(2))
    assert rest.take("b", SIGNATURE) == ()
    assert rest.take("a", SIGNATURE) == samples(2)
    assert rest.take("a", SIGNATURE) == ()
    rest.keep("a", make_manifest().signature, samples(3))
    assert rest.take("a", SIGNATURE) == ()
    rest.keep("a", SIGNATURE, samples(4))
    rest.forget("a")
    assert rest.take("a", SIGNATURE) == ()
    assert repr(rest) == "<InputsAtRest of 0 endpoints in 0 bytes>"


def test_what_is_at_rest_is_bounded_over_all_endpoints_and_the_oldest_make_room() -> None:
    rest = InputsAtRest()
    for number in range(40):
        rest.keep(f"e{number}", SIGNATURE, samples(2**18 - 1024, 4))
    assert repr(rest) == f"<InputsAtRest of 16 endpoints in {2**24} bytes>"
    assert [number for number in range(40) if rest.take(f"e{number}", SIGNATURE)] == list(range(24, 40))
