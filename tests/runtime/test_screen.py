from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from salver.protocol.profile import FeatureProfile, InputProfile, Profile
from salver.protocol.request import Request
from salver.protocol.signature import Signature, TensorSpec
from salver.runtime.batch import Entry
from salver.runtime.screen import ProfileScreen
from salver.testing import make_manifest


def profile(*ranges: tuple[float, float], name: str = "x") -> Profile:
    return Profile((InputProfile(name, 10, tuple(FeatureProfile(low, high, 0, 0, 0) for low, high in ranges)),))


def screened(datatype: str, ranges: Profile, values: Any, rows: list[int], shape: tuple[int, ...] = (-1, 2)) -> Any:
    signature = Signature((TensorSpec("x", datatype, shape),), (TensorSpec("y", "FP32", (-1,)),))
    screen = ProfileScreen(make_manifest(signature=signature, profile=ranges))
    entries: list[Any] = [Entry(Request("e", {}, rows=count), None, 0.0, 1) for count in rows]  # type: ignore[arg-type]
    return [(entries.index(entry), message) for entry, message in screen.outside(entries, {"x": np.asarray(values)})]


def test_each_request_hears_of_its_own_rows_only() -> None:
    values = [[1, 1], [1, 9], [1, 1], [-1, 9], [7, 7]]
    found = screened("FP32", profile((0, 5), (0, 5)), values, [1, 2, 2])
    assert [at for at, _ in found] == [1, 2]
    assert found[0][1] == (
        "1 values of input 'x' lie outside the training data, the first in row 0, feature 1: 9 is not in [0, 5]"
    )
    assert found[1][1].startswith("4 values")


def test_the_borders_belong_to_the_range_in_the_inputs_own_precision() -> None:
    tenth = np.array([[0.1, 0.3]], np.float32)
    assert screened("FP32", profile((0.1, 0.1), (0.3, 0.3)), tenth, [1]) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_outside_everything(value) -> None:
    whole = profile((-1e308, 1e308), (-1e308, 1e308))
    assert len(screened("FP64", whole, [[0, value]], [1])) == 1


def test_integers_are_compared_as_they_are() -> None:
    values = np.array([[2**40, -(2**40)]], np.int64)
    assert screened("INT64", profile((0, 2**40), (-(2**40), 0)), values, [1]) == []
    assert len(screened("INT64", profile((0, 2**40 - 1), (-(2**40), 0)), values, [1])) == 1


def test_without_a_profile_there_is_nothing_to_do() -> None:
    assert not ProfileScreen(make_manifest())
    assert ProfileScreen(make_manifest(profile=profile((0, 1), (0, 1))))


def test_an_input_that_was_not_sent_is_not_judged() -> None:
    screen = ProfileScreen(make_manifest(profile=profile((0, 1), (0, 1))))
    assert list(screen.outside([], {})) == []
