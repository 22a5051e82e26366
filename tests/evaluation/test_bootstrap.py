"""Bootstrap intervals against scikit-learn with weights, resampling by index, and hand counts."""

import numpy as np
import pytest
from sklearn import metrics as sk

from ssl_guard.evaluation import bootstrap, metrics


def rows(seed, count=80, decimals=2):
    """Labels and scores with many ties, scores at 0.5 among them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    return labels, np.round(rng.random(count) * 0.6 + labels * 0.3, decimals)


def slow_bootstrap(statistic, groups, labels, *, resamples, seed):
    """The values of statistic(row numbers) on each resample, drawn one by one."""
    members = [np.flatnonzero(groups == g) for g in np.unique(groups)]
    rng, draws = np.random.default_rng(seed), []
    while len(draws) < resamples:
        drawn = rng.integers(len(members), size=len(members))
        numbers = np.concatenate([members[i] for i in drawn])
        if labels[numbers].min() < labels[numbers].max():
            draws.append(statistic(numbers))
    point = statistic(np.arange(len(labels)))
    return {
        name: (point[name], *np.percentile([draw[name] for draw in draws], [2.5, 97.5]))
        for name in point
    }


@pytest.fixture(params=range(3))
def case(request):
    labels, scores = rows(request.param)
    return labels, scores, np.random.default_rng(request.param).integers(30, size=len(labels))


def test_the_mean_over_seeds_draws_them_anew_for_every_resample():
    drawn = np.random.default_rng(1).random((3, 50))
    found, rng = bootstrap.mean_over_seeds(drawn), np.random.default_rng(0)
    for resample, value in enumerate(found):
        seeds = rng.integers(3, size=3)
        assert value == pytest.approx(np.mean([drawn[seed, resample] for seed in seeds]))
    np.testing.assert_array_equal(bootstrap.mean_over_seeds(drawn[:1]), drawn[0])
    paired = bootstrap.mean_over_seeds(drawn + 0.25) - found
    np.testing.assert_allclose(paired, 0.25, rtol=1e-12)


def test_weighted_scores_equal_scikit_learn_with_sample_weights(case):
    labels, scores, groups = case
    weights = np.concatenate(list(bootstrap.resampled(labels, groups, 5, seed=1)))
    assert (weights == 0).any() and weights.max() > 1
    found = bootstrap.weighted_scores(labels, scores, 0.45, weights)
    for r, w in enumerate(weights):
        options = {"sample_weight": w, "zero_division": 0}
        for suffix, limit in (("", 0.45), ("_at_half", 0.5)):
            verdict = (scores >= limit).astype(int)
            expected = {
                "f1": sk.f1_score(labels, verdict, **options),
                "precision": sk.precision_score(labels, verdict, **options),
                "recall": sk.recall_score(labels, verdict, **options),
                "fpr": 1 - sk.recall_score(labels, verdict, pos_label=0, **options),
            }
            for name, value in expected.items():
                assert found[name + suffix][r] == pytest.approx(value, abs=1e-12), name
        verdict = (scores >= 0.45).astype(int)
        fpr, tpr, _ = sk.roc_curve(labels, scores, sample_weight=w, drop_intermediate=False)
        precision, recall, _ = sk.precision_recall_curve(labels, scores, sample_weight=w)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
        expected = {
            "accuracy": sk.accuracy_score(labels, verdict, sample_weight=w),
            "macro_f1": sk.f1_score(labels, verdict, average="macro", **options),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, verdict, sample_weight=w),
            "auprc": sk.average_precision_score(labels, scores, sample_weight=w),
            "auroc": sk.roc_auc_score(labels, scores, sample_weight=w),
            "best_f1": f1.max(),
            "brier": sk.brier_score_loss(labels, scores, sample_weight=w),
            "recall_at_0.1_fpr": tpr[fpr <= 0.001 + 1e-12].max(),
            "recall_at_1_fpr": tpr[fpr <= 0.01 + 1e-12].max(),
            "recall_at_5_fpr": tpr[fpr <= 0.05 + 1e-12].max(),
        }
        for name, value in expected.items():
            assert found[name][r] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("count", [300, 9])  # fewer rows than calibration bins, too
def test_weighted_scores_equal_scores_of_the_rows_drawn(count):
    labels, scores = rows(3, count, decimals=9)
    labels[:2], groups = (0, 1), np.arange(count) // 3
    weights = np.concatenate(list(bootstrap.resampled(labels, groups, 34, seed=0)))
    found = bootstrap.weighted_scores(labels, scores, 0.45, weights)
    assert found.keys() == metrics.binary_scores(labels, scores, 0.45).keys()
    for r, w in enumerate(weights):
        drawn = np.repeat(np.arange(count), w)
        for name, value in metrics.binary_scores(labels[drawn], scores[drawn], 0.45).items():
            assert found[name][r] == pytest.approx(value, abs=1e-12), name


def test_intervals_are_those_of_the_slow_bootstrap(case):
    labels, scores, groups = case
    scores = scores + np.arange(len(scores)) * 1e-6  # a calibration error without ties
    fast = bootstrap.score_intervals(labels, scores, 0.45, groups, resamples=20, seed=5)
    slow = slow_bootstrap(
        lambda r: metrics.binary_scores(labels[r], scores[r], 0.45),
        groups,
        labels,
        resamples=20,
        seed=5,
    )
    assert fast.keys() == slow.keys()
    for name in fast:
        np.testing.assert_allclose(list(fast[name].values()), slow[name], atol=1e-12, err_msg=name)


def test_groups_are_drawn_whole_and_both_classes_are_there():
    labels, groups = np.array([1, 0, 0, 0, 0, 0]), np.array([7, 7, 3, 3, 3, 9])
    drawn = np.concatenate(list(bootstrap.resampled(labels, groups, 100, seed=0)))
    assert drawn.shape == (100, 6)
    for members in ([0, 1], [2, 3, 4]):
        assert (drawn[:, members] == drawn[:, members[:1]]).all()
    assert (drawn[:, 0] + drawn[:, 2] + drawn[:, 5] == 3).all()  # three groups are drawn
    assert (drawn[:, 0] > 0).all()  # else there is no harmful row


@pytest.mark.parametrize(("label", "names"), [(0, ["fpr"]), (1, ["recall"])])
def test_one_class_has_an_interval_of_what_it_has(label, names):
    scores = np.array([0.1, 0.6, 0.9, 0.2, 0.7])
    found = bootstrap.score_intervals(np.full(5, label), scores, 0.65, np.arange(5))
    assert list(found) == [*names, f"{names[0]}_at_half"]
    assert found[names[0]]["value"] == 0.4 and found[f"{names[0]}_at_half"]["value"] == 0.6
    assert 0 <= found[names[0]]["low"] < 0.4 < found[names[0]]["high"] <= 1


def test_p_values_by_hand():
    assert bootstrap.p_value(np.ones(999)) == 2 * 1 / 1000
    assert bootstrap.p_value(-np.ones(999)) == 2 * 1 / 1000
    assert bootstrap.p_value(np.array([-1.0, 1, 1, 1, 1, 1, 1, 1, 1])) == 2 * 2 / 10
    assert bootstrap.p_value(np.zeros(9)) == 1


def test_holm_by_hand():
    """Holm 1979: sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, made to rise."""
    found = bootstrap.holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02])
    assert bootstrap.holm([0.9, 0.8]) == [1, 1]
    assert bootstrap.holm([0.02]) == [0.02] and bootstrap.holm([]) == []


def test_mean_interval_is_the_normal_one():
    values = np.random.default_rng(0).normal(size=500)
    found = bootstrap.mean_interval(values, np.arange(500))
    half = 1.96 * values.std() / 500**0.5
    np.testing.assert_allclose(found, values.mean() + np.array([0, -half, half]), atol=0.02)


def test_bootstrap_of_a_mean_covers_like_the_normal_interval():
    rng = np.random.default_rng(1)
    values = rng.normal(size=400)
    groups = np.arange(400)
    interval = bootstrap.mean_interval(values, groups)
    half = 1.96 * values.std() / 20
    assert interval.value == pytest.approx(values.mean())
    np.testing.assert_allclose(
        [interval.low, interval.high], values.mean() + [-half, half], atol=0.02
    )


def test_bootstrap_draws_whole_groups():
    """Ten copies of each row carry no more evidence than one: the interval must not shrink."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=50)
    one = bootstrap.mean_interval(values, np.arange(50))
    many = np.repeat(values, 10)
    groups = np.repeat(np.arange(50), 10)
    ten = bootstrap.mean_interval(many, groups)
    assert ten.high - ten.low == pytest.approx(one.high - one.low, rel=0.1)


def test_an_interval_holds_its_estimate():
    """Of few, well calibrated rows too: there resampling raises the calibration error."""
    rng = np.random.default_rng(3)
    scores = rng.random(100)
    labels, groups = (rng.random(100) < scores).astype(int), np.arange(100)
    found = bootstrap.score_intervals(labels, scores, 0.5, groups, resamples=200)
    drawn = [
        bootstrap.weighted_scores(labels, scores, 0.5, weights)["ece"]
        for weights in bootstrap.resampled(labels, groups, 200, seed=0)
    ]
    assert found["ece"]["value"] < np.percentile(np.concatenate(drawn), 2.5)
    for name, score in found.items():
        assert score["low"] <= score["value"] <= score["high"], name
