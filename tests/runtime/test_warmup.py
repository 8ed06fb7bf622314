from __future__ import annotations

import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.profile import FeatureProfile, InputProfile, Profile
from salver.protocol.signature import Signature, TensorSpec
from salver.runtime.warmup import example_inputs, warm_up
from salver.testing import SIGNATURE, ComputableModel, ManualClock


def test_examples_are_the_training_means_where_they_are_known() -> None:
    profile = Profile((InputProfile("x", 9, (FeatureProfile(0, 9, 4.5, 1, 0), FeatureProfile(0, 1, 0.25, 1, 0))),))
    assert example_inputs(SIGNATURE, profile, 3)["x"].tolist() == [[4.5, 0.25]] * 3
    assert example_inputs(SIGNATURE, None, 1)["x"].tolist() == [[0, 0]]


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


def test_batches_grow_until_the_largest_or_until_the_time_is_spent() -> None:
    clock = ManualClock()
    model = ComputableModel()
    curve = warm_up(model, SIGNATURE, None, 5, clock)
    assert [len(batch) for batch in model.batches] == [1] * 5 + [2] * 5 + [4] * 5
    assert curve.points().keys() == {1, 3, 7}
    slow = ComputableModel()
    slow.answer = lambda outputs: clock.advance(0.1) or outputs
    curve = warm_up(slow, SIGNATURE, None, 256, clock)
    assert [len(batch) for batch in slow.batches] == [1, 1, 1]
    assert curve.predict(1) == pytest.approx(0.1)


def test_the_first_run_of_a_size_is_not_measured() -> None:
    clock, model = ManualClock(), ComputableModel()
    pauses = iter([5.0, 0.001])
    model.answer = lambda outputs: clock.advance(next(pauses)) or outputs
    assert warm_up(model, SIGNATURE, None, 1, clock).predict(1) == pytest.approx(0.001)


def test_without_a_batch_dimension_one_size_is_all() -> None:
    model = ComputableModel()
    whole = Signature((TensorSpec("x", "FP32", (1, 2)),), (TensorSpec("y", "FP32", (1, 2)),))
    warm_up(model, whole, None, 256, ManualClock())
    assert len(model.batches) == 5


def test_a_model_that_raises_on_invented_rows_is_not_judged_by_it() -> None:
    model = ComputableModel()

    def refuse(_: object) -> None:
        raise ValueError("zeros are no image")

    model.answer = refuse
    assert warm_up(model, SIGNATURE, None, 4, ManualClock()).predict(1) is None


def test_wrong_answers_are_found_before_anybody_asks() -> None:
    model = ComputableModel()
    model.answer = lambda outputs: {"y": outputs["y"].astype(np.float64)}
    with pytest.raises(SalverError, match="is float64, declared FP32"):
        warm_up(model, SIGNATURE, None, 4, ManualClock())
