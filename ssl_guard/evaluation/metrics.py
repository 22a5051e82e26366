"""Metrics of scores and labels of one set; scikit-learn computes those that it has."""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    log_loss,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

RECALL_AT = {"recall_at_0.1_fpr": 0.001, "recall_at_1_fpr": 0.01, "recall_at_5_fpr": 0.05}
AT_HALF = ("f1", "precision", "recall", "fpr")  # at a threshold of 0.5 as well
BINS = 15  # of the calibration error


def best_f1_threshold(
    labels: np.ndarray, scores: np.ndarray, *, prevalence: float | None = None
) -> float:
    """Returns the threshold t for which `score >= t` has the largest F1 of the harmful class.

    labels: int [rows] in {0, 1}; scores: float [rows]; prevalence: share of traffic that is
    harmful, None for that of these rows. t lies halfway between two observed scores, so that
    rounding does not change a verdict; of equally good ones the one nearest 0.5 wins. Meant for dev
    or calibration rows, never for test.
    """
    edges, hits, alarms, harmful, safe = _confusions(labels, scores)
    weight = 1.0  # of a safe row against a harmful one
    if prevalence is not None:
        weight = (1 - prevalence) / prevalence * harmful / safe
    f1 = 2 * hits / np.maximum(hits + weight * alarms + harmful, 1)
    return _best(edges[:-1], f1[:-1])  # the last edge flags nothing


def cheapest_threshold(
    labels: np.ndarray,
    scores: np.ndarray,
    *,
    prevalence: float,
    false_positive: float,
    false_negative: float,
) -> float:
    """Returns the threshold of the least expected cost per row, given the cost of each error.

    It flags no row where that is cheapest. The arguments are those of `best_f1_threshold`.
    """
    edges, hits, alarms, harmful, safe = _confusions(labels, scores)
    recall, fpr = hits / harmful, alarms / safe
    cost = false_positive * (1 - prevalence) * fpr + false_negative * prevalence * (1 - recall)
    return _best(edges, -cost)


def _confusions(labels, scores) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Returns (edges, hits, alarms, harmful, safe).

    edges: every distinct threshold, ascending; hits, alarms: its true and false positives; harmful,
    safe: rows of each class.
    """
    levels = np.unique(scores)
    edges = np.concatenate(
        [levels[:1], (levels[1:] + levels[:-1]) / 2, np.nextafter(levels[-1:], 2)]
    )
    harmful, safe = (np.sort(scores[labels == label]) for label in (1, 0))
    hits, alarms = (len(part) - np.searchsorted(part, edges) for part in (harmful, safe))
    return edges, hits, alarms, len(harmful), len(safe)


def _best(edges: np.ndarray, values: np.ndarray) -> float:
    """Returns the edge of the largest value; of equally good ones the one nearest 0.5."""
    best = np.flatnonzero(values >= values.max() - 1e-12)
    return float(edges[best[np.argmin(np.abs(edges[best] - 0.5))]])


def recall_at_fpr(labels: np.ndarray, scores: np.ndarray, max_fpr: float) -> float:
    """Computes the largest recall of the harmful class at an FPR of at most max_fpr."""
    # drop_intermediate would drop points on a slope, the best one under the limit among them
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(tpr[fpr <= max_fpr + 1e-12].max())


def expected_calibration_error(labels: np.ndarray, scores: np.ndarray, bins: int = BINS) -> float:
    """Computes the ECE of the harmful probability: sum_b n_b/n |mean label - mean score|.

    The bins have equal mass: rows are sorted by score and cut into `bins` parts whose sizes differ
    by at most one.
    """
    order = np.argsort(scores, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    gaps = [len(p) * abs(labels[p].mean() - scores[p].mean()) for p in parts]
    return float(sum(gaps) / len(order))


def brier(labels: np.ndarray, scores: np.ndarray) -> float:
    """Computes the mean squared error of the harmful probability."""
    return float(np.square(scores - labels).mean())


def binary_scores(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, float]:
    """Computes all metrics of a labelled set; F1, precision and recall are of the harmful class.

    labels: int [rows] in {0, 1}; scores: harmful probability [rows]. best_f1 is F1 at the threshold
    that is best on the same rows: an upper bound, not a result. A set of one class has only the
    metrics that it defines: FPR for safe rows, recall for harmful ones.
    """
    harmful, safe = int((labels == 1).sum()), int((labels == 0).sum())

    def at(limit: float) -> dict:
        called = labels[scores >= limit]
        return rates(int((called == 1).sum()), int((called == 0).sum()), harmful, safe)

    found = defined(at(threshold), at(0.5), labels)
    if not harmful or not safe:
        return {name: float(value) for name, value in found.items()}
    found |= {
        "best_f1": at(best_f1_threshold(labels, scores))["f1"],
        "auprc": average_precision_score(labels, scores),
        "auroc": roc_auc_score(labels, scores),
        "ece": expected_calibration_error(labels, scores),
        "brier": brier(labels, scores),
    }
    found |= {name: recall_at_fpr(labels, scores, limit) for name, limit in RECALL_AT.items()}
    return {name: float(value) for name, value in found.items()}


def rates(true_positive, false_positive, harmful, safe) -> dict:
    """Computes the metrics of a confusion matrix of counts or arrays of counts; 0 / 0 is 0."""
    true_negative = safe - false_positive
    called_safe = true_negative + harmful - true_positive
    found = {
        "f1": 2 * true_positive / np.maximum(true_positive + false_positive + harmful, 1),
        "precision": true_positive / np.maximum(true_positive + false_positive, 1),
        "recall": true_positive / np.maximum(harmful, 1),
        "fpr": false_positive / np.maximum(safe, 1),
        "accuracy": (true_positive + true_negative) / np.maximum(harmful + safe, 1),
    }
    f1_safe = 2 * true_negative / np.maximum(called_safe + safe, 1)
    return found | {
        "macro_f1": (found["f1"] + f1_safe) / 2,
        "balanced_accuracy": (found["recall"] + 1 - found["fpr"]) / 2,
    }


def defined(chosen: dict, at_half: dict, labels: np.ndarray) -> dict:
    """Names the `rates` at the chosen threshold and at 0.5, and keeps those that are defined."""
    both = chosen | {f"{name}_at_half": at_half[name] for name in AT_HALF}
    kept = {(0,): ("fpr", "fpr_at_half"), (1,): ("recall", "recall_at_half")}
    return {name: both[name] for name in kept.get(tuple(np.unique(labels)), both)}


def by_value(
    labels: np.ndarray, scores: np.ndarray, threshold: float, values: list[str | None]
) -> dict[str, dict[str, float]]:
    """Returns {value: {"rows", "harmful", **binary_scores}} of the rows with each value.

    The largest slice comes first; rows whose value is None are in no slice.
    """
    found = {}
    for value in {value for value in values if value is not None}:
        rows = np.array([other == value for other in values])
        counts = {"rows": int(rows.sum()), "harmful": int(labels[rows].sum())}
        found[value] = counts | binary_scores(labels[rows], scores[rows], threshold)
    return dict(sorted(found.items(), key=lambda item: (-item[1]["rows"], item[0])))


def reliability(labels: np.ndarray, scores: np.ndarray, bins: int = BINS) -> list[dict]:
    """Lists mean score, share of harmful rows and rows of each calibration bin."""
    order = np.argsort(scores, kind="stable")
    return [
        {
            "score": float(scores[part].mean()),
            "harmful_share": float(labels[part].mean()),
            "rows": len(part),
        }
        for part in np.array_split(order, min(bins, len(order)))
    ]


def precision_recall(labels: np.ndarray, scores: np.ndarray, points: int = 200) -> dict[str, list]:
    """Computes the precision-recall curve, thinned to at most `points`, recall falling."""
    precision, recall, thresholds = precision_recall_curve(labels, scores, drop_intermediate=True)
    kept = np.unique(np.linspace(0, len(thresholds) - 1, points).astype(int))
    curve = {"recall": recall, "precision": precision, "threshold": thresholds}
    return {name: np.round(values[kept], 7).tolist() for name, values in curve.items()}


def dev_scores(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Computes the metrics of dev at its best threshold, and the threshold itself."""
    threshold = best_f1_threshold(labels, scores)
    return {"threshold": threshold, **binary_scores(labels, scores, threshold)}


def precision_loss(labels: np.ndarray, scores: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Compares scores in lower precision with exact ones of the same weights.

    Returns {"loss": relative difference of the log loss, "score": largest difference}.
    """
    loss, exact_loss = (log_loss(labels, s, labels=(0, 1)) for s in (scores, exact))
    return {"loss": loss / exact_loss - 1, "score": float(np.abs(scores - exact).max())}


class Interval(NamedTuple):
    """A value with the 2.5% and 97.5% percentiles of its bootstrap distribution."""

    value: float
    low: float
    high: float
