from __future__ import annotations

import json

import numpy as np
import pytest

from salver.loadgen.examples import example_request
from salver.protocol.codecs.oip_request import decode_json
from salver.protocol.errors import SalverError
from salver.protocol.profile import Profile
from salver.protocol.signature import Signature, TensorSpec

X = TensorSpec("x", "FP32", (-1, 2))
TRAINED = np.float32([[0.1, 5], [0.3, 5], [0.2, 5]])


def made(spec: TensorSpec, training: np.ndarray | None, rows: int, seed: int = 0) -> np.ndarray:
    """The one input of a made-up request, as a server reads it."""
    profile = None if training is None else Profile.measure(training, Signature((spec,), (spec,)))
    body = example_request([spec], profile, rows, np.random.default_rng(seed))
    return decode_json(body, 10**6).inputs[spec.name].numpy()


def test_rows_vary_about_the_training_means_and_stay_within_the_training_range() -> None:
    rows = made(X, TRAINED, 500)
    assert rows.shape == (500, 2)
    assert len(np.unique(rows[:, 0])) > 100
    assert rows[:, 0].min() >= np.float32(0.1)
    assert rows[:, 0].max() <= np.float32(0.3)
    assert abs(rows[:, 0].mean() - 0.2) < 0.02
    assert (rows[:, 1] == 5).all()


def test_the_same_seed_makes_the_same_rows() -> None:
    assert np.array_equal(made(X, TRAINED, 3, seed=7), made(X, TRAINED, 3, seed=7))
    assert not np.array_equal(made(X, TRAINED, 3, seed=7), made(X, TRAINED, 3, seed=8))


@pytest.mark.parametrize("datatype", ["UINT8", "INT32", "UINT64", "INT64"])
def test_whole_numbers_stay_whole_and_within_their_type(datatype: str) -> None:
    spec = TensorSpec("x", datatype, (-1, 2))
    end = np.iinfo(datatype.lower()).max
    rows = made(spec, np.array([[1, end], [9, end]], datatype.lower()), 100)
    assert set(rows[:, 0].tolist()) <= set(range(1, 10))
    assert len(set(rows[:, 0].tolist())) > 3
    assert (rows[:, 1] == end).all()


def test_without_a_profile_there_are_zeros_false_and_empty_texts() -> None:
    assert made(TensorSpec("x", "FP64", (-1, -1, 3)), None, 2).tolist() == [[[0, 0, 0]], [[0, 0, 0]]]
    inputs = [TensorSpec("b", "BOOL", (-1,)), TensorSpec("t", "BYTES", (2,))]
    tensors = json.loads(example_request(inputs, None, 1, np.random.default_rng(0)))["inputs"]
    assert [(tensor["shape"], tensor["data"]) for tensor in tensors] == [([1], [False]), ([2], ["", ""])]


def test_what_json_cannot_carry_is_refused() -> None:
    with pytest.raises(SalverError, match="FP16, which JSON cannot carry") as caught:
        example_request([TensorSpec("x", "FP16", (-1,))], None, 1, np.random.default_rng(0))
    assert caught.value.code == "WRONG_DATATYPE"
