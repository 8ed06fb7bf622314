"""The formulas behind `metrics.METRICS`, as rows: needs, whether higher is better, meaning, formula, default.

Arguments have been checked. Labels come as column numbers with the number of classes, scores as [rows] for two
classes and [rows, classes] for more. A ValueError says that the metric does not exist on these rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from salver.stats.calibration import calibration_error, top_label
from salver.stats.checked import Floats
from salver.stats.delong import area_under_curve
from salver.stats.libraries import sklearn_metrics

__all__ = ["FORMULAS_OF_CLASSES", "FORMULAS_OF_NUMBERS", "FORMULAS_OF_RANKINGS"]

Labels: TypeAlias = NDArray[np.intp]
Row: TypeAlias = tuple[Any, ...]


def _accuracy(truth: Labels, found: Labels, _: int) -> float:
    return float(np.mean(truth == found))


def _balanced_accuracy(truth: Labels, found: Labels, _: int) -> float:
    # The mean recall of the classes that occur: scikit-learn's, without its warning about those that do not.
    return float(np.mean([np.mean(found[truth == one] == one) for one in np.unique(truth)]))


def _mcc(truth: Labels, found: Labels, _: int) -> float:
    if truth.min() == truth.max():
        raise ValueError("all rows are of one class")
    return float(sklearn_metrics().matthews_corrcoef(truth, found))


def _kappa(truth: Labels, found: Labels, _: int) -> float:
    if truth.min() == truth.max() == found.min() == found.max():
        raise ValueError("all rows are of one class, and said to be")
    return float(sklearn_metrics().cohen_kappa_score(truth, found))


def _scored(name: str, average: str | None = None, positive: int = 1) -> Callable[..., float]:
    """Precision, recall, Jaccard or F over classes: the positive one of two, else the mean over those that occur.

    Counted here, since a bootstrap asks thousands of times and scikit-learn checks its input each time.
    """

    def formula(truth: Labels, found: Labels, classes: int, beta: float = 1.0) -> float:
        right = np.bincount(truth[truth == found], minlength=max(classes, 2)).astype(np.float64)
        said, true = (np.bincount(one, minlength=right.size).astype(np.float64) for one in (found, truth))
        chosen = average or ("binary" if classes <= 2 else "macro")
        if chosen == "binary":
            if name != "precision" and true[positive] + (0 if name == "recall" else said[positive]) == 0:
                raise ValueError("no row is of the class asked about")
            return float(_score(name, right, said, true, beta)[positive])
        if chosen == "micro":
            right, said, true = (one.sum(keepdims=True) for one in (right, said, true))
            return float(_score(name, right, said, true, beta)[0])
        weights = true if chosen == "weighted" else (said + true > 0).astype(np.float64)
        return float(np.average(_score(name, right, said, true, beta), weights=weights))

    return formula


def _score(name: str, right: Floats, said: Floats, true: Floats, beta: float) -> Floats:
    """The score of each class; 0 for one that never occurs where the score asks for it."""
    square = beta * beta
    above, below = {
        "precision": (right, said),
        "recall": (right, true),
        "jaccard": (right, said + true - right),
        "f": ((1 + square) * right, square * true + said),
    }[name]
    score: Floats = np.divide(above, below, out=np.zeros_like(right), where=below > 0)
    return score


def _specificity(truth: Labels, found: Labels, classes: int) -> float:
    if classes > 2:
        raise ValueError("it is for two classes; take recall_macro")
    return _scored("recall", "binary", 0)(truth, found, classes)


def _all_classes(truth: Labels, scores: Floats) -> int:
    classes = scores.shape[1] if scores.ndim == 2 else 2
    if missing := classes - np.unique(truth).size:
        raise ValueError(f"{missing} of {classes} classes have no row")
    return classes


def _roc_auc(manner: str) -> Callable[..., float]:
    def formula(truth: Labels, scores: Floats) -> float:
        classes = _all_classes(truth, scores)
        if classes == 2:
            return area_under_curve(truth == 1, scores)
        if manner == "ovo":
            area = sklearn_metrics().roc_auc_score
            # It insists on rows that sum to 1 to the last digit.
            return float(area(truth, scores / scores.sum(axis=1, keepdims=True), multi_class="ovo"))
        return float(np.mean([area_under_curve(truth == one, scores[:, one]) for one in range(classes)]))

    return formula


def _pr_auc(truth: Labels, scores: Floats) -> float:
    classes = _all_classes(truth, scores)
    area = sklearn_metrics().average_precision_score
    if classes == 2:
        return float(area(truth, scores))
    return float(np.mean([area(truth == one, scores[:, one]) for one in range(classes)]))


def _top_k(truth: Labels, scores: Floats, k: float) -> float:
    table = scores if scores.ndim == 2 else np.stack([1 - scores, scores], axis=1)
    own = table[np.arange(truth.size), truth][:, None]
    # Ties count against the model: a constant answer is not right about everything.
    return float(np.mean(np.sum(table >= own, axis=1) <= k))


def _log_loss(truth: Labels, said: Floats) -> float:
    own = np.where(truth == 1, said, 1 - said) if said.ndim == 1 else said[np.arange(truth.size), truth]
    if said.ndim == 2:
        own = own / said.sum(axis=1)
    # As scikit-learn has it: what was called impossible costs 36 nats, and no infinity.
    return -float(np.mean(np.log(np.clip(own, np.finfo(np.float64).eps, 1))))


def _brier(truth: Labels, said: Floats) -> float:
    if said.ndim == 1:
        return float(np.mean((said - truth) ** 2))
    wanted = np.zeros_like(said)
    wanted[np.arange(truth.size), truth] = 1
    return float(np.mean(np.sum((said - wanted) ** 2, axis=1)))


def _ece(truth: Labels, said: Floats) -> float:
    return calibration_error(*((truth, said) if said.ndim == 1 else top_label(truth, said))).ece


def _regression(name: str) -> Callable[..., float]:
    return lambda truth, found: float(getattr(sklearn_metrics(), name)(truth, found))


def _explained(name: str) -> Callable[..., float]:
    def formula(truth: Floats, found: Floats) -> float:
        if truth.size < 2 or truth.min() == truth.max():
            raise ValueError("the true values do not differ")
        return float(getattr(sklearn_metrics(), name)(truth, found))

    return formula


def _mape(truth: Floats, found: Floats) -> float:
    if zeros := int(np.sum(truth == 0)):
        raise ValueError(f"{zeros} true values are 0")
    return float(sklearn_metrics().mean_absolute_percentage_error(truth, found))


def _pinball(truth: Floats, found: Floats, quantile: float) -> float:
    return float(sklearn_metrics().mean_pinball_loss(truth, found, alpha=quantile))


def _ndcg(truth: Floats, scores: Floats, *k: float) -> float:
    _some_relevant(truth)
    return float(sklearn_metrics().ndcg_score(truth, scores, k=int(k[0]) if k else None))


def _map(truth: Floats, scores: Floats) -> float:
    _some_relevant(truth)
    area = sklearn_metrics().average_precision_score
    return float(np.mean([area(one > 0, said) for one, said in zip(truth, scores, strict=True)]))


def _mrr(truth: Floats, scores: Floats) -> float:
    _some_relevant(truth)
    best = np.where(truth > 0, scores, -np.inf).max(axis=1, keepdims=True)
    # Ties count against the model, here and in recall_at.
    ahead = np.sum((scores >= best) & (truth == 0), axis=1)
    return float(np.mean(1 / (1 + ahead)))


def _recall_at(truth: Floats, scores: Floats, k: float) -> float:
    _some_relevant(truth)
    order = np.lexsort((truth, -scores), axis=1)
    top = np.take_along_axis(truth > 0, order, axis=1)[:, : int(k)]
    return float(np.mean(top.sum(axis=1) / (truth > 0).sum(axis=1)))


def _some_relevant(truth: Floats) -> None:
    if without := int(np.sum(truth.max(axis=1) <= 0)):
        raise ValueError(f"{without} queries have no relevant document")


FORMULAS_OF_CLASSES: Final[dict[str, Row]] = {
    "accuracy": ("labels", True, "share of rows that are right", _accuracy),
    "balanced_accuracy": ("labels", True, "mean recall of the classes that occur", _balanced_accuracy),
    "precision": ("labels", True, "share of right ones among those said to be positive", _scored("precision")),
    "recall": ("labels", True, "share of the positive ones that are found", _scored("recall")),
    "specificity": ("labels", True, "share of the negative ones that are left alone", _specificity),
    "f1": ("labels", True, "harmonic mean of precision and recall", _scored("f")),
    "fbeta": ("labels", True, "the same, recall weighing beta times as much", _scored("f"), 1.0),
    "f1_macro": ("labels", True, "F1 of each class, averaged", _scored("f", "macro")),
    "f1_micro": ("labels", True, "F1 over all decisions", _scored("f", "micro")),
    "f1_weighted": ("labels", True, "F1 of each class, averaged by its rows", _scored("f", "weighted")),
    "precision_macro": ("labels", True, "precision of each class, averaged", _scored("precision", "macro")),
    "recall_macro": ("labels", True, "recall of each class, averaged", _scored("recall", "macro")),
    "jaccard": ("labels", True, "overlap of said and true over their union", _scored("jaccard")),
    "mcc": ("labels", True, "Matthews' correlation of said and true", _mcc),
    "cohen_kappa": ("labels", True, "agreement beyond chance", _kappa),
    "roc_auc": ("scores", True, "chance that a positive row ranks above a negative one", _roc_auc("ovr")),
    "roc_auc_ovo": ("scores", True, "the same, averaged over pairs of classes", _roc_auc("ovo")),
    "pr_auc": ("scores", True, "average precision along the ranking", _pr_auc),
    "top_k_accuracy": ("scores", True, "share of rows whose class is among the k highest", _top_k, 2.0),
    "log_loss": ("probabilities", False, "mean surprise in nats", _log_loss),
    "brier": ("probabilities", False, "mean squared error of the probabilities", _brier),
    "ece": ("probabilities", False, "expected calibration error over ten bins of equal width", _ece),
}
"""Of several classes precision, recall, F and areas are averaged over classes, Brier's score is summed over
them, and the calibration error is that of the most probable class."""

FORMULAS_OF_NUMBERS: Final[dict[str, Row]] = {
    "rmse": ("values", False, "root of the mean squared error", _regression("root_mean_squared_error")),
    "mse": ("values", False, "mean squared error", _regression("mean_squared_error")),
    "mae": ("values", False, "mean absolute error", _regression("mean_absolute_error")),
    "median_absolute_error": ("values", False, "median absolute error", _regression("median_absolute_error")),
    "max_error": ("values", False, "largest error", _regression("max_error")),
    "mape": ("values", False, "mean absolute error as a share of the true value", _mape),
    "rmsle": ("values", False, "root mean squared error of log(1 + value)", _regression("root_mean_squared_log_error")),
    "pinball": ("values", False, "loss of a predicted quantile, the median by default", _pinball, 0.5),
    "r2": ("values", True, "share of variance explained", _explained("r2_score")),
    "explained_variance": ("values", True, "the same, whatever the bias", _explained("explained_variance_score")),
}

FORMULAS_OF_RANKINGS: Final[dict[str, Row]] = {
    "ndcg": ("rankings", True, "discounted gain over the best possible, of the first k or all", _ndcg),
    "map": ("rankings", True, "mean average precision", _map),
    "mrr": ("rankings", True, "mean of 1 / rank of the first relevant document", _mrr),
    "recall_at": ("rankings", True, "share of the relevant documents among the first k", _recall_at, 10.0),
}
