"""Two versions on the same rows: numbers as scipy, statsmodels and scikit-learn have them, and what follows."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, cohen_kappa_score, roc_auc_score
from sklearn.tree import DecisionTreeClassifier
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from subjects import make_subject, run_salver

from salver.cli.compare import described
from salver.evaluation.compared.findings import ComparisonSettings, PairResult, Part, corrected
from salver.evaluation.compared.metrics import compare_metrics
from salver.evaluation.compared.parts import compare_agreement, compare_calibration, compare_slices
from salver.evaluation.comparison import ComparisonRecord, suite_for
from salver.evaluation.reports.comparison_report import render_comparison
from salver.evaluation.reports.results import Role
from salver.evaluation.subject.predictions import Predictions
from salver.evaluation.suites.suite import MetricSettings
from salver.stats.intervals import Interval
from salver.stats.margins import Relation

SETTINGS = ComparisonSettings(permutations=2000)


def binary(rows=400, seed=0, noise=(0.8, 1.4), **more):
    """A subject and its rival: scores of one truth, the second's with more noise."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, rows)
    scores = [1 / (1 + np.exp(-2 * (truth - 0.5 + rng.normal(0, each, rows)))) for each in noise]
    rival = Predictions((scores[1] > 0.5).astype(int), np.column_stack([1 - scores[1], scores[1]]))
    return make_subject(target=truth, probabilities=scores[0], rival=rival, **more), truth, scores


def result_of(subject, name, margin=0.01, **settings):
    suite = suite_for("target").suite
    suite = msgspec.structs.replace(suite, metric=(MetricSettings(name, margin=margin),))
    (found,) = compare_metrics(subject, suite, msgspec.structs.replace(SETTINGS, **settings)).tests
    return found


def test_accuracy_is_compared_as_statsmodels_does_it() -> None:
    subject, truth, scores = binary()
    right = [(score > 0.5).astype(int) == truth for score in scores]
    table = [
        [int((right[0] & right[1]).sum()), int((right[0] & ~right[1]).sum())],
        [int((~right[0] & right[1]).sum()), int((~right[0] & ~right[1]).sum())],
    ]
    found = result_of(subject, "accuracy")
    exact = statsmodels_mcnemar(table, exact=True).pvalue
    b, c = table[0][1], table[1][0]
    assert found.p_value == pytest.approx(exact - stats.binom.pmf(min(b, c), b + c, 0.5))
    assert found.gain.estimate == pytest.approx((b - c) / 400)
    assert (found.first, found.second) == (pytest.approx(right[0].mean()), pytest.approx(right[1].mean()))


def test_areas_under_the_curve_are_scikit_learns_and_their_difference_is_between_its_bounds() -> None:
    subject, truth, scores = binary()
    found = result_of(subject, "roc_auc")
    assert found.method == "DeLong"
    assert found.first == pytest.approx(roc_auc_score(truth, scores[0]))
    assert found.second == pytest.approx(roc_auc_score(truth, scores[1]))
    assert found.gain.low < found.gain.estimate < found.gain.high


def test_any_other_metric_is_swapped_and_drawn_as_scipy_does_it() -> None:
    subject, truth, scores = binary(150, noise=(1.2, 1.3), resamples=2000)
    found = result_of(subject, "brier", permutations=4000)
    errors = [(score - truth) ** 2 for score in scores]
    assert found.gain.estimate == pytest.approx(
        brier_score_loss(truth, scores[1]) - brier_score_loss(truth, scores[0])
    ), "less is better, so the gain is the second less the first"
    rng = np.random.default_rng(1)
    swapped = stats.permutation_test(
        tuple(errors), lambda a, b: a.mean() - b.mean(), permutation_type="samples", n_resamples=4000, rng=rng
    )
    assert found.p_value == pytest.approx(swapped.pvalue, abs=0.03)
    drawn = stats.bootstrap(
        (errors[1] - errors[0],), np.mean, confidence_level=0.9, n_resamples=4000, rng=rng
    ).confidence_interval
    assert (found.gain.low, found.gain.high) == pytest.approx(tuple(drawn), abs=0.004)


def test_rows_that_come_in_groups_are_not_swapped() -> None:
    subject, _, _ = binary(groups=np.repeat(np.arange(40), 10))
    assert result_of(subject, "brier").method == "paired bootstrap"


def test_the_margin_of_an_error_with_a_unit_is_a_share_of_it() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(100, 20, 300)
    near, far = truth + rng.normal(0, 2, 300), truth + rng.normal(0, 10, 300)
    subject = make_subject(target=truth, values=near, rival=Predictions(values=far), resamples=100)
    found = result_of(subject, "mae", margin=0.0)
    assert found.margin == pytest.approx(0.01 * found.second)
    assert found.gain.low > 5
    assert result_of(subject, "mae", margin=0.3, permutations=100).margin == 0.3
    assert result_of(subject, "r2", margin=0.0, permutations=100).margin == 0.01
    told = compare_agreement(subject, suite_for("target").suite, SETTINGS).checks[0].numbers
    assert told["correlation"] == pytest.approx(np.corrcoef(near, far)[0, 1])
    spread = (near - far).std(ddof=1)
    assert told["limit_high"] - told["mean_difference"] == pytest.approx(1.96 * spread)


def test_agreement_is_cohens_kappa_and_counts_who_is_right() -> None:
    subject, _, scores = binary()
    labels = [(score > 0.5).astype(int) for score in scores]
    check = compare_agreement(subject, suite_for("target").suite, SETTINGS).checks[0]
    assert check.numbers["agreement"] == pytest.approx((labels[0] == labels[1]).mean())
    assert check.numbers["kappa"] == pytest.approx(cohen_kappa_score(*labels))
    assert sum(count for _, count in check.tables[0].rows) == 400
    assert all(first != second for _, _, first, second in check.tables[-1].rows)
    assert len(check.tables[-1].rows) == 10


def test_calibration_that_is_ruined_is_found() -> None:
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.02, 0.98, 2000)
    truth = (rng.random(2000) < chance).astype(int)
    sure = np.clip(np.where(chance > 0.5, 0.99, 0.01), 0, 1)
    rival = Predictions((chance > 0.5).astype(int), np.column_stack([1 - chance, chance]))
    subject = make_subject(target=truth, probabilities=sure, rival=rival)
    found = compare_calibration(subject, suite_for("target").suite, SETTINGS)
    (test,) = corrected(found.tests, 0.05)
    assert (test.part, test.relation) == (Part.CALIBRATION, Relation.WORSE)
    assert test.first > 0.2 > test.second


def test_a_slice_that_is_worse_is_found_and_a_small_one_is_not_judged() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 600)
    place = np.array(["north"] * 290 + ["south"] * 290 + ["island"] * 20, dtype=object)
    said = truth.copy()
    broken = (place == "south") & (rng.random(600) < 0.5)
    said[broken] = 1 - said[broken]
    subject = make_subject(target=truth, labels=said, rival=Predictions(truth.copy()), columns={"place": place})
    found = compare_slices(subject, suite_for("target", ("place",)).suite, SETTINGS)
    tests = {each.name: each for each in corrected(found.tests, 0.05)}
    assert {name: each.relation.value for name, each in tests.items()} == {
        "place = north": "equivalent",
        "place = south": "worse",
    }
    assert "place = island" in found.checks[0].reasons[1]
    assert found.checks[0].verdict == "inconclusive"


def a_test(p, gain, margin=0.01):
    return PairResult(Part.METRIC, "m", Role.OPTIMISING, 1.0, 0.9, gain, margin, "t", p, 100)


def test_the_correction_is_holms_over_everything() -> None:
    ps = [0.001, 0.04, 0.03, 0.2, 0.012]
    found = corrected([a_test(p, Interval(0.1, 0.05, 0.2)) for p in ps], 0.05)
    assert [each.adjusted_p for each in found] == pytest.approx(multipletests(ps, method="holm")[1].tolist())
    assert [each.relation is Relation.BETTER for each in found] == (multipletests(ps, method="holm")[0].tolist())


@pytest.mark.parametrize(
    ("p", "gain", "relation"),
    [
        (1e-9, Interval(0.1, 0.05, 0.2), "better"),
        (1e-9, Interval(-0.1, -0.2, -0.05), "worse"),
        (1e-9, Interval(0.004, 0.002, 0.006), "equivalent"),
        (1e-9, Interval(0.02, 0.005, 0.03), "inconclusive"),
        (0.2, Interval(0.1, 0.05, 0.2), "inconclusive"),
        (1.0, Interval(0.0, -0.3, 0.3), "inconclusive"),
    ],
)
def test_a_difference_has_to_be_no_accident_and_to_matter(p, gain, relation) -> None:
    assert corrected([a_test(p, gain)], 0.05)[0].relation == relation


def test_what_is_open_says_how_many_more_rows_would_decide_and_whether_it_is_not_worse() -> None:
    tests = [
        a_test(1e-9, Interval(0.1, 0.05, 0.2)),
        a_test(1e-9, Interval(0.02, 0.005, 0.035, 0.9)),
        a_test(0.5, Interval(-0.001, -0.03, 0.03, 0.9)),
    ]
    better, open_upwards, open_all = corrected(tests, 0.05)
    assert (better.standing, better.more_rows) == ("better", None)
    assert (open_upwards.standing, open_upwards.not_worse) == ("inconclusive, not worse", "successful")
    assert open_upwards.more_rows == 415, "100 ((1 + .8416 / 1.6449) .015 / .01)^2 less 100, rounded up"
    assert open_upwards.sentence().endswith("; about 420 more rows would decide")
    assert (open_all.standing, open_all.not_worse) == ("inconclusive", "inconclusive")
    assert open_all.more_rows > 2000, "31 of its own margins wide"


def test_versions_that_are_alike_are_rarely_told_apart() -> None:
    """Both are equally noisy: of 60 pairs hardly any may be better or worse, whatever is looked at."""
    found = 0
    for seed in range(60):
        subject, _, _ = binary(150, seed, noise=(1.0, 1.0))
        tests = [result_of(subject, name, margin=0.0, permutations=200) for name in ("roc_auc", "accuracy")]
        found += any(each.relation in ("better", "worse") for each in corrected(tests, 0.05))
    assert found <= 7, "the level is 0.05; beyond 7 of 60 the chance is 2 %"


def compared(house, capsys, *arguments):
    capsys.readouterr()
    code = run_salver(house.home, "compare", *arguments)
    said = capsys.readouterr()
    return code, json.loads(said.out or said.err.splitlines()[-1])


def test_a_worse_version_of_a_real_model_is_worse_and_the_better_one_better(house, tmp_path, capsys) -> None:
    suite = house.suite(tmp_path, '[slices]\ncolumns = ["mean_area"]\n')
    given = ("--suite", suite, "--data", house.data, "--requests", 80)
    code, record = compared(house, capsys, house.worse, house.good, *given)
    assert (code, record["relation"], record["verdict"]) == (1, "worse", "failed"), record["reasons"]
    code, record = compared(house, capsys, house.good, house.worse, *given, "--report", tmp_path / "r", "--record")
    assert (code, record["relation"], record["verdict"]) == (0, "better", "successful"), record["reasons"]
    assert {each["part"] for each in record["tests"]} == {"metric", "slice", "calibration", "latency"}
    assert {each["name"] for each in record["checks"]} >= {"slices", "calibration", "agreement", "latency", "size"}
    page = (tmp_path / "r" / "comparison.html").read_text()
    assert page.count("<svg") >= 4
    assert "<script" not in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("http-equiv", "").replace("https://matplotlib.org", "")
    kept = msgspec.json.decode((tmp_path / "r" / "comparison.json").read_bytes(), type=ComparisonRecord)
    area = next(each for each in kept.tests if each.name == "roc_auc")
    assert area.relation is Relation.BETTER
    capsys.readouterr()
    assert run_salver(house.home, "evaluations", house.good) == 0
    evidence = json.loads(capsys.readouterr().out)[0]
    assert (evidence["suite"], evidence["verdict"], evidence["against"]) == ("comparison", "successful", house.worse)
    assert evidence["numbers"]["gain.roc_auc"] == pytest.approx(area.gain.estimate)


def test_two_good_models_are_not_told_apart_by_few_rows(house, tmp_path, capsys) -> None:
    given = (house.good, house.boosted, "--target", "target", "--data", house.data, "--requests", 80)
    code, record = compared(house, capsys, *given, "--margin", 0.004, "--report", tmp_path)
    assert (code, record["relation"]) == (2, "inconclusive")
    assert record["evaluated_rows"] == 569
    more = [each["more_rows"] for each in record["tests"] if each["relation"] == "inconclusive" and each["more_rows"]]
    assert more
    assert any("more rows would decide" in reason for reason in record["reasons"])
    page, text = (
        (tmp_path / "comparison.html").read_text(),
        described(msgspec.convert(record, ComparisonRecord), (), ""),
    )
    assert all(f"<td>{each}</td>" in page and f"  {each:,}  " in text for each in more)


def test_rows_that_either_was_trained_on_settle_nothing(house, capsys) -> None:
    given = (house.boosted, house.good, "--target", "target", "--data", house.data, "--requests", 80)
    for reference in (house.good, house.boosted):
        assert run_salver(house.home, "describe", reference, "--set", f"training_data.digest={house.rows.digest}") == 0
        code, record = compared(house, capsys, *given)
        assert (code, record["verdict"]) == (2, "inconclusive")
        assert any(f"rows: {reference}: it was trained on this very file" in each for each in record["reasons"])
        if reference == house.good:  # which therefore looks good: the other is not worse for it
            code, record = compared(house, capsys, house.worse, *given[1:])
            assert (code, record["verdict"], record["relation"]) == (2, "inconclusive", "inconclusive")
        assert run_salver(house.home, "describe", reference, "--set", "training_data.digest=") == 0


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ((), "what is true is not said"),
        (("--target", "nothing"), "no column"),
        (("--target", "target", "--slice", "mean_aera"), "did you mean 'mean_area'"),
        (("--target", "target", "--margin", "-1"), "--margin is -1"),
        (("--target", "target", "--requests", "3"), "--requests is 3"),
    ],
)
def test_what_cannot_be_compared_is_an_error_that_names_the_thing(house, capsys, more, what) -> None:
    code, said = compared(house, capsys, house.good, house.boosted, "--data", house.data, *more)
    assert code == 3
    assert what in said["error"]["message"] + said["error"]["remedy"]


def test_a_version_is_not_compared_with_itself(house, capsys) -> None:
    code, said = compared(house, capsys, house.good, house.good, "--target", "target", "--data", house.data)
    assert (code, said["error"]["code"]) == (3, "INVALID_PARAMETER")


def test_digits_are_compared_over_ten_classes(tmp_path, capsys) -> None:
    import pandas as pd
    from skl2onnx import to_onnx

    images, digits = load_digits(return_X_y=True)
    frame = pd.DataFrame(images, columns=[f"p{index}" for index in range(64)]).assign(digit=digits)
    frame[1000:].to_csv(tmp_path / "held-out.csv", index=False)
    home = tmp_path / "home"
    models = {
        "1.0.0": LogisticRegression(max_iter=3000).fit(images[:1000], digits[:1000]),
        "1.1.0": DecisionTreeClassifier(max_depth=4, random_state=0).fit(images[:1000], digits[:1000]),
    }
    for version, model in models.items():
        file = tmp_path / f"{version}.onnx"
        graph = to_onnx(model, images[:1].astype(np.float32), options={id(model): {"zipmap": False}})
        file.write_bytes(graph.SerializeToString())
        assert run_salver(home, "register", "digits", file, "--version", version) == 0
    capsys.readouterr()
    data = tmp_path / "held-out.csv"
    suite = tmp_path / "suite.toml"
    suite.write_text(
        '[suite]\nname = "s"\ntarget = "digit"\nresamples = 100\n'
        '[[metric]]\nname = "accuracy"\n[[metric]]\nname = "f1_macro"\n'
    )
    arguments = ("digits@1.1.0", "digits@1.0.0", "--data", data, "--suite", suite, "--requests", 80)
    assert run_salver(home, "compare", *arguments) == 1
    record = json.loads(capsys.readouterr().out)
    relations = {each["name"]: each["relation"] for each in record["tests"] if each["part"] == "metric"}
    assert relations["accuracy"] == relations["f1_macro"] == "worse"
    assert len(next(c for c in record["checks"] if c["name"] == "agreement")["tables"][1]["rows"]) == 10
    read = msgspec.convert(record, ComparisonRecord)
    assert "digits@1.1.0 against digits@1.0.0" in render_comparison(read)
