"""Compares methods with a baseline: paired differences with Holm's correction, and the verdict."""

from collections.abc import Collection, Sequence

import numpy as np

from ssl_guard.evaluation import bootstrap
from ssl_guard.report import budget
from ssl_guard.report.results import Result, by_method, check_cohort

DIFFERENCES = ("f1", "auprc", "recall_at_1_fpr")  # metrics tested between methods
RESAMPLES = 1000


def summarise(
    results: list[Result], against: str, tested: tuple[str, ...] = DIFFERENCES
) -> list[dict]:
    """Summarises each method and number of labels in a dict, best F1 first.

    results: of one cohort; against: the baseline's method; tested: metrics whose differences are
    tested. A dict has:
        method, labels, results (one per seed)
        scores      {metric: {value, low, high} of one seed, {value, spread} of several, None if a
                    seed lacks the metric}
        gains       {metric: `gain` over pairs of equal seed and labelled rows, and holm, p after
                    Holm's correction for all methods and metrics here}. Empty for the baseline, if
                    a seed has no pair, and for rows of one class
        worth       {metric: `budget.worth`}, empty unless the baseline has several numbers of
                    labels on the same seeds
        times_read  the largest of its results, None without a count

    Raises BadInput for results of several cohorts.
    """
    check_cohort(results)
    baselines = [result for result in results if result.method == against]
    methods = by_method(results)
    pairs = {key: _pairs(mine, baselines) for key, mine in methods.items() if key[0] != against}
    curve = {
        labels: mine
        for (method, labels), mine in methods.items()
        if method == against and labels is not None
    }
    drawn = {}
    if len(set(results[0].truth)) == 2:
        paired = [result for found in pairs.values() for pair in found for result in pair]
        used = {id(result): result for result in (results if len(curve) > 1 else paired)}
        drawn = {key: draws(result, tested) for key, result in used.items()}
    found: list[dict] = []
    for (method, labels), mine in methods.items():
        names = dict.fromkeys(name for result in mine for name in result.scores)
        reads = [r.evaluation["times_read"] for r in mine if "times_read" in r.evaluation]
        ours = pairs.get((method, labels), []) if drawn else []
        found.append(
            {
                "method": method,
                "labels": labels,
                "results": mine,
                "scores": {name: _score(mine, name) for name in names},
                "gains": {name: gain(ours, name, drawn) for name in tested if ours},
                "worth": _worth(mine, curve, tested, drawn)
                if drawn and len(curve) > 1 and method != against
                else {},
                "times_read": max(reads, default=None),
            }
        )
    gains = [one for row in found for one in row["gains"].values()]
    for one, p in zip(gains, bootstrap.holm([one["p"] for one in gains]), strict=True):
        one["holm"] = p
    f1 = {id(row): (row["scores"].get("f1") or {}).get("value", -1.0) for row in found}
    return sorted(found, key=lambda row: -f1[id(row)])


def _score(results: list[Result], name: str) -> dict | None:
    if any(name not in result.scores for result in results):
        return None
    if len(results) == 1:
        return results[0].scores[name]
    values = [result.scores[name]["value"] for result in results]
    return {"value": float(np.mean(values)), "spread": float(np.std(values, ddof=1))}


def _pairs(mine: list[Result], baselines: list[Result]) -> list[tuple[Result, Result]]:
    """Pairs results of equal seed and labelled rows; empty unless each of `mine` has a pair.

    An external scorer is paired with every baseline.
    """

    def partners(result):
        if result.run is None and len({b.labels for b in baselines}) > 1:
            return []  # an external scorer has no number of labels to match
        keys = ("seed", "split_sha256")
        return [
            b
            for b in baselines
            if None in (result.run, b.run) or all(result.cohort[k] == b.cohort[k] for k in keys)
        ]

    found = [partners(result) for result in mine]
    if not all(found):
        return []
    return [(result, b) for result, ours in zip(mine, found, strict=True) for b in ours]


def draws(result: Result, names: Collection[str]) -> dict[str, np.ndarray]:
    """Computes metrics on the resamples that all results of a cohort share: float64 [RESAMPLES]."""
    threshold = result.cohort["threshold"][result.cohort["weights"]]
    groups = np.array([row["group"] for row in result.rows])
    labels, scores = result.truth, result.probabilities
    ranking = set(names) & set(bootstrap.RANKING)
    parts = [
        bootstrap.weighted_scores(labels, scores, threshold, times, ranking)
        for times in bootstrap.resampled(labels, groups, RESAMPLES, seed=0)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def gain(pairs: Sequence[tuple[Result, Result]], name: str, drawn: dict[int, dict]) -> dict:
    """Computes the mean difference of a metric over pairs, one a seed.

    drawn: {id of a result: its `draws`}. Returns value; low, high and two-sided p of a paired
    bootstrap over seeds and groups of test rows; better, the number of pairs with a gain; least,
    the smallest difference of a pair; pairs.
    """
    differences = [drawn[id(mine)][name] - drawn[id(theirs)][name] for mine, theirs in pairs]
    means = bootstrap.mean_over_seeds(np.array(differences))
    low, high = np.percentile(means, [2.5, 97.5])
    single = [mine.scores[name]["value"] - other.scores[name]["value"] for mine, other in pairs]
    return {
        "value": float(np.mean(single)),
        "low": float(low),
        "high": float(high),
        "p": bootstrap.p_value(means),
        "better": sum(one > 0 for one in single),
        "least": min(single),
        "pairs": len(pairs),
    }


def _worth(mine: list[Result], curve: dict[int, list[Result]], names, drawn: dict) -> dict:
    """Returns {metric: `budget.worth`} of the metrics for which there is one."""

    def series(results, name):
        return {
            r.cohort["seed"]: np.append(r.scores[name]["value"], drawn[id(r)][name])
            for r in results
        }

    found = {}
    for name in names:
        baselines = {labels: series(results, name) for labels, results in curve.items()}
        if worth := budget.worth(series(mine, name), baselines):
            found[name] = worth
    return found


def verdict(gain: dict) -> str:
    """Returns "helped" or "hurt" at p < 5% after Holm's correction, else "no evidence"."""
    if gain["holm"] >= 0.05:
        return "no evidence"
    return "helped" if gain["value"] > 0 else "hurt"
