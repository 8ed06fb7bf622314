from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from salver.protocol.errors import SalverError
from salver.stats.calibration import (
    Binning,
    brier_decomposition,
    calibration_error,
    reliability_curve,
    spiegelhalter,
    top_label,
)

BINNINGS: list[Binning] = ["width", "mass", "distinct"]
rows = st.lists(st.tuples(st.booleans(), st.floats(0, 1) | st.sampled_from([0.1, 0.5, 0.9])), min_size=1, max_size=60)
binnings = st.sampled_from(BINNINGS)


def columns(found: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([one[0] for one in found], int), np.array([one[1] for one in found])


@given(rows, st.integers(1, 20), binnings)
def test_the_terms_of_briers_score_add_up_exactly(found: list[tuple[bool, float]], bins: int, binning: Binning) -> None:
    labels, said = columns(found)
    terms = brier_decomposition(labels, said, bins=bins, binning=binning)
    assert terms.score == pytest.approx(brier_score_loss(labels, said, labels=[0, 1]), abs=1e-12)
    total = terms.reliability - terms.resolution + terms.uncertainty
    assert total + terms.within_variance - terms.within_covariance == pytest.approx(terms.score, abs=1e-12)
    assert min(terms.reliability, terms.resolution, terms.uncertainty, terms.within_variance) >= 0


@given(rows)
def test_bins_of_one_value_each_leave_murphys_three_terms(found: list[tuple[bool, float]]) -> None:
    terms = brier_decomposition(*columns(found), binning="distinct")
    assert terms.within_variance == pytest.approx(0, abs=1e-20)
    assert terms.within_covariance == pytest.approx(0, abs=1e-12)


def test_briers_terms_worked_by_hand() -> None:
    # 0.2 said 5 times with 1 hit; 0.8 said 5 times with 3: base .4, reliability (.0 + .04) / 2, resolution .04.
    labels = [1, 0, 0, 0, 0, 1, 1, 1, 0, 0]
    terms = brier_decomposition(labels, [0.2] * 5 + [0.8] * 5)
    assert (terms.reliability, terms.resolution, terms.uncertainty) == pytest.approx((0.02, 0.04, 0.24))
    assert terms.score == pytest.approx(0.22)


def test_calibration_errors_worked_by_hand() -> None:
    labels = [1, 0, 0, 0, 0, 1, 1, 1, 0, 0]
    found = calibration_error(labels, [0.2] * 5 + [0.8] * 5)
    assert (found.ece, found.mce, found.rms) == pytest.approx((0.1, 0.2, 0.02**0.5))
    # The first bin: 0 - .2 * .8 / 4; the second: .04 - .6 * .4 / 4. Below 0 together, so 0.
    assert found.rms_debiased == 0
    assert (found.rows, found.bins) == (10, 2)
    worse = calibration_error(labels, [0.9] * 5 + [0.8] * 5)
    assert worse.rms_debiased == pytest.approx(((0.49 - 0.04) / 2 + (0.04 - 0.06) / 2) ** 0.5)


@given(rows, st.integers(1, 20), binnings, st.integers(0, 99))
def test_neither_order_nor_ties_matter(found: list[tuple[bool, float]], bins: int, binning: Binning, seed: int) -> None:
    labels, said = columns(found)
    places = np.random.default_rng(seed).permutation(len(found))
    plain = calibration_error(labels, said, bins=bins, binning=binning)
    mixed = calibration_error(labels[places], said[places], bins=bins, binning=binning)
    assert (mixed.ece, mixed.rms, mixed.mce) == pytest.approx((plain.ece, plain.rms, plain.mce), abs=1e-12)
    assert 0 <= plain.ece <= plain.rms + 1e-12 <= plain.mce + 2e-12 <= 1 + 2e-12
    assert plain.ece_debiased <= plain.ece + 1e-12
    assert plain.rms_debiased <= plain.rms + 1e-12


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_scikit_learn_draws_the_same_curve(binning: Binning) -> None:
    rng = np.random.default_rng(0)
    said = rng.random(997)
    labels = (rng.random(997) < said**1.5).astype(int)
    observed, predicted = calibration_curve(
        labels, said, n_bins=10, strategy={"width": "uniform", "mass": "quantile"}[binning]
    )
    curve = reliability_curve(labels, said, binning=binning)
    # Quantiles between two rows and quantiles at a row may put one row into the next bin.
    slack = 1e-12 if binning == "width" else 0.02
    assert [one.predicted for one in curve] == pytest.approx(predicted, abs=slack)
    assert [one.observed.estimate for one in curve] == pytest.approx(observed, abs=slack)
    assert sum(one.rows for one in curve) == 997


@given(rows, st.integers(1, 20), binnings)
def test_every_row_lies_in_one_bin(found: list[tuple[bool, float]], bins: int, binning: Binning) -> None:
    labels, said = columns(found)
    curve = reliability_curve(labels, said, bins=bins, binning=binning)
    assert sum(one.rows for one in curve) == len(found)
    assert binning == "distinct" or len(curve) <= bins
    for one in curve:
        assert one.low - 1e-12 <= one.predicted <= one.high + 1e-12
        assert one.observed.estimate in one.observed
    for one, following in itertools.pairwise(curve):
        assert one.high < following.low


def test_equal_mass_gives_bins_of_equal_size() -> None:
    said = np.random.default_rng(0).beta(8, 1, 1000)
    curve = reliability_curve(np.ones(1000), said, binning="mass")
    assert [one.rows for one in curve] == [100] * 10


def test_debiasing_takes_out_most_of_what_noise_adds() -> None:
    """A perfectly calibrated model on 200 rows: plain errors are far from 0 on average, debiased ones near."""
    rng = np.random.default_rng(1)
    plain, square, debiased, debiased_square = [], [], [], []
    for _ in range(400):
        said = rng.random(200)
        found = calibration_error(rng.random(200) < said, said, bins=15)
        plain.append(found.ece)
        debiased.append(found.ece_debiased)
        square.append(found.rms**2)
        debiased_square.append(found.rms_debiased**2)
    assert np.mean(plain) > 0.07
    assert np.mean(debiased) < 0.7 * np.mean(plain)
    assert np.mean(debiased_square) < 0.35 * np.mean(square)


def test_debiased_errors_find_the_true_one() -> None:
    """Labels come with p^2: the squared error is the integral of (p - p^2)^2, 1/30, less what 20 bins hide."""
    rng = np.random.default_rng(2)
    said = rng.random((300, 400))
    squares = [calibration_error(rng.random(400) < p**2, p, bins=20).rms_debiased ** 2 for p in said]
    biased = [calibration_error(rng.random(400) < p**2, p, bins=20).rms ** 2 for p in said]
    assert np.mean(squares) == pytest.approx(1 / 30, abs=0.002)
    assert np.mean(biased) > 1 / 30 + 0.004


def test_spiegelhalter_keeps_its_level_and_finds_overconfidence() -> None:
    rng = np.random.default_rng(3)
    said = rng.random((2000, 100))
    hits = [spiegelhalter(rng.random(100) < p, p).p_value <= 0.05 for p in said]
    assert np.mean(hits) == pytest.approx(0.05, abs=0.017)  # 3.5 standard errors
    sharp = np.clip(said * 2 - 0.5, 0.02, 0.98)
    found = spiegelhalter(rng.random(said.size) < said.ravel(), sharp.ravel())
    assert found.z > 5


def test_spiegelhalters_z_worked_by_hand() -> None:
    # (1 - .2)(.6) + (0 - .8)(-.6) over sqrt(2 * .36 * .16)
    assert spiegelhalter([1, 0], [0.2, 0.8]).z == pytest.approx(0.96 / (2 * 0.36 * 0.16) ** 0.5)


def test_of_several_classes_the_most_probable_is_judged() -> None:
    correct, confidence = top_label([0, 1, 2], [[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]])
    assert correct.tolist() == [1, 0, 1]
    assert confidence.tolist() == [0.6, 0.5, 0.8]


def test_bad_input_is_refused() -> None:
    with pytest.raises(SalverError, match=r"lie between 0\.1 and 1\.5; give probabilities, not scores"):
        calibration_error([0, 1], [0.1, 1.5])
    with pytest.raises(SalverError, match="0 values"):
        calibration_error([], [])
    with pytest.raises(SalverError, match="labels 2, probabilities 1"):
        brier_decomposition([0, 1], [0.5])
    with pytest.raises(SalverError, match="0 bins"):
        reliability_curve([0, 1], [0.5, 0.5], bins=0)
    with pytest.raises(SalverError, match="no binning 'kmeans'"):
        reliability_curve([0, 1], [0.5, 0.5], binning="kmeans")  # type: ignore[arg-type]
    with pytest.raises(SalverError, match=r"all probabilities are 0, 0\.5 or 1"):
        spiegelhalter([0, 1, 1], [0, 1, 0.5])
    with pytest.raises(SalverError, match="do not fit"):
        top_label([0, 1], [[0.5, 0.5]])
