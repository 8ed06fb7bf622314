from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from salver.protocol.errors import SalverError
from salver.stats.metrics import METRICS, Needs, metric

RNG = np.random.default_rng(0)
TWO = RNG.integers(0, 2, 200)
TWO_SAID = np.where(RNG.random(200) < 0.8, TWO, 1 - TWO)
TWO_PROBABLE = np.clip(0.5 + 0.3 * (TWO - 0.5) + RNG.normal(0, 0.2, 200), 0.01, 0.99)
THREE = RNG.integers(0, 3, 200)
THREE_SAID = np.where(RNG.random(200) < 0.7, THREE, RNG.integers(0, 3, 200))
THREE_PROBABLE = RNG.dirichlet([1, 1, 1], 200) * 0.5 + 0.5 * np.eye(3)[THREE_SAID]
VALUES = RNG.gamma(3, 2, 100)
GUESSES = VALUES * np.exp(RNG.normal(0, 0.3, 100))
RELEVANT = (RNG.random((30, 12)) < 0.3).astype(float)
RELEVANT[:, 0] = 1
RANKED = RELEVANT + RNG.normal(0, 0.8, (30, 12))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", reference.accuracy_score(TWO, TWO_SAID)),
        ("balanced_accuracy", reference.balanced_accuracy_score(TWO, TWO_SAID)),
        ("precision", reference.precision_score(TWO, TWO_SAID)),
        ("recall", reference.recall_score(TWO, TWO_SAID)),
        ("specificity", reference.recall_score(TWO, TWO_SAID, pos_label=0)),
        ("f1", reference.f1_score(TWO, TWO_SAID)),
        ("fbeta@2", reference.fbeta_score(TWO, TWO_SAID, beta=2)),
        ("f1_macro", reference.f1_score(TWO, TWO_SAID, average="macro")),
        ("f1_micro", reference.f1_score(TWO, TWO_SAID, average="micro")),
        ("f1_weighted", reference.f1_score(TWO, TWO_SAID, average="weighted")),
        ("jaccard", reference.jaccard_score(TWO, TWO_SAID)),
        ("mcc", reference.matthews_corrcoef(TWO, TWO_SAID)),
        ("cohen_kappa", reference.cohen_kappa_score(TWO, TWO_SAID)),
    ],
)
def test_labels_of_two_classes_are_scored_as_by_scikit_learn(name: str, expected: float) -> None:
    assert metric(name).measure(TWO, TWO_SAID) == pytest.approx(expected)
    words = np.array(["benign", "malignant"])
    assert metric(name).measure(words[TWO], words[TWO_SAID]) == pytest.approx(expected)
    assert metric(name).measure(words[TWO].astype(object), words[TWO_SAID].tolist()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", reference.accuracy_score(THREE, THREE_SAID)),
        ("balanced_accuracy", reference.balanced_accuracy_score(THREE, THREE_SAID)),
        ("precision", reference.precision_score(THREE, THREE_SAID, average="macro")),
        ("recall", reference.recall_score(THREE, THREE_SAID, average="macro")),
        ("precision_macro", reference.precision_score(THREE, THREE_SAID, average="macro")),
        ("recall_macro", reference.recall_score(THREE, THREE_SAID, average="macro")),
        ("f1", reference.f1_score(THREE, THREE_SAID, average="macro")),
        ("mcc", reference.matthews_corrcoef(THREE, THREE_SAID)),
    ],
)
def test_labels_of_three_classes_are_scored_as_by_scikit_learn(name: str, expected: float) -> None:
    assert metric(name).measure(THREE, THREE_SAID) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "two", "three"),
    [
        (
            "roc_auc",
            reference.roc_auc_score(TWO, TWO_PROBABLE),
            reference.roc_auc_score(THREE, THREE_PROBABLE, multi_class="ovr"),
        ),
        (
            "roc_auc_ovo",
            reference.roc_auc_score(TWO, TWO_PROBABLE),
            reference.roc_auc_score(THREE, THREE_PROBABLE, multi_class="ovo"),
        ),
        (
            "pr_auc",
            reference.average_precision_score(TWO, TWO_PROBABLE),
            reference.average_precision_score(THREE, THREE_PROBABLE),
        ),
        ("log_loss", reference.log_loss(TWO, TWO_PROBABLE), reference.log_loss(THREE, THREE_PROBABLE)),
        ("brier", reference.brier_score_loss(TWO, TWO_PROBABLE), reference.brier_score_loss(THREE, THREE_PROBABLE)),
        ("top_k_accuracy", 1.0, reference.top_k_accuracy_score(THREE, THREE_PROBABLE, k=2)),
        (
            "top_k_accuracy@1",
            np.mean((TWO_PROBABLE > 0.5) == TWO),
            reference.top_k_accuracy_score(THREE, THREE_PROBABLE, k=1),
        ),
    ],
)
def test_probabilities_are_scored_as_by_scikit_learn(name: str, two: float, three: float) -> None:
    assert metric(name).measure(TWO, TWO_PROBABLE) == pytest.approx(two)
    both = np.stack([1 - TWO_PROBABLE, TWO_PROBABLE], axis=1)
    assert metric(name).measure(TWO, both) == pytest.approx(two)
    assert metric(name).measure(THREE, THREE_PROBABLE) == pytest.approx(three)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
@settings(deadline=None, max_examples=50)
def test_counted_scores_are_scikit_learns_on_any_labels(pairs: list[tuple[int, int]]) -> None:
    truth, said = np.array(pairs).T
    for average in ("macro", "micro", "weighted"):
        expected = reference.f1_score(truth, said, average=average, zero_division=0)
        assert metric(f"f1_{average}").measure(truth, said, classes=range(4)) == pytest.approx(expected)
    expected = reference.recall_score(truth, said, average="macro", zero_division=0)
    assert metric("recall").measure(truth, said, classes=range(4)) == pytest.approx(expected)
    expected = reference.jaccard_score(truth, said, average="macro", zero_division=0)
    assert metric("jaccard").measure(truth, said, classes=range(4)) == pytest.approx(expected)


def test_impossible_things_that_happen_cost_a_finite_surprise() -> None:
    expected = reference.log_loss([0, 1], [1.0, 1.0])
    assert metric("log_loss").measure([0, 1], [1.0, 1.0]) == pytest.approx(expected)


def test_classes_say_which_column_is_whose() -> None:
    words = np.array(["cat", "dog", "ant"])
    area = metric("roc_auc")
    plain = area.measure(THREE, THREE_PROBABLE)
    assert area.measure(words[THREE], THREE_PROBABLE, classes=["cat", "dog", "ant"]) == pytest.approx(plain)
    assert area.measure(words[THREE], THREE_PROBABLE) != pytest.approx(plain)  # sorted: ant, cat, dog
    flipped = area.measure(TWO, TWO_PROBABLE, classes=[1, 0])
    assert flipped == pytest.approx(1 - area.measure(TWO, TWO_PROBABLE))
    few = THREE != 2
    assert metric("log_loss").measure(THREE[few], THREE_PROBABLE[few], classes=[0, 1, 2]) > 0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rmse", reference.root_mean_squared_error(VALUES, GUESSES)),
        ("mse", reference.mean_squared_error(VALUES, GUESSES)),
        ("mae", reference.mean_absolute_error(VALUES, GUESSES)),
        ("median_absolute_error", reference.median_absolute_error(VALUES, GUESSES)),
        ("max_error", reference.max_error(VALUES, GUESSES)),
        ("mape", reference.mean_absolute_percentage_error(VALUES, GUESSES)),
        ("rmsle", reference.root_mean_squared_log_error(VALUES, GUESSES)),
        ("pinball", reference.mean_absolute_error(VALUES, GUESSES) / 2),
        ("pinball@0.9", reference.mean_pinball_loss(VALUES, GUESSES, alpha=0.9)),
        ("r2", reference.r2_score(VALUES, GUESSES)),
        ("explained_variance", reference.explained_variance_score(VALUES, GUESSES)),
    ],
)
def test_numbers_are_scored_as_by_scikit_learn(name: str, expected: float) -> None:
    assert metric(name).measure(VALUES, GUESSES) == pytest.approx(expected)


def test_rankings_are_scored_as_by_scikit_learn_and_by_hand() -> None:
    assert metric("ndcg").measure(RELEVANT, RANKED) == pytest.approx(reference.ndcg_score(RELEVANT, RANKED))
    assert metric("ndcg@3").measure(RELEVANT, RANKED) == pytest.approx(reference.ndcg_score(RELEVANT, RANKED, k=3))
    by_hand = reference.label_ranking_average_precision_score(RELEVANT, RANKED)
    assert metric("map").measure(RELEVANT, RANKED) == pytest.approx(by_hand)  # the same but for ties
    relevant, ranked = [[0, 1, 0, 1], [1, 0, 0, 0]], [[4, 3, 2, 1], [1, 4, 2, 0]]
    assert metric("mrr").measure(relevant, ranked) == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert metric("recall_at@2").measure(relevant, ranked) == pytest.approx((1 / 2 + 0) / 2)
    assert metric("mrr").measure([[1, 0, 0]], [[1, 1, 1]]) == pytest.approx(1 / 3)  # ties count against the model
    assert metric("recall_at@1").measure([[1, 0, 0]], [[1, 1, 1]]) == 0


def test_the_calibration_error_of_three_classes_is_that_of_the_likeliest() -> None:
    top, right = THREE_PROBABLE.max(axis=1), THREE_PROBABLE.argmax(axis=1) == THREE
    expected = metric("ece").measure(right.astype(int), top)
    assert metric("ece").measure(THREE, THREE_PROBABLE) == pytest.approx(expected)


def given_to(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, what is right about it, and what is wrong, as the metric needs it."""
    needs = METRICS[name].needs
    if needs is Needs.LABELS:
        return TWO, TWO, TWO_SAID
    if needs is Needs.VALUES:
        return VALUES, VALUES, GUESSES
    if needs is Needs.RANKINGS:
        return RELEVANT, RELEVANT, RANKED
    if name == "top_k_accuracy":
        return THREE, np.eye(3)[THREE], 1 - np.eye(3)[THREE]
    return TWO, TWO.astype(float), TWO_PROBABLE


@pytest.mark.parametrize("name", METRICS)
def test_what_is_right_scores_better_in_the_direction_the_table_says(name: str) -> None:
    truth, right, wrong = given_to(name)
    asked = metric("recall_at@12" if name == "recall_at" else name)
    best, worse = asked.measure(truth, right), asked.measure(truth, wrong)
    assert best == pytest.approx(1 if asked.higher_is_better else 0, abs=1e-9)
    if name != "recall_at":
        assert (best > worse) == asked.higher_is_better
    assert asked.meaning


@pytest.mark.parametrize("name", METRICS)
@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=5)
def test_the_order_of_the_rows_does_not_matter(name: str, seed: int) -> None:
    truth, _, found = given_to(name)
    places = np.random.default_rng(seed).permutation(len(truth))
    asked = metric(name)
    assert asked.measure(truth[places], found[places]) == pytest.approx(asked.measure(truth, found), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("roc_acu", "no metric 'roc_acu'; did you mean roc_auc"),
        ("AUC", "did you mean .*roc_auc"),
        ("zzz", "give one of accuracy, balanced_accuracy"),
        ("accuracy@2", "accuracy takes no parameter"),
        ("pinball@2", "'pinball@2' has no such parameter; give a number from 0 to 1"),
        ("ndcg@2.5", "give a whole number from 1 to 10000"),
        ("ndcg@", "has no such parameter"),
        ("ndcg@nan", "has no such parameter"),
        ("ndcg@inf", "has no such parameter"),
    ],
)
def test_unknown_names_are_refused_with_what_comes_close(name: str, said: str) -> None:
    with pytest.raises(SalverError, match=said) as refused:
        metric(name)
    assert refused.value.code == "INVALID_PARAMETER"


@pytest.mark.parametrize(
    ("name", "truth", "found", "said"),
    [
        ("roc_auc", [1, 1], [0.2, 0.3], "there is 1 class"),
        ("recall", [0, 0], [0, 0], "no row is of the class asked about"),
        ("f1", [0, 0], [0, 0], "no row is of the class asked about"),
        ("mcc", [1, 1], [1, 0], "all rows are of one class"),
        ("cohen_kappa", [1, 1], [1, 1], "all rows are of one class"),
        ("specificity", [0, 1, 2], [0, 1, 2], "take recall_macro"),
        ("r2", [3, 3], [3, 4], "true values do not differ"),
        ("mape", [0, 1], [1, 1], "1 true values are 0"),
        ("rmsle", [1, 2], [-3, 2], "rmsle is undefined"),
        ("map", [[0, 0]], [[1, 2]], "1 queries have no relevant document"),
        ("accuracy", [], [], "shape"),
        ("accuracy", [0, 1], [0], "2 rows of truth but 1 predicted"),
        ("accuracy", ["a", "b"], [0, 1], "by text and by number"),
        ("accuracy", [0, float("nan")], [0, 1], "NaN"),
        ("accuracy", [None, "b"], ["a", "b"], "truth lacks 1 labels"),
        ("accuracy", [[0, 1]], [0, 1], "one label per row"),
        ("brier", [0, 1], [0.5, 1.5], "not scores"),
        ("brier", [0, 1], [[0.5, 0.2], [0.5, 0.5]], "do not sum to 1"),
        ("log_loss", [0, 1, 2], [0.1, 0.2, 0.3], "one column per class"),
        ("roc_auc", [0, 1], [0.5, float("nan")], "NaN"),
        ("ndcg", [1, 0], [1, 0], r"\[queries, documents\]"),
        ("ndcg", [[1, -1]], [[1, 0]], "relevance goes down to -1"),
        ("rmse", [1, 2], [1], "truth 2, predicted 1"),
    ],
)
def test_rows_on_which_a_metric_does_not_exist_are_refused(name: str, truth: list, found: list, said: str) -> None:
    with pytest.raises(SalverError, match=said):
        metric(name).measure(truth, found)


def test_classes_that_do_not_fit_are_refused() -> None:
    for classes, said in (
        ([0, 1], "truth has the label 2, none of the 2 classes"),
        ([0, 0, 1], "name each class once"),
        (["a", "b", "c"], "one text and one numbers"),
    ):
        with pytest.raises(SalverError, match=said):
            metric("accuracy").measure([0, 1, 2], [0, 1, 1], classes=classes)
    with pytest.raises(SalverError, match="1 of 3 classes have no row"):
        metric("roc_auc").measure([0, 1], [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], classes=[0, 1, 2])
