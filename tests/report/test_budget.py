"""The budget curve of a report, and the labels that an equal score takes."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import average_precision_score

from ssl_guard.report import budget, comparison, page, plots, tables, writers
from ssl_guard.report.plots import BASELINE
from tests.report.test_report import own_tests, run


def test_budget_curves_have_the_ceiling():
    full = run("supervised", 0, 0.1)
    full["report"]["data"]["labels_used"] = 3000
    runs = [run("ours", s, 0.3, labels=n) for n in (50, 100, 200) for s in (0, 1)]
    found = own_tests([*runs, full])
    assert found[-1].method == "supervised_full"
    figure = page._budget_figure(comparison.summarise(found, "twin"), "twin", "x")
    assert [title for title, _ in figure.panels] == ["ours, AUPRC", "ours, F1 harmful"]
    for _, svg in figure.panels:
        assert svg.count("stroke-dasharray") == 1 and plots.ROLES[BASELINE] not in svg
        assert [n for n in ("50", "100", "200") if f">{n}</text>" in svg] == ["50", "100", "200"]


BUDGETS = {50: 0.9, 100: 0.7, 400: 0.5}  # noise by number of labels


def budget_runs(noise=0.8, labels=50, seeds=(0, 1)):
    twins = [run("twin", s, n, labels=m) for m, n in BUDGETS.items() for s in (0, 1)]
    return own_tests([*twins, *(run("ours", s, noise, labels) for s in seeds)])


def test_a_budget_curve_has_the_baseline_and_the_labels_it_needs():
    found = [*budget_runs(), *own_tests([run("ours", s, 0.45, labels=400) for s in (0, 1)])]
    rows = comparison.summarise(found, "twin")
    figure = page._budget_figure(rows, "twin", "x")
    assert [title for title, _ in figure.panels] == ["ours, AUPRC", "ours, F1 harmful"]
    table = tables.worth_table(rows)
    assert [row[:3] for row in table.rows] == [["ours", "50", "2"], ["ours", "400", "2"]]
    for (_, svg), name in zip(figure.panels, ("auprc", "f1"), strict=True):
        known = [0 < row["worth"][name]["value"] < np.inf for row in rows if row["worth"]]
        assert svg.count("stroke-dasharray") == sum(known)
        assert plots.ROLES[BASELINE] in svg and plots.ROLES[plots.METHOD] in svg
    text = writers.to_markdown([(found, rows)], [], "twin")
    assert "Labels with which twin has the same score:" in text


def test_labels_of_equal_score_against_one_resample_after_the_other(monkeypatch):
    """AUPRC of scikit-learn on rows drawn by index, and the curve inverted on a fine grid."""
    monkeypatch.setattr(comparison, "RESAMPLES", 60)
    found = budget_runs(seeds=(1, 0, 2))  # the twin has no seed 2
    rows = comparison.summarise(found, "twin", tested=("auprc",))
    (worth,) = [row["worth"]["auprc"] for row in rows if row["worth"]]
    assert (worth["least"], worth["most"], worth["seeds"]) == (50, 400, 2)

    def auprc(rows, seed, method, labels):
        (one,) = [
            r for r in found if (r.cohort["seed"], r.method, r.labels) == (seed, method, labels)
        ]
        return average_precision_score(one.truth[rows], one.probabilities[rows])

    grid = np.exp(np.linspace(np.log(50), np.log(400), 200_001))

    def needed(rows, seeds):
        mine = np.mean([auprc(rows, seed, "ours", 50) for seed in seeds])
        curve = [np.mean([auprc(rows, s, "twin", n) for s in seeds]) for n in BUDGETS]
        curve = IsotonicRegression().fit_transform(range(3), curve)
        values = np.interp(np.log(grid), np.log(list(BUDGETS)), curve)
        if mine <= values[0]:
            return 0
        return grid[np.argmax(values >= mine)] if mine <= values[-1] else np.inf

    groups = np.array([row["group"] for row in found[0].rows])
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    truth, rng, draws = found[0].truth, np.random.default_rng(0), []
    seeds = np.random.default_rng(0).integers(2, size=(60, 2))
    while len(draws) < 60:
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        if 0 < truth[rows].mean() < 1:
            draws.append(needed(rows, seeds[len(draws)]))
    draws = np.sort(draws)
    assert np.isinf(draws).any() or (draws == 0).any()
    assert worth["low"] == pytest.approx(draws[1], rel=1e-4)  # 2.5% of 60 are 1.5
    assert worth["high"] == pytest.approx(draws[58], rel=1e-4)


@pytest.mark.parametrize(
    ("value", "curve", "expected"),
    [
        (0.65, (0.6, 0.7, 0.8), 70.71068),  # halfway to 100 in the logarithm
        (0.7, (0.6, 0.7, 0.8), 100),
        (0.75, (0.72, 0.68, 0.8), 200),  # 50 and 100 are pooled to 0.7
        (0.7, (0.6, 0.8, 0.6), np.exp(np.log(50) + np.log(2))),  # 100 and 400 are
        (0.5999, (0.6, 0.7, 0.8), 0),
        (0.6, (0.6, 0.7, 0.8), 0),
        (0.8, (0.6, 0.7, 0.8), 400),
        (0.8001, (0.6, 0.7, 0.8), np.inf),
        (0.71, (0.9, 0.6, 0.6), np.inf),  # a curve that falls is pooled to its mean, 0.7
    ],
)
def test_labels_needed(value, curve, expected):
    found = budget.labels_needed(value, np.array([50, 100, 400]), np.array(curve))
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_worth_of_a_method_needs_a_curve_and_common_seeds():
    mine = {seed: np.array([0.7, 0.6, 0.9]) for seed in (0, 1)}
    low, high = ({s: np.full(3, value) for s in (0, 1)} for value in (0.6, 0.8))
    found = budget.worth(mine, {800: high, 200: low})
    assert found["value"] == pytest.approx(400)
    assert (found["low"], found["high"]) == (0, np.inf)
    assert (found["least"], found["most"], found["seeds"]) == (200, 800, 2)
    assert tables.worth_cell(found) == "400 [at most 200, more than 800]"
    assert budget.worth(mine, {200: low}) is None
    assert budget.worth(mine, {200: low, 800: {2: high[0]}}) is None
    found = budget.worth(mine, {200: low, 800: {1: high[1]}})
    assert found["seeds"] == 1
