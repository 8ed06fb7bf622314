from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score

from salver.protocol.errors import SalverError
from salver.stats.delong import auc_interval, compare_aucs

scores = st.lists(st.integers(-5, 5), min_size=8, max_size=40)


def labelled(found: list[int], seed: int = 0) -> np.ndarray:
    labels = np.arange(len(found)) % 2
    return np.random.default_rng(seed).permutation(labels)


def delong_by_pairs(labels: np.ndarray, rankings: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The definition of 1988, eq. 4 to 6, comparing every pair: slow and plain."""
    above, below = [], []
    for ranking in rankings:
        x, y = ranking[labels == 1][:, None], ranking[labels == 0][None, :]
        kernel = (x > y) + 0.5 * (x == y)
        above.append(kernel.mean(axis=1))
        below.append(kernel.mean(axis=0))
    m, n = len(above[0]), len(below[0])
    covariance = np.atleast_2d(np.cov(above)) / m + np.atleast_2d(np.cov(below)) / n
    return np.array([one.mean() for one in above]), covariance


@given(scores, st.integers(0, 100))
def test_the_fast_algorithm_gives_what_comparing_every_pair_gives(found: list[int], seed: int) -> None:
    labels, first = labelled(found, seed), np.array(found, float)
    second = first + np.random.default_rng(seed).normal(0, 3, len(found)).round()
    areas, covariance = delong_by_pairs(labels, [first, second])
    ours = compare_aucs(labels, first, second)
    assert (ours.first.estimate, ours.second.estimate) == pytest.approx(tuple(areas), abs=1e-12)
    assert ours.first.estimate == pytest.approx(roc_auc_score(labels, first), abs=1e-12)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    if variance > 1e-12:
        assert ours.standard_error == pytest.approx(np.sqrt(variance), rel=1e-6)
        assert ours.z == pytest.approx((areas[0] - areas[1]) / np.sqrt(variance), rel=1e-6)
        assert ours.p_value == pytest.approx(2 * scipy_stats.norm.sf(abs(ours.z)), abs=1e-12)


def test_a_case_worked_by_hand() -> None:
    # Positives 3, 1; negatives 2, 0: wins of the positives (1, 1), (0, 1); of the negatives 1/2, 1.
    found = compare_aucs([1, 1, 0, 0], [3, 1, 2, 0], [0, 1, 2, 3])
    assert found.first.estimate == 0.75
    assert found.second.estimate == 0.0
    # var(V10) = var(1, .5) = .125 and var(V01) = .125, over 2 each; the second ranking has none.
    assert found.standard_error == pytest.approx(np.sqrt(0.125))
    assert found.z == pytest.approx(0.75 / np.sqrt(0.125))


@given(scores, st.integers(0, 100))
def test_the_interval_holds_the_area_within_0_and_1_and_is_no_point(found: list[int], seed: int) -> None:
    interval = auc_interval(labelled(found, seed), found)
    assert 0 <= interval.low <= interval.estimate <= interval.high <= 1
    assert interval.width > 0


@given(scores, st.integers(0, 100))
def test_neither_order_nor_a_monotone_change_of_scores_matters(found: list[int], seed: int) -> None:
    labels, values = labelled(found, seed), np.array(found, float)
    places = np.random.default_rng(seed).permutation(len(found))
    plain = auc_interval(labels, values)
    for other in (auc_interval(labels[places], values[places]), auc_interval(labels, np.exp(values))):
        assert (other.low, other.high) == pytest.approx((plain.low, plain.high), abs=1e-9)


@given(scores, st.integers(0, 100))
def test_the_models_are_interchangeable_but_for_the_sign(found: list[int], seed: int) -> None:
    labels, second = labelled(found, seed), np.random.default_rng(seed).normal(size=len(found))
    there, back = compare_aucs(labels, found, second), compare_aucs(labels, second, found)
    assert there.z == pytest.approx(-back.z)
    assert there.p_value == pytest.approx(back.p_value)
    assert (there.difference.low, there.difference.high) == pytest.approx((-back.difference.high, -back.difference.low))


def test_few_rows_ranked_perfectly_are_not_certain() -> None:
    few, many = (auc_interval([0] * n + [1] * n, np.arange(2 * n)) for n in (5, 500))
    assert few.high == many.high == 1.0
    assert few.low < 0.8
    assert many.low > 0.99


def test_two_perfect_rankings_of_few_rows_are_not_known_to_be_alike() -> None:
    labels = [0] * 5 + [1] * 5
    found = compare_aucs(labels, np.arange(10), np.arange(10) ** 2 + 1)
    assert found.difference.estimate == 0
    assert found.difference.low < -0.2
    assert found.p_value == 1
    assert found.correlation is None


def test_opposite_perfect_rankings_differ_by_no_infinite_z() -> None:
    found = compare_aucs([0] * 5 + [1] * 5, np.arange(10), -np.arange(10))
    assert found.difference.estimate == 1
    assert 0 < found.p_value < 0.05
    assert found.difference.low > 0


def test_a_model_does_not_differ_from_itself() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=50)
    found = compare_aucs(np.arange(50) % 2, values, values)
    assert (found.difference.low, found.difference.high, found.p_value) == (0, 0, 1)


def test_equally_good_models_differ_as_often_as_the_level_says() -> None:
    """2000 pairs of equally noisy scores on 120 rows; the tolerance is 3.5 standard errors."""
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 1], 60)
    hits = inside = 0
    for _ in range(2000):
        signal = labels + rng.normal(size=120)
        found = compare_aucs(labels, signal + rng.normal(size=120), signal + rng.normal(size=120))
        hits += found.p_value <= 0.05
        inside += scipy_stats.norm.cdf(1 / 2) in found.first  # sd of the sum of both noises is sqrt(2) per class
    assert hits / 2000 == pytest.approx(0.05, abs=0.017)
    assert inside / 2000 == pytest.approx(0.95, abs=0.017)


@pytest.mark.parametrize(
    ("labels", "values", "said"),
    [
        ([1, 1, 1], [1, 2, 3], "all 3 labels are 1"),
        ([0, 1, 1], [1, 2, 3], "2 labels are 1 and 1 are 0"),
        ([0, 0, 1, 1], [1, 2, 3], "labels 4, scores 3"),
        ([0, 0, 1, 1], [1, 2, 3, float("nan")], "NaN"),
        ([0, 0, 1, 2], [1, 2, 3, 4], "other than 0 and 1"),
        ([], [], "0 values"),
    ],
)
def test_rows_that_have_no_area_are_refused(labels: list[int], values: list[float], said: str) -> None:
    with pytest.raises(SalverError, match=said):
        auc_interval(labels, values)
