"""Calibrators and thresholds against scipy, scikit-learn, closed forms and brute force; promises
against simulated traffic whose true rates are known."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import beta, binom, binomtest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix, f1_score

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import calibrators, metrics, operating_point

KINDS = list(calibrators.FITS)


def draw(seed=0, safe=120, harmful=60, digits=2):
    """Labels and overlapping scores; few digits make ties, 0 and 1 occur exactly."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], [safe, harmful]))
    return labels, np.round(expit(3 * labels - 1.5 + 2 * rng.normal(size=len(labels))), digits)


# calibrators


def test_temperature_is_the_best_of_a_fine_grid():
    labels, scores = draw()
    found = calibrators.fit("temperature", labels, scores)["temperature"]
    grid = np.exp(np.linspace(np.log(0.5), np.log(5), 1001))
    p = expit(logit(np.clip(scores, 1e-7, 1 - 1e-7)) / grid[:, None])
    values = -np.log(np.where(labels == 1, p, 1 - p)).mean(axis=1)
    assert found == pytest.approx(grid[np.argmin(values)], rel=3e-3) and abs(found - 1) > 0.1


def test_temperature_in_closed_form():
    """Scores 0.9 and 0.1 that are right in 3 of 4 rows stand for 3/4: T = logit 0.9 / logit 3/4."""
    labels, scores = np.array([1, 1, 1, 0, 0, 0, 0, 1]), np.repeat([0.9, 0.1], 4)
    found = calibrators.fit("temperature", labels, scores)
    assert found["temperature"] == pytest.approx(logit(0.9) / logit(0.75), rel=1e-5)
    np.testing.assert_allclose(calibrators.apply(found, scores), np.repeat([0.75, 0.25], 4), 1e-5)


def test_temperature_leaves_the_ranking_as_it_is():
    labels, scores = draw(digits=12)
    after = calibrators.apply(calibrators.fit("temperature", labels, scores), scores)
    np.testing.assert_array_equal(np.argsort(after), np.argsort(scores))


def test_classes_that_do_not_overlap_have_finite_calibrators():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.0, 0.1, 0.9, 1.0])
    assert calibrators.fit("temperature", labels, scores)["temperature"] < 0.051
    assert 0 < calibrators.fit("platt", labels, scores)["slope"] < 1
    for kind in KINDS:
        assert np.isfinite(calibrators.apply(calibrators.fit(kind, labels, scores), scores)).all()


def test_platt_is_the_minimum_of_the_cross_entropy_with_platts_targets():
    labels, scores = draw()
    target = np.where(labels == 1, 61 / 62, 1 / 122)
    z = logit(np.clip(scores, 1e-7, 1 - 1e-7))

    def loss(parameters):
        p = expit(parameters[0] * z + parameters[1])
        return -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()

    best = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12})
    found = calibrators.fit("platt", labels, scores)
    assert [found["slope"], found["intercept"]] == pytest.approx(best.x, abs=1e-4)


def test_platt_and_isotonic_equal_scikit_learn():
    """CalibratedClassifierCV on a model whose decision function is the logit."""
    labels, scores = draw()
    z = logit(np.clip(scores, 1e-7, 1 - 1e-7))
    identity = LogisticRegression().fit([[-1.0], [1.0]], [0, 1])
    identity.coef_, identity.intercept_ = np.ones((1, 1)), np.zeros(1)
    once = [(np.arange(180), np.arange(180))]  # one fold of all rows
    theirs = CalibratedClassifierCV(FrozenEstimator(identity), method="sigmoid", cv=once)
    expected = theirs.fit(z[:, None], labels).predict_proba(z[:, None])[:, 1]
    ours = calibrators.apply(calibrators.fit("platt", labels, scores), scores)
    np.testing.assert_allclose(ours, expected, atol=1e-4)

    isotonic = calibrators.fit("isotonic", labels, scores)
    reference = IsotonicRegression(out_of_bounds="clip").fit(scores, labels)
    new = np.linspace(0, 1, 333)
    np.testing.assert_allclose(calibrators.apply(isotonic, new), reference.predict(new), atol=1e-12)


def test_isotonic_on_a_hand_count():
    """Pool adjacent violators: 0.2 and 0.4 are out of order and share 1/2."""
    found = calibrators.fit("isotonic", np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.4, 0.8]))
    seen = calibrators.apply(found, np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.8, 1.0]))
    np.testing.assert_allclose(seen, [0, 0, 0.5, 0.5, 0.5, 1, 1], atol=1e-12)


def test_no_calibrator_changes_nothing():
    labels, scores = draw()
    found = calibrators.fit("none", labels, scores)
    np.testing.assert_array_equal(calibrators.apply(found, scores), scores)


rows_strategy = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 1e-9, 0.2, 0.5, 0.5000001, 0.9, 1.0])),
    min_size=4,
    max_size=40,
)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(rows=rows_strategy, kind=st.sampled_from(KINDS))
def test_probabilities_never_fall_as_scores_rise_and_survive_json(rows, kind):
    labels, scores = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    try:
        found = calibrators.fit(kind, labels, scores)
    except BadInput:
        return
    again = json.loads(json.dumps(found, allow_nan=False))
    grid = np.linspace(0, 1, 101)
    values = calibrators.apply(again, grid)
    assert (np.diff(values) >= -1e-12).all() and (values >= 0).all() and (values <= 1).all()
    np.testing.assert_array_equal(values, calibrators.apply(found, grid))


def test_scores_that_are_upside_down_are_refused_by_platt():
    labels, scores = draw()
    with pytest.raises(BadInput, match="worse than guessing"):
        calibrators.fit("platt", 1 - labels, scores)


@pytest.mark.parametrize("prevalence", [0.001, 0.3, 0.9])
def test_shift_is_the_rule_of_bayes(prevalence):
    p, share = np.array([0.0, 0.1, 0.5, 0.99, 1.0]), 0.4
    up, down = prevalence / share * p, (1 - prevalence) / (1 - share) * (1 - p)
    found = calibrators.shift(p, share=share, prevalence=prevalence)
    np.testing.assert_allclose(found, up / (up + down), rtol=1e-12)
    np.testing.assert_allclose(calibrators.shift(p, share=0.4, prevalence=0.4), p, atol=1e-15)


# how many errors a promise allows


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("confidence", [0.5, 0.75, 0.9, 0.95, 0.999])
def test_errors_allowed_against_clopper_pearson_and_brute_force(rate, confidence):
    for rows in (1, 2, 7, 58, 59, 60, 298, 299, 300, 1000, 4321):
        k = operating_point.errors_allowed(rows, rate, confidence)
        some = np.arange(rows)
        bounds = beta.ppf(confidence, some + 1, rows - some)  # rise with the errors
        assert k == np.flatnonzero(np.r_[True, bounds <= rate * (1 + 1e-9)])[-1] - 1
        fits = binom.cdf(some, rows, rate) <= (1 - confidence) * (1 + 1e-9)
        assert k == fits.sum() - 1


@pytest.mark.parametrize(
    ("rate", "confidence", "rows"), [(0.01, 0.95, 299), (0.05, 0.95, 59), (0.5, 0.75, 2)]
)
def test_rows_needed_is_the_first_number_that_is_enough(rate, confidence, rows):
    assert operating_point.rows_needed(rate, confidence) == rows
    assert operating_point.errors_allowed(rows, rate, confidence) == 0
    assert operating_point.errors_allowed(rows - 1, rate, confidence) == -1


def test_too_few_rows_are_refused_with_the_number_needed_and_what_they_can_promise():
    labels, scores = draw(safe=100, harmful=20)
    with pytest.raises(BadInput, match=r"needs 299 safe rows .* there are 100: .*FPR <= 0.0296"):
        operating_point.fpr_threshold(labels, scores, at_most=0.01, confidence=0.95)
    operating_point.fpr_threshold(labels, scores, at_most=0.0296, confidence=0.95)
    with pytest.raises(BadInput, match=r"needs 29 harmful rows .* are 20: .*recall >= 0.8608"):
        operating_point.recall_threshold(labels, scores, at_least=0.9, confidence=0.95)
    operating_point.recall_threshold(labels, scores, at_least=0.8608, confidence=0.95)


# thresholds


@pytest.mark.parametrize("digits", [1, 2, 9])
@pytest.mark.parametrize("seed", range(3))
def test_promised_thresholds_against_brute_force(seed, digits):
    """Of all thresholds with no more errors than allowed, the one that catches most."""
    labels, scores = draw(seed, safe=150, harmful=90, digits=digits)
    edges = np.concatenate([np.unique(scores), [1.5]])
    t, k = operating_point.fpr_threshold(labels, scores, at_most=0.1, confidence=0.9)
    errors = [(scores[labels == 0] >= edge).sum() for edge in edges]
    best = edges[np.flatnonzero(np.array(errors) <= k)[0]]
    np.testing.assert_array_equal(scores >= t, scores >= best)
    t, k = operating_point.recall_threshold(labels, scores, at_least=0.8, confidence=0.9)
    errors = [(scores[labels == 1] < edge).sum() for edge in edges]
    best = edges[np.flatnonzero(np.array(errors) <= k)[-1]]
    np.testing.assert_array_equal(scores >= t, scores >= best)


def test_thresholds_lie_between_scores_and_at_the_ends():
    labels = np.repeat([0, 1], [4, 3])
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.3, 0.6, 0.8])
    loose = {"confidence": 0.5}
    assert operating_point.errors_allowed(4, 0.5, 0.5) == 1
    t, _ = operating_point.fpr_threshold(labels, scores, at_most=0.5, **loose)
    assert t == pytest.approx(0.35)  # above 0.3, the second largest, where a harmful row is too
    t, _ = operating_point.fpr_threshold(
        labels, np.where(scores == 0.4, 1, scores), at_most=0.2, **loose
    )
    assert t == np.nextafter(1, 2)  # a safe row has the score 1: nothing may be called harmful
    top = np.where(labels == 0, scores + 0.5, scores)
    t, _ = operating_point.fpr_threshold(labels, top, at_most=0.2, **loose)
    assert t == pytest.approx(0.95)  # no larger score: halfway to 1
    t, _ = operating_point.recall_threshold(labels, scores, at_least=0.7, **loose)
    assert t == pytest.approx(0.25)
    t, _ = operating_point.recall_threshold(labels, scores * (scores != 0.3), at_least=0.7, **loose)
    assert t == 0  # a harmful row has the score 0: all are called harmful


def test_neighbouring_floats_are_told_apart():
    low = 0.3
    high = np.nextafter(low, 1)
    labels, scores = np.array([0, 0, 1, 1]), np.array([low, low, high, high])
    t, _ = operating_point.fpr_threshold(labels, scores, at_most=0.3, confidence=0.5)
    assert low < t <= high


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    rows=rows_strategy,
    rates=st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)).map(sorted),
    confidences=st.tuples(st.floats(0.05, 0.99), st.floats(0.05, 0.99)).map(sorted),
)
def test_a_stronger_promise_never_has_a_bolder_threshold(rows, rates, confidences):
    labels, scores = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    (low, high), (less, more) = rates, confidences
    try:
        strong, _ = operating_point.fpr_threshold(labels, scores, at_most=low, confidence=more)
        weak, _ = operating_point.fpr_threshold(labels, scores, at_most=high, confidence=less)
        assert strong >= weak
        strong, _ = operating_point.recall_threshold(labels, scores, at_least=high, confidence=more)
        weak, _ = operating_point.recall_threshold(labels, scores, at_least=low, confidence=less)
        assert strong <= weak
    except BadInput:
        return


def at_prevalence(labels, prevalence):
    """Weights of rows that make the harmful ones that share of all."""
    share = labels.mean()
    return np.where(labels == 1, prevalence / share, (1 - prevalence) / (1 - share))


@pytest.mark.parametrize("prevalence", [0.01, 1 / 3, 0.8])
@pytest.mark.parametrize("seed", range(2))
def test_best_f1_and_least_cost_against_scikit_learn_over_every_threshold(seed, prevalence):
    labels, scores = draw(seed, digits=1)
    weight = at_prevalence(labels, prevalence)
    edges = [*np.unique(scores), 1.5]

    def f1(t):
        return f1_score(labels, scores >= t, sample_weight=weight, zero_division=0)

    def cost(t):
        (_, fp), (fn, _) = confusion_matrix(
            labels, scores >= t, sample_weight=weight, labels=[0, 1]
        )
        return 1 * fp + 20 * fn

    t = metrics.best_f1_threshold(labels, scores, prevalence=prevalence)
    assert f1(t) == pytest.approx(max(map(f1, edges)))
    t = metrics.cheapest_threshold(
        labels, scores, prevalence=prevalence, false_positive=1, false_negative=20
    )
    assert cost(t) == pytest.approx(min(map(cost, edges)))


def test_best_f1_is_at_the_rows_own_share_unless_a_prevalence_is_given():
    labels, scores = draw()
    found = metrics.best_f1_threshold(labels, scores, prevalence=labels.mean())
    assert found == metrics.best_f1_threshold(labels, scores)


def test_nothing_is_flagged_where_that_is_cheapest():
    labels, scores = np.array([0, 1, 0, 1]), np.array([0.1, 0.8, 0.9, 0.3])
    costs = {"false_positive": 100, "false_negative": 0.01}
    t = metrics.cheapest_threshold(labels, scores, prevalence=0.01, **costs)
    assert t == np.nextafter(0.9, 1)


# the promises hold, in simulated traffic whose true rates are known

SIMULATIONS = 1000
ENOUGH = binom.ppf(0.001, SIMULATIONS, 0.95)  # of as many that hold with probability 0.95
SAFE, HARMFUL = 400, 100
LABELS = np.repeat([0, 1], [SAFE, HARMFUL])


@pytest.fixture(scope="module", params=["continuous", "tied"])
def traffic(request):
    """1,000 calibration sets, float [sets, rows], with the true FPR and recall of a threshold.

    Safe scores are Beta(1, 3), harmful ones Beta(3, 1). Tied ones are rounded down to tenths, so
    that `score >= t` is an event of the score before, at t rounded up.
    """
    rng = np.random.default_rng(0)
    scores = np.hstack(
        [rng.beta(1, 3, (SIMULATIONS, SAFE)), rng.beta(3, 1, (SIMULATIONS, HARMFUL))]
    )
    if request.param == "continuous":
        return scores, lambda t: np.clip(1 - t, 0, 1) ** 3, lambda t: 1 - np.clip(t, 0, 1) ** 3
    tenths = np.floor(scores * 10) / 10

    def up(t):
        return np.minimum(np.ceil(np.asarray(t) * 10 - 1e-9) / 10, 1)

    return tenths, lambda t: (1 - up(t)) ** 3, lambda t: 1 - up(t) ** 3


def test_the_fpr_promise_holds(traffic):
    sets, true_fpr, _ = traffic
    promise = {"at_most": 0.05, "confidence": 0.95}
    found = [operating_point.fpr_threshold(LABELS, scores, **promise) for scores in sets]
    kept = (true_fpr(np.array([t for t, _ in found])) <= 0.05).sum()
    assert kept >= ENOUGH
    [k] = {k for _, k in found}  # fixed by the number of rows
    if len(np.unique(sets)) > 11:  # without ties the confidence is exact, not only a bound
        assert binomtest(int(kept), SIMULATIONS, 1 - binom.cdf(k, SAFE, 0.05)).pvalue > 0.001


def test_the_recall_promise_holds(traffic):
    sets, _, true_recall = traffic
    promise = {"at_least": 0.9, "confidence": 0.95}
    found = [operating_point.recall_threshold(LABELS, scores, **promise) for scores in sets]
    kept = (true_recall(np.array([t for t, _ in found])) >= 0.9).sum()
    assert kept >= ENOUGH
    [k] = {k for _, k in found}
    if len(np.unique(sets)) > 11:
        assert binomtest(int(kept), SIMULATIONS, 1 - binom.cdf(k, HARMFUL, 0.1)).pvalue > 0.001


@pytest.mark.parametrize("traffic", ["continuous"], indirect=True)
def test_naive_promises_do_not_hold(traffic):
    """Checks that the test above refuses the FPR on the rows that chose the threshold, and
    the Clopper-Pearson bound at a threshold that the same rows chose for its F1."""
    sets, true_fpr, _ = traffic
    safe = np.sort(sets[:, :SAFE])[:, ::-1]
    measured = safe[:, int(0.05 * SAFE)]  # 5% of the rows are above
    assert (true_fpr(measured) <= 0.05).sum() < ENOUGH
    tuned = np.array([metrics.best_f1_threshold(LABELS, s, prevalence=0.2) for s in sets])
    alarms = (safe >= tuned[:, None]).sum(axis=1)
    bound = beta.ppf(0.95, alarms + 1, SAFE - alarms)
    assert (true_fpr(tuned) <= bound).sum() < ENOUGH


# what a threshold does


@pytest.mark.parametrize(("hits", "rows"), [(0, 7), (3, 50), (50, 50)])
def test_intervals_are_clopper_pearsons(hits, rows):
    found = operating_point.interval(hits, rows, 0.9)
    low = beta.ppf(0.05, hits, rows - hits + 1) if hits else 0
    high = beta.ppf(0.95, hits + 1, rows - hits) if hits < rows else 1
    assert found == pytest.approx((hits / rows, low, high))


@pytest.mark.parametrize("prevalence", [0.01, 0.5])
def test_measured_rates_against_scikit_learn(prevalence):
    labels, scores = draw()
    found = operating_point.measure(labels, scores, 0.6, prevalence=prevalence, confidence=0.95)
    weight = at_prevalence(labels, prevalence)
    (tn, fp), (fn, tp) = confusion_matrix(labels, scores >= 0.6, sample_weight=weight)
    assert found["fpr"]["value"] == pytest.approx(fp / (fp + tn))
    assert found["recall"]["value"] == pytest.approx(tp / (tp + fn))
    assert found["precision"]["value"] == pytest.approx(tp / (tp + fp))
    assert found["flagged"]["value"] == pytest.approx((tp + fp) / weight.sum())
    for name, rate in found.items():
        assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1, name


def test_precision_of_nothing_is_not_a_number_but_none():
    labels, scores = draw()
    found = operating_point.measure(labels, scores, 1.5, prevalence=0.1, confidence=0.95)
    assert found["precision"] == {"value": None, "low": 0.0, "high": 1.0}


def test_review_band_on_a_hand_count():
    labels = np.array([0, 0, 0, 0, 1, 1])
    scores = np.array([0.1, 0.3, 0.5, 0.7, 0.3, 0.9])
    at = {"prevalence": 0.1, "confidence": 0.95}
    band = operating_point.review_band(labels, scores, low=0.3, high=0.7, **at)
    assert band["volume"]["value"] == pytest.approx(0.1 * 1 / 2 + 0.9 * 2 / 4)
    assert band["harmful_share"] == pytest.approx(0.05 / 0.5)
    high = 0.1 * beta.ppf(0.9875, 2, 1) + 0.9 * beta.ppf(0.9875, 3, 2)
    assert band["volume"]["high"] == pytest.approx(high)
    empty = operating_point.review_band(labels, scores, low=0.7, high=0.3, **at)
    assert empty["low"] == empty["high"] == 0.3 and empty["harmful_share"] is None
    assert set(empty["volume"].values()) == {0.0}


def test_a_group_counts_once_a_label():
    groups, labels = np.array([5, 5, 5, 2, 2, 9]), np.array([0, 0, 1, 1, 1, 0])
    ids = [f"row{i}" for i in range(6)]
    kept = calibrators.independent(groups, labels, ids)
    assert len(kept) == 4
    assert sorted(zip(groups[kept], labels[kept], strict=True)) == [(2, 1), (5, 0), (5, 1), (9, 0)]
    order = np.array([3, 0, 5, 4, 1, 2])  # in another order the same rows, in the same order
    again = order[calibrators.independent(groups[order], labels[order], [ids[i] for i in order])]
    assert list(again) == list(kept)


# the policy


def test_a_policy_is_the_parts():
    labels, scores = draw(safe=400, harmful=100)
    found = operating_point.policy(
        labels, scores, target_fpr=0.02, target_recall=0.8, confidence=0.9, prevalence=0.01
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["calibrator"] == calibrators.fit("temperature", labels, scores)
    strict, balanced, permissive = (
        found["thresholds"][name] for name in ("strict", "balanced", "permissive")
    )
    expected = operating_point.recall_threshold(labels, scores, at_least=0.8, confidence=0.9)
    assert (strict["threshold"], strict["errors_allowed"]) == expected
    expected = operating_point.fpr_threshold(labels, scores, at_most=0.02, confidence=0.9)
    assert (permissive["threshold"], permissive["errors_allowed"]) == expected
    assert permissive["promise"] == "FPR <= 0.02 with 0.9 confidence"
    best = metrics.best_f1_threshold(labels, scores, prevalence=0.01)
    assert balanced["threshold"] == best and balanced["errors_allowed"] is None
    z = logit(permissive["threshold"]) / found["calibrator"]["temperature"]
    assert permissive["probability"] == pytest.approx(expit(z + logit(0.01) - logit(0.2)))
    assert permissive["measured"] == operating_point.measure(
        labels, scores, permissive["threshold"], prevalence=0.01, confidence=0.9
    )
    assert found["abstain"]["low"] == strict["threshold"] < found["abstain"]["high"]
    assert (found["rows"], found["harmful"]) == (500, 100)


def test_prevalence_moves_what_it_should_and_no_promise():
    labels, scores = draw(safe=400, harmful=100)
    rare, even = (
        operating_point.policy(labels, scores, prevalence=p, costs=(1, 5)) for p in (0.01, 0.5)
    )
    for name in ("strict", "permissive"):
        assert rare["thresholds"][name]["threshold"] == even["thresholds"][name]["threshold"]
        for rate in ("fpr", "recall"):
            values = [p["thresholds"][name]["measured"][rate] for p in (rare, even)]
            assert values[0] == values[1]
        few, many = (p["thresholds"][name]["measured"]["precision"] for p in (rare, even))
        assert few["low"] < many["low"] and few["value"] <= many["value"]
    rare, even = (p["thresholds"]["balanced"] for p in (rare, even))
    assert rare["threshold"] > even["threshold"]
    assert even["threshold"] == metrics.cheapest_threshold(
        labels, scores, prevalence=0.5, false_positive=1, false_negative=5
    )


def test_a_dear_false_positive_raises_the_threshold():
    labels, scores = draw(safe=400, harmful=100)
    high, low = (operating_point.policy(labels, scores, costs=c) for c in ((20, 1), (1, 20)))
    assert high["thresholds"]["balanced"]["threshold"] > low["thresholds"]["balanced"]["threshold"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_promise_depends_on_the_calibrator(kind):
    labels, scores = draw(safe=400, harmful=100)
    found, plain = (operating_point.policy(labels, scores, calibrator=k) for k in (kind, "none"))
    for name in found["thresholds"]:
        ours, theirs = found["thresholds"][name], plain["thresholds"][name]
        assert ours["threshold"] == theirs["threshold"]
        assert 0 <= ours["probability"] <= 1


GOOD = draw(safe=400, harmful=100)


def with_score(value):
    scores = GOOD[1].copy()
    scores[3] = value
    return scores


@pytest.mark.parametrize(
    ("labels", "scores", "settings", "words"),
    [
        (np.zeros(500, int), GOOD[1], {}, "0 harmful and 500 safe"),
        (np.ones(500, int), GOOD[1], {}, "500 harmful and 0 safe"),
        (np.where(GOOD[0] == 1, 2, 0), GOOD[1], {}, "other than 0 or 1"),
        (GOOD[0][:0], GOOD[1][:0], {}, "0 harmful and 0 safe"),
        (GOOD[0], with_score(np.nan), {}, "1 of 500 calibration scores"),
        (GOOD[0], with_score(1.0000001), {}, "not between 0 and 1"),
        (GOOD[0], with_score(-np.inf), {}, "not between 0 and 1"),
        (GOOD[0], np.full(500, 0.5), {}, "all 500 calibration rows have the score 0.5"),
        (*GOOD, {"calibrator": "magic"}, "'magic' is none of temperature"),
        (*GOOD, {"prevalence": 0.0}, "prevalence = 0 must be above 0 and below 1"),
        (*GOOD, {"target_fpr": 1.0}, "target_fpr = 1 must"),
        (*GOOD, {"target_recall": -1.0}, "target_recall = -1 must"),
        (*GOOD, {"confidence": np.nan}, "confidence = nan must"),
        (*GOOD, {"costs": (0, 1)}, "costs of errors, 0 and 1"),
        (*GOOD, {"target_fpr": 0.001}, "needs 2995 safe rows"),
    ],
)
def test_unusable_rows_and_settings_are_one_sentence(labels, scores, settings, words):
    with pytest.raises(BadInput, match=words):
        operating_point.policy(labels, scores, **settings)
