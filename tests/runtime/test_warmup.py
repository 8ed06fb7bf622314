from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.profile import FeatureProfile, InputProfile, Profile
from salver.protocol.signature import Signature, TensorSpec
from salver.runtime import warmup
from salver.runtime.curve import Measured
from salver.runtime.model import Arrays
from salver.runtime.warmup import example_inputs, wants_warm_up, warm_up
from salver.testing import FREE_WIDTH, SIGNATURE, ComputableModel, ManualClock, make_manifest


def profile(*features: tuple[float, float, float]) -> Profile:
    """Of input `x`: lowest, highest and mean of each feature."""
    return Profile(
        (InputProfile("x", 9, tuple(FeatureProfile(low, high, mean, 1, 0) for low, high, mean in features)),)
    )


def warmed(model: ComputableModel, max_batch: int, clock: ManualClock | None = None, **changes: Any) -> Measured:
    return warm_up(model, make_manifest(**changes), max_batch, clock or ManualClock())


# Whether.


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, True),
        ({"format": "sklearn"}, True),
        ({"format": "sklearn", "trusts_code": True}, True),  # its estimator ran on zeros when it was registered
        ({"format": "python"}, False),
        ({"preprocess": "m:f"}, False),
        ({"postprocess": "m:f"}, False),
        ({"format": "python", "profile": profile((0, 1, 0.5))}, True),
        ({"format": "python", "warm_up": True}, True),
        ({"format": "python", "profile": profile((0, 1, 0.5)), "warm_up": False}, False),
        ({"warm_up": False}, False),
    ],
)
def test_users_functions_get_invented_rows_only_on_their_owners_word(changes, wanted: bool) -> None:
    assert wants_warm_up(make_manifest(**changes)) is wanted
    model = ComputableModel()
    measured = warmed(model, 1, **changes)
    assert (len(model.batches) > 0, bool(measured.points)) == (wanted, wanted)


# With what.


def test_examples_are_the_training_means_where_they_are_known() -> None:
    known = profile((0, 9, 4.5), (0, 1, 0.25))
    assert example_inputs(SIGNATURE, known, 3)["x"].tolist() == [[4.5, 0.25]] * 3
    assert example_inputs(SIGNATURE, None, 1)["x"].tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("datatype", "feature", "value"),
    [
        ("INT32", (1, 4, 2.6), 3),
        ("INT32", (-4, -1, -2.6), -3),
        ("UINT8", (1, 1, 0.9999999999), 1),
        ("FP32", (0.5, 0.5, 0.4999999999), 0.5),
        ("BOOL", (0, 1, 0.7), True),
    ],
)
def test_examples_are_whole_where_numbers_are_and_stay_within_the_training_values(datatype, feature, value) -> None:
    signature = Signature((TensorSpec("x", datatype, (-1, 1)),), SIGNATURE.outputs)
    assert example_inputs(signature, profile(feature), 2)["x"].tolist() == [[value]] * 2


def test_examples_are_read_only_as_requests_are() -> None:
    assert not example_inputs(SIGNATURE, None, 1)["x"].flags.writeable


def test_examples_fit_every_signature() -> None:
    signature = Signature(
        (
            TensorSpec("text", "BYTES", (-1, 2)),
            TensorSpec("free", "INT8", (-1, -1, 3)),
            TensorSpec("half", "FP16", (-1,)),
            TensorSpec("absent", "FP32", (-1,), optional=True),
        ),
        (TensorSpec("y", "FP32", (-1,)),),
    )
    found = example_inputs(signature, None, 4)
    assert {name: (array.shape, array.dtype.str) for name, array in found.items()} == {
        "text": ((4, 2), "|O"),
        "free": ((4, 1, 3), "|i1"),
        "half": ((4,), "<f2"),
    }
    whole = Signature((TensorSpec("x", "FP64", (2, -1)),), (TensorSpec("y", "FP32", (1,)),))
    assert example_inputs(whole, None, 5)["x"].shape == (2, 1)


# How long.


def test_batches_grow_until_the_largest_or_until_the_time_is_spent() -> None:
    clock = ManualClock()
    model = ComputableModel()
    measured = warmed(model, 5, clock)
    assert [len(batch) for batch in model.batches] == [1] * 5 + [2] * 5 + [4] * 5
    assert measured.points.keys() == {1, 2, 4}
    slow = ComputableModel()
    slow.answer = lambda outputs: clock.advance(0.1) or outputs
    measured = warmed(slow, 256, clock)
    assert [len(batch) for batch in slow.batches] == [1, 1, 1]
    assert measured.points[1] == pytest.approx(0.1)


def test_batches_do_not_grow_beyond_the_memory_they_may_take(monkeypatch) -> None:
    monkeypatch.setattr(warmup, "_LARGEST_BYTES", 2 * 2 * 4)
    model = ComputableModel()
    warmed(model, 256)
    assert {len(batch) for batch in model.batches} == {1, 2}


def test_the_first_run_of_a_size_is_no_measure_of_it_but_of_how_long_a_run_may_take() -> None:
    clock, model = ManualClock(), ComputableModel()
    pauses = iter([5.0, 0.001])
    model.answer = lambda outputs: clock.advance(next(pauses)) or outputs
    assert warmed(model, 1, clock) == Measured({1: pytest.approx(0.001)}, pytest.approx(5.0))


def test_rows_shorter_than_those_that_may_come_do_not_say_how_long_a_run_may_take() -> None:
    clock, model = ManualClock(), ComputableModel()
    model.answer = lambda outputs: clock.advance(0.001) or outputs
    measured = warmed(model, 1, clock, signature=FREE_WIDTH)
    assert (measured.points.keys(), measured.longest_s) == ({1}, 0.0)


def test_nor_do_empty_texts() -> None:
    clock = ManualClock()

    class Lengths(ComputableModel):
        def run(self, inputs: Arrays) -> Arrays:
            clock.advance(0.001)
            return {"y": np.array([[len(text), 0] for text in inputs["x"]], np.float32)}

    texts = Signature((TensorSpec("x", "BYTES", (-1,)),), SIGNATURE.outputs)
    measured = warmed(Lengths(), 1, clock, signature=texts)
    assert (measured.points.keys(), measured.longest_s) == ({1}, 0.0)


def test_without_a_batch_dimension_one_size_is_all() -> None:
    model = ComputableModel()
    whole = Signature((TensorSpec("x", "FP32", (1, 2)),), (TensorSpec("y", "FP32", (1, 2)),))
    warmed(model, 256, signature=whole)
    assert len(model.batches) == 5


# Answers.


def test_a_model_that_raises_on_invented_rows_is_not_judged_by_it() -> None:
    model = ComputableModel()

    def refuse(_: object) -> None:
        raise ValueError("zeros are no image")

    model.answer = refuse
    assert warmed(model, 4) == Measured(problem="on 1 invented rows: ValueError: zeros are no image")


def test_wrong_answers_are_found_before_anybody_asks() -> None:
    model = ComputableModel()
    model.answer = lambda outputs: {"y": outputs["y"].astype(np.float64)}
    with pytest.raises(SalverError, match="is float64, declared FP32"):
        warmed(model, 4)
