"""Scores against scikit-learn, brute force and closed forms."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    precision_score,
    recall_score,
    roc_curve,
)

from ssl_guard.evaluation import metrics
from ssl_guard.runtime.metrics import merge


@pytest.fixture(params=range(3))
def case(request):
    rng = np.random.default_rng(request.param)
    labels = rng.integers(0, 2, 60)
    scores = np.round(rng.random(60) * 0.6 + labels * 0.3, 2)  # rounding makes ties
    return labels, scores


def test_merge_is_the_mean_over_rows_not_over_steps():
    merged = merge([{"a": (6.0, 3.0), "b": (0.0, 0.0)}, {"a": (0.0, 1.0), "b": (0.0, 0.0)}])
    assert merged == {"a": 1.5}


def test_best_threshold_reaches_the_brute_force_f1(case):
    labels, scores = case
    threshold = metrics.best_f1_threshold(labels, scores)
    best = max(f1_score(labels, scores >= t) for t in np.unique(scores))
    assert f1_score(labels, scores >= threshold) == pytest.approx(best)


def test_threshold_lies_between_observed_scores():
    threshold = metrics.best_f1_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert threshold == pytest.approx(0.5)


def test_recall_at_fpr_against_every_threshold(case):
    labels, scores = case
    fpr, tpr, _ = roc_curve(labels, scores)
    brute = max(
        (scores[labels == 1] >= t).mean()
        for t in [np.inf, *np.unique(scores)]
        if (scores[labels == 0] >= t).mean() <= 0.1
    )
    assert metrics.recall_at_fpr(labels, scores, 0.1) == pytest.approx(brute)
    assert metrics.recall_at_fpr(labels, scores, 1.0) == 1.0


def test_ece_closed_forms():
    labels = np.array([0, 1] * 30)
    assert metrics.expected_calibration_error(labels, np.full(60, 0.5), bins=1) == 0
    assert metrics.expected_calibration_error(labels, labels.astype(float)) == 0
    assert metrics.expected_calibration_error(labels, 1.0 - labels, bins=10) == pytest.approx(1.0)
    assert metrics.expected_calibration_error(np.array([1]), np.array([0.25])) == 0.75


@pytest.mark.parametrize("threshold", [0.0, 0.45, 2.0])
def test_counts_equal_scikit_learn(case, threshold):
    labels, scores = case
    verdict = scores >= threshold
    ours = metrics.binary_scores(labels, scores, threshold)
    options = {"zero_division": 0}
    expected = {
        "f1": f1_score(labels, verdict, **options),
        "precision": precision_score(labels, verdict, **options),
        "recall": recall_score(labels, verdict, **options),
        "fpr": 1 - recall_score(labels, verdict, pos_label=0, **options),
        "accuracy": accuracy_score(labels, verdict),
        "macro_f1": f1_score(labels, verdict, average="macro", **options),
        "balanced_accuracy": balanced_accuracy_score(labels, verdict),
        "f1_at_half": f1_score(labels, scores >= 0.5),
        "precision_at_half": precision_score(labels, scores >= 0.5),
        "recall_at_half": recall_score(labels, scores >= 0.5),
        "fpr_at_half": 1 - recall_score(labels, scores >= 0.5, pos_label=0),
        "best_f1": max(f1_score(labels, scores >= t) for t in np.unique(scores)),
        "brier": brier_score_loss(labels, scores),
    }
    assert {name: ours[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("label", [0, 1])
def test_what_needs_both_classes_is_not_there_for_one(label):
    found = metrics.binary_scores(np.full(4, label), np.array([0.2, 0.5, 0.6, 0.9]), 0.55)
    name = ("fpr", "recall")[label]
    assert found == {name: 0.5, f"{name}_at_half": 0.75}


def test_dev_scores_are_at_the_best_threshold(case):
    found = metrics.dev_scores(*case)
    assert found["threshold"] == metrics.best_f1_threshold(*case)
    assert found["f1"] == found["best_f1"] > metrics.binary_scores(*case, 0.99)["f1"]


def test_the_loss_of_rounded_scores_against_its_definition():
    labels, exact = np.array([1, 0, 1, 1]), np.array([0.9, 0.2, 0.6, 0.3])
    rounded = np.array([0.875, 0.25, 0.625, 0.25])

    def loss(scores):
        return -np.log(np.where(labels == 1, scores, 1 - scores)).mean()

    found = metrics.precision_loss(labels, rounded, exact)
    assert found == pytest.approx({"loss": loss(rounded) / loss(exact) - 1, "score": 0.05})
    assert metrics.precision_loss(labels, exact, exact) == {"loss": 0, "score": 0}


def test_scores_by_value_are_the_scores_of_those_rows(case):
    labels, scores = case
    values = [("a", "b", None)[i % 3] for i in range(len(labels))]
    values[1] = "alone"
    found = metrics.by_value(labels, scores, 0.4, values)
    assert list(found) == ["a", "b", "alone"]  # the largest first, none for None
    expected = metrics.binary_scores(labels[0::3], scores[0::3], 0.4)
    assert found["a"] == {"rows": 20, "harmful": labels[0::3].sum(), **expected}
    assert ("recall" in found["alone"]) == (labels[1] == 1) and "f1" not in found["alone"]


def test_reliability_bins_are_those_of_the_calibration_error(case):
    labels, scores = case
    bins = metrics.reliability(labels, scores)
    sizes = np.array([part["rows"] for part in bins])
    gaps = [abs(part["score"] - part["harmful_share"]) for part in bins]
    assert sizes.sum() == len(labels) and len(bins) == 15 and set(sizes) == {4}
    expected = metrics.expected_calibration_error(labels, scores)
    assert sizes @ gaps / len(labels) == pytest.approx(expected)


def test_the_curve_has_points_of_the_whole_one(case):
    labels, scores = case
    for points in (7, 1000):
        curve = metrics.precision_recall(labels, scores, points=points)
        assert len(curve["recall"]) <= points and curve["recall"][0] == 1
        for recall, precision, t in zip(*curve.values(), strict=True):
            assert precision == pytest.approx(precision_score(labels, scores >= t), abs=1e-6)
            assert recall == pytest.approx(recall_score(labels, scores >= t), abs=1e-6)


def test_perfect_scores_are_perfect():
    labels = np.array([0, 1, 0, 1])
    scores = metrics.binary_scores(labels, labels * 0.98 + 0.01, 0.5)
    assert all(scores[name] == 1 for name in ("f1", "auprc", "auroc", "recall_at_1_fpr"))
