from __future__ import annotations

import itertools

import numpy as np
import pytest

from salver.loadgen.arrivals import arrival_times
from salver.protocol.arrivals import Arrivals


def times(arrivals: Arrivals, count: int, seed: int = 0) -> np.ndarray:
    return np.array(list(itertools.islice(arrival_times(arrivals, 1000.0, 50.0, np.random.default_rng(seed)), count)))


def test_constant_times_gather_no_error():
    assert np.allclose(times(Arrivals.CONSTANT, 10_000), 50.0 + np.arange(10_000) / 1000.0, rtol=0, atol=1e-9)


def test_poisson_gaps_are_exponential():
    # For an exponential distribution mean and deviation are equal and a share 1/e lies above them;
    # five standard errors of each at this count.
    gaps = np.diff(times(Arrivals.POISSON, 50_001), prepend=50.0)
    assert (gaps > 0).all()
    assert gaps.mean() == pytest.approx(0.001, rel=5 / 50_001**0.5)
    assert gaps.std() == pytest.approx(0.001, rel=5 * 2**0.5 / 50_001**0.5)
    assert (gaps > 0.001).mean() == pytest.approx(np.exp(-1), abs=5 * 0.4823 / 50_001**0.5)


def test_a_seed_repeats_and_another_differs():
    assert np.array_equal(times(Arrivals.POISSON, 5000), times(Arrivals.POISSON, 5000))
    assert not np.array_equal(times(Arrivals.POISSON, 10), times(Arrivals.POISSON, 10, seed=1))
