"""Compares methods with a baseline: paired differences with Holm's correction, and the verdict."""

import numpy as np

from ssl_guard.evaluation import bootstrap
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
        gains       {metric: mean difference to the baseline over pairs of equal seed and labelled
                    rows}: value; low, high and two-sided p of a paired bootstrap over groups of
                    test rows with seeds fixed; holm, p after Holm's correction for all methods and
                    metrics here; better, the number of pairs with a gain; pairs. Empty for the
                    baseline, if a seed has no pair, and for rows of one class
        times_read  the largest of its results, None without a count

    Raises BadInput for results of several cohorts.
    """
    check_cohort(results)
    baselines = [result for result in results if result.method == against]
    methods = by_method(results)
    pairs = {key: _pairs(mine, baselines) for key, mine in methods.items() if key[0] != against}
    drawn = {}
    if len(set(results[0].truth)) == 2:
        groups = np.array([row["group"] for row in results[0].rows])
        paired = {id(r): r for found in pairs.values() for pair in found for r in pair}
        drawn = {key: _drawn(result, groups, tested) for key, result in paired.items()}
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
                "gains": {name: _gain(ours, name, drawn) for name in tested if ours},
                "times_read": max(reads, default=None),
            }
        )
    gains = [gain for row in found for gain in row["gains"].values()]
    for gain, p in zip(gains, bootstrap.holm([gain["p"] for gain in gains]), strict=True):
        gain["holm"] = p
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


def _drawn(result: Result, groups: np.ndarray, tested: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Computes metrics of a result on the resamples that its cohort shares."""
    threshold = result.cohort["threshold"][result.cohort["weights"]]
    labels, scores = result.truth, result.probabilities
    ranking = set(tested) & set(bootstrap.RANKING)
    parts = [
        bootstrap.weighted_scores(labels, scores, threshold, times, ranking)
        for times in bootstrap.resampled(labels, groups, RESAMPLES, seed=0)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in tested}


def _gain(pairs: list[tuple[Result, Result]], name: str, drawn: dict[int, dict]) -> dict:
    differences = [drawn[id(mine)][name] - drawn[id(theirs)][name] for mine, theirs in pairs]
    draws = np.mean(differences, axis=0)
    low, high = np.percentile(draws, [2.5, 97.5])
    single = [mine.scores[name]["value"] - other.scores[name]["value"] for mine, other in pairs]
    return {
        "value": float(np.mean(single)),
        "low": float(low),
        "high": float(high),
        "p": bootstrap.p_value(draws),
        "better": sum(gain > 0 for gain in single),
        "pairs": len(pairs),
    }


def verdict(gain: dict) -> str:
    """Returns "helped" or "hurt" at p < 5% after Holm's correction, else "no evidence"."""
    if gain["holm"] >= 0.05:
        return "no evidence"
    return "helped" if gain["value"] > 0 else "hurt"
