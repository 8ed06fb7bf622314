"""Latency by its quantile's bounds, size, and probabilities that are what they say or are not."""

from __future__ import annotations

import numpy as np
import pytest
from subjects import make_subject

from salver.evaluation.metrics.calibration import CalibrationCheck, ece_interval
from salver.evaluation.metrics.costs import LatencyCheck, SizeCheck, quantile_bounds
from salver.evaluation.suites.suite import CalibrationSettings, SatisficingSettings
from salver.protocol.errors import SalverError
from salver.protocol.verdict import Verdict
from salver.stats.calibration import reliability_curve


def latency(measured: list[float], at_most: float, quantile: float = 0.99):
    subject = make_subject(target=[0, 1], labels=[0, 1], asked={"latencies_s": lambda *_: measured})
    return LatencyCheck(SatisficingSettings("latency_p99_s", at_most), quantile).run(subject)


def test_few_fast_requests_prove_nothing_about_the_slowest() -> None:
    assert latency([0.001] * 100, 0.01).verdict is Verdict.INCONCLUSIVE
    assert latency([0.001] * 400, 0.01).verdict is Verdict.SUCCESSFUL
    assert latency([0.001] * 380 + [0.1] * 20, 0.01).verdict is Verdict.FAILED
    assert latency([0.001] * 396 + [0.1] * 4, 0.01).verdict is Verdict.INCONCLUSIVE
    assert latency([0.001] * 20, 0.01, 0.5).verdict is Verdict.SUCCESSFUL


@pytest.mark.parametrize(("quantile", "count"), [(0.5, 40), (0.99, 800), (0.9, 100)])
def test_the_bounds_of_a_quantile_hold_as_often_as_they_say(quantile: float, count: int) -> None:
    rng, below, above = np.random.default_rng(0), 0, 0
    true = -np.log(1 - quantile)
    for _ in range(1000):
        low, high = quantile_bounds(np.sort(rng.exponential(1.0, count)), quantile, 0.95)
        below += low > true
        above += high < true
    assert max(below, above) <= 70  # of 50 at most to be expected; 70 has probability 0.003


def test_size_is_that_of_all_files() -> None:
    subject = make_subject(target=[0, 1], labels=[0, 1])
    assert SizeCheck(SatisficingSettings("size_bytes", 1)).run(subject).verdict is Verdict.SUCCESSFUL
    assert SizeCheck(SatisficingSettings("size_bytes", 0.5)).run(subject).verdict is Verdict.FAILED


def calibrated(count: int, sharper: float, seed: int):
    """Probabilities whose logits are true ones times `sharper`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, count)
    target = (rng.random(count) < 1 / (1 + np.exp(-logits))).astype(int)
    return make_subject(target=target, probabilities=1 / (1 + np.exp(-sharper * logits)), resamples=100)


def test_true_probabilities_are_not_failed_by_noise_and_overconfident_ones_are_found() -> None:
    check = CalibrationCheck(CalibrationSettings(ece_at_most=0.005))
    honest = [check.run(calibrated(150, 1.0, seed)).verdict for seed in range(100)]
    # 5 % of 100 at most; 11 or more would have probability 0.01.
    assert honest.count(Verdict.FAILED) <= 10
    check = CalibrationCheck(CalibrationSettings(ece_at_most=0.03))
    boasting = check.run(calibrated(3000, 4.0, 1))
    assert boasting.verdict is Verdict.FAILED
    assert boasting.numbers["spiegelhalter_p"] < 1e-6
    assert check.run(calibrated(20_000, 1.0, 2)).verdict is Verdict.SUCCESSFUL


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.2])
def test_the_bounds_of_the_calibration_error_hold_as_often_as_they_say(shift: float) -> None:
    rng, below, above = np.random.default_rng(7), 0, 0
    said = np.repeat(np.linspace(0.1, 0.7, 7), 40)
    for _ in range(400):
        came_true = (rng.random(len(said)) < said + shift).astype(float)
        found = ece_interval(reliability_curve(came_true, said, bins=7, binning="distinct"), rng, 0.95, 300)
        below += found.low > shift + 1e-12
        above += found.high < shift
    assert max(below, above) <= 33  # of 20 at most to be expected; more than 33 has probability 0.002


def test_the_parts_of_the_brier_score_add_up_and_the_curve_is_drawn() -> None:
    result = CalibrationCheck(CalibrationSettings(brier_at_most=0.5)).run(calibrated(500, 1.0, 3))
    n = result.numbers
    parts = n["reliability"] - n["resolution"] + n["uncertainty"] + n["within_variance"] - n["within_covariance"]
    assert parts == pytest.approx(n["brier"], abs=1e-12)
    plot = result.plots[0]
    assert plot.diagonal
    assert len(plot.series[0].x) == len(result.tables[0].rows)
    assert result.verdict is Verdict.SUCCESSFUL


def test_of_several_classes_the_label_given_is_looked_at() -> None:
    rng = np.random.default_rng(4)
    said = rng.dirichlet([1, 1, 1], 4000)
    target = np.array([rng.choice(3, p=row) for row in said])
    subject = make_subject(target=target, probabilities=said, classes=("a", "b", "c"), resamples=100)
    assert CalibrationCheck(CalibrationSettings(ece_at_most=0.05)).run(subject).verdict is Verdict.SUCCESSFUL


def test_without_probabilities_the_setting_is_named() -> None:
    with pytest.raises(SalverError, match=r"gives no probabilities.*score"):
        CalibrationCheck(CalibrationSettings()).run(make_subject(target=[0, 1], labels=[0, 1]))
