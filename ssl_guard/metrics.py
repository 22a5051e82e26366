"""Streaming metrics as (sum, weight) pairs, and the scores of a finished evaluation.

scikit-learn computes whatever it has; only the pairs, the operating points and the bootstrap are
ours.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn import config_context
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

Metrics = dict[str, tuple]

# Lower ends, in nats, of the histograms of margins: the weak view's logit of the pseudo-label less
# the largest other one. The last bin is open.
MARGINS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)


def merge(parts: list[Metrics]) -> dict[str, float | list[float]]:
    """Weighted means over any number of steps; a metric whose weight is zero is left out.

    The value of a histogram is an array of counts: it gives a list of shares.
    """
    sums: dict[str, list] = {}
    for part in parts:
        for name, (value, weight) in part.items():
            pair = sums.setdefault(name, [0.0, 0.0])
            pair[0] = pair[0] + np.asarray(value, float)
            pair[1] += float(weight)
    return {name: (value / weight).tolist() for name, (value, weight) in sums.items() if weight > 0}


def best_f1_threshold(labels: np.ndarray, scores: np.ndarray) -> float:
    """The threshold t for which `score >= t` has the largest F1 of the harmful class.

    labels: int [rows] in {0, 1}; scores: float [rows]. t lies halfway between two observed scores,
    so that rounding does not move a verdict; of equally good ones the one nearest 0.5 wins. Meant
    for the dev split, never for test.
    """
    levels = np.unique(scores)
    edges = np.concatenate([levels[:1], (levels[1:] + levels[:-1]) / 2])
    order = np.sort(scores[labels == 1]), np.sort(scores)
    true_positive = len(order[0]) - np.searchsorted(order[0], edges)
    predicted = len(order[1]) - np.searchsorted(order[1], edges)
    f1 = 2 * true_positive / np.maximum(predicted + len(order[0]), 1)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(edges[best[np.argmin(np.abs(edges[best] - 0.5))]])


def recall_at_fpr(labels: np.ndarray, scores: np.ndarray, max_fpr: float) -> float:
    """Largest recall of the harmful class at a false positive rate of at most max_fpr."""
    # drop_intermediate would drop points on a slope, the best one under the limit among them
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(tpr[fpr <= max_fpr + 1e-12].max())


def expected_calibration_error(labels: np.ndarray, scores: np.ndarray, bins: int = 15) -> float:
    """ECE of the harmful probability over equal-mass bins: sum_b n_b/n |mean label - mean score|.

    Rows are sorted by score and cut into `bins` parts whose sizes differ by at most one.
    """
    order = np.argsort(scores, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    gaps = [len(p) * abs(labels[p].mean() - scores[p].mean()) for p in parts]
    return float(sum(gaps) / len(order))


def binary_scores(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """What a run reports on one labelled set; F1, precision and recall are of the harmful class.

    labels: int [rows] in {0, 1}, both present; scores: harmful probability [rows].
    """
    verdict = scores >= threshold
    hits = float((verdict & (labels == 1)).sum())
    return {
        "f1": f1(labels, verdict),
        "precision": hits / max(verdict.sum(), 1),
        "recall": hits / labels.sum(),
        "f1_at_half": f1(labels, scores >= 0.5),
        "auprc": float(average_precision_score(labels, scores)),
        "auroc": float(roc_auc_score(labels, scores)),
        "recall_at_1_fpr": recall_at_fpr(labels, scores, 0.01),
        "ece": expected_calibration_error(labels, scores),
        "accuracy": float((verdict == labels).mean()),
    }


def f1(labels: np.ndarray, verdict: np.ndarray) -> float:
    """F1 of the harmful class; labels: int [rows] in {0, 1}, one of them 1; verdict: bool [rows].

    Written out because a bootstrap calls it thousands of times.
    """
    return float(2 * (verdict & (labels == 1)).sum() / (verdict.sum() + labels.sum()))


class Interval(NamedTuple):
    """A value with the 2.5% and 97.5% percentiles of its bootstrap distribution."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[[np.ndarray], dict[str, float]],
    groups: np.ndarray,
    labels: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile bootstrap over groups of rows that belong together (responses to one prompt).

    statistic(rows) -> named values for an int array of row numbers with repeats. Resamples that
    hold one class only are drawn again: no ranking metric is defined there.
    """
    point = statistic(np.arange(len(labels)))
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    if len(np.unique(labels)) < 2:
        raise ValueError("a bootstrap needs rows of both classes")
    rng = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {name: [] for name in point}
    with config_context(assume_finite=True, skip_parameter_validation=True):  # three times faster
        while len(draws[next(iter(point))]) < resamples:
            drawn = rng.integers(len(members), size=len(members))
            rows = np.concatenate([members[i] for i in drawn])
            if labels[rows].min() == labels[rows].max():
                continue
            for name, value in statistic(rows).items():
                draws[name].append(value)
    return {
        name: Interval(value, *(float(q) for q in np.percentile(draws[name], [2.5, 97.5])))
        for name, value in point.items()
    }
