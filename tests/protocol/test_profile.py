from __future__ import annotations

import msgspec
import numpy as np
import pytest

from salver.protocol.errors import SalverError
from salver.protocol.profile import Profile
from salver.protocol.signature import Signature, TensorSpec

OUT = (TensorSpec("y", "FP32", (-1,)),)


def signature(*inputs: TensorSpec) -> Signature:
    return Signature(inputs, OUT)


PAIR = signature(TensorSpec("x", "FP64", (-1, 2)))


def test_each_feature_is_measured() -> None:
    (found,) = Profile.measure(np.array([[1.0, np.nan], [3.0, 5.0]]), PAIR).inputs
    assert (found.input, found.rows) == ("x", 2)
    first, second = found.features
    assert (first.low, first.high, first.mean, first.std, first.missing) == (1, 3, 2, 1, 0)
    assert (second.low, second.high, second.mean, second.std, second.missing) == (5, 5, 5, 0, 1)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_values_are_refused_by_place(value: float) -> None:
    with pytest.raises(SalverError, match="1 values of the profile's rows are infinite, the first in row 1, feature 0"):
        Profile.measure(np.array([[1.0, 2.0], [value, 3.0]]), PAIR)


@pytest.mark.parametrize(
    "rows",
    [
        [[1.7e308, -1.7e308], [1.7e308, 1.7e308], [-1.7e308, 0.0]],
        [[5e-324, 1e150], [0.0, -1e150]],
        [[np.nan, np.nan]],
    ],
)
def test_whatever_was_measured_can_be_stored(rows: list[list[float]]) -> None:
    profile = Profile.measure(np.array(rows), PAIR)
    assert msgspec.json.decode(msgspec.json.encode(profile), type=Profile) == profile


def test_large_values_have_the_mean_and_spread_they_should() -> None:
    (found,) = Profile.measure(np.array([[1e300, 1.0], [3e300, 2.0]]), PAIR).inputs
    assert found.features[0].mean == pytest.approx(2e300)
    assert found.features[0].std == pytest.approx(1e300)


def test_integers_and_images_are_measured_too() -> None:
    image = signature(TensorSpec("text", "BYTES", (-1, 4)), TensorSpec("image", "UINT8", (-1, 2, 2)))
    (found,) = Profile.measure(np.arange(8, dtype=np.uint8).reshape(2, 2, 2), image).inputs
    assert found.input == "image"
    assert [feature.low for feature in found.features] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("data", "inputs"),
    [
        (np.zeros((0, 2)), PAIR.inputs),  # no rows
        (np.zeros((3, 3)), PAIR.inputs),  # another width
        (np.array([["a", "b"]]), PAIR.inputs),  # no numbers
        (np.zeros((3, 2)), (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "FP32", (-1, 2)))),  # whose?
        (np.zeros((3, 2)), (TensorSpec("a", "FP16", (-1, 2)),)),
        (np.zeros((3, 2)), (TensorSpec("a", "FP32", (2,)),)),
        (np.zeros((3, 2)), (TensorSpec("a", "FP32", (-1, -1)),)),
    ],
)
def test_rows_that_belong_to_no_input_or_to_several_are_refused(data, inputs) -> None:
    with pytest.raises(SalverError, match="give at least one row of numbers") as raised:
        Profile.measure(data, signature(*inputs))
    assert raised.value.code == "INVALID_ARTIFACT"
