"""Tables of results: their numbers, and their cells as text.

A missing number is None, printed as a dash, never as zero.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import bootstrap, calibrators, metrics
from ssl_guard.evaluation.table import cell
from ssl_guard.report.results import Result, by_method, check_cohort

SHOWN = {
    "f1": "F1 harmful",
    "auprc": "AUPRC",
    "recall_at_1_fpr": "recall at 1% FPR",
    "ece": "ECE",
}
DIFFERENCES = ("f1", "auprc", "recall_at_1_fpr")  # metrics tested between methods
RESAMPLES = 1000


class Table(NamedTuple):
    """Strings, ready to print in any format."""

    titles: list[str]
    rows: list[list[str]]


def summarise(
    results: list[Result], against: str, tested: tuple[str, ...] = DIFFERENCES
) -> list[dict]:
    """Summarises each method and number of labels in a dict, best F1 first.

    results: of one cohort, else BadInput; against: the baseline's method; tested: the metrics whose
    differences are tested. A dict has:
        method, labels, results (one a seed)
        scores      {metric: {value, low, high} of one seed, {value, spread} of several, or None
                    where a seed has no such number}
        gains       {metric: the mean difference to the baseline over pairs of the same seed and
                    labelled rows}: value; low, high and two-sided p of a paired bootstrap over
                    groups of test rows, the seeds held; holm, p after Holm's correction for the
                    methods and the metrics here; better, the number of the pairs that gained. Empty
                    for the baseline, where a seed has no partner, and for rows of one class
        times_read  the largest of its results, None where none has a count
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
    found = []
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
    """Pairs of the same seed and labelled rows; a peer is paired with every baseline. Empty unless
    each of `mine` has a partner."""

    def partners(result):
        if result.run is None and len({b.labels for b in baselines}) > 1:
            return []  # a peer has no number of labels that chooses one
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
    """The metrics of a result on the resamples that all results of its cohort share."""
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
    """ "helped" or "hurt" if the difference is not chance at 5% after Holm's correction."""
    if gain["holm"] >= 0.05:
        return "no evidence"
    return "helped" if gain["value"] > 0 else "hurt"


def summary_table(summaries: list[dict], against: str) -> Table:
    """The table of `summarise`, in percent."""
    known = dict.fromkeys(name for row in summaries for name in row["scores"])
    shown = {name: title for name, title in SHOWN.items() if name in known}
    # A set of one class, such as safe prompts that sound alarming, has none of these.
    shown = shown or {name: name.replace("_", " ") for name in known}
    gains = ["difference of F1 [95%]", "p (Holm)", "better", "verdict"]
    titles = ["method", "labels", "seeds", *shown.values(), *gains, "times read"]
    rows = []
    for row in summaries:
        cells = [row["method"], _dash(row["labels"]), str(len(row["results"]))]
        cells += [cell(row["scores"].get(name)) for name in shown]
        cells += (
            _gain_cells(row["gains"]["f1"])
            if row["gains"]
            else ["baseline" if row["method"] == against else "-", "-", "-", "-"]
        )
        rows.append([*cells, _dash(row["times_read"])])
    # Columns that hold no number of any method are left out.
    empty = () if any(row["gains"] for row in summaries) else gains
    empty = {*empty, *(["times read"] if all(row[-1] == "-" for row in rows) else ())}
    places = [i for i, title in enumerate(titles) if title not in empty]
    return Table([titles[i] for i in places], [[row[i] for i in places] for row in rows])


def differences_table(summaries: list[dict]) -> Table:
    """Every tested difference to the baseline, a line for each method and metric."""
    titles = ["method", "labels", "metric", "difference [95%]", "p (Holm)", "better", "verdict"]
    rows = [
        [row["method"], _dash(row["labels"]), SHOWN[name], *_gain_cells(gain)]
        for row in summaries
        for name, gain in row["gains"].items()
    ]
    return Table(titles, rows)


def _gain_cells(gain: dict) -> list[str]:
    better = f"{gain['better']} of {gain['pairs']}"
    return [cell(gain, sign="+"), f"{gain['holm']:.3f}", better, verdict(gain)]


def _dash(value) -> str:
    return "-" if value is None else str(value)


def cohort_line(result: Result) -> str:
    """The test rows of a table, its labels and its threshold, in one line."""
    groups = len({row["group"] for row in result.rows})
    cohort = result.cohort
    return (
        f"{cohort['corpus']} (sha256 {_short(cohort['corpus_sha256'])}), {cohort['task']}: "
        f"{cohort['rows']} test rows (sha256 {_short(cohort['rows_sha256'])}) in {groups} "
        f"groups of near-duplicate prompts, {cohort['harmful']} harmful; "
        f"label map: {label_words(cohort['label_map'])}; threshold {cohort['threshold_policy']}; "
        "scores in %"
    )


def label_words(label_map: dict | None) -> str:
    """The words that were read as each label."""
    if label_map is None:
        return "the corpus's own labels"
    words = {
        title: ", ".join(word for word, label in label_map.items() if label == value)
        for value, title in ((1, "harmful"), (0, "safe"))
    }
    return "; ".join(f"{title} is {found}" for title, found in words.items())


def policy_table(policies: dict[str, dict]) -> Table:
    """The profiles of every policy.json, by the run's name."""
    titles = ["run", "profile", "score >=", "probability", "promise"]
    titles += ["FPR, %", "recall, %", "precision, %", "flagged, %"]
    rows = []
    for run, policy in policies.items():
        for name, profile in policy["thresholds"].items():
            cells = [run, name, f"{profile['threshold']:.4f}", f"{profile['probability']:.3f}"]
            measured = [profile["measured"][k] for k in ("fpr", "recall", "precision", "flagged")]
            rows.append([*cells, profile["promise"], *map(cell, measured)])
    return Table(titles, rows)


def review(policy: dict) -> str:
    """The band of scores that goes to human review, with its expected volume."""
    band = policy["abstain"]
    if band["low"] == band["high"]:
        return "review: nothing, one threshold keeps both promises"
    text = (
        f"review: scores from {band['low']:.4f} to {band['high']:.4f}, "
        f"{cell(band['volume'])}% of traffic"
    )
    if band["harmful_share"] is not None:
        text += f", {100 * band['harmful_share']:.1f}% of it harmful"
    return text


def policy_facts(policy: dict) -> str:
    """The rows, calibrator and prevalence behind a policy.json."""
    kind = policy["calibrator"]["kind"]
    numbers = [f"{k} {v:.3f}" for k, v in policy["calibrator"].items() if isinstance(v, float)]
    return (
        f"{policy['data']}: {policy['rows']} of {policy['rows_read']} rows, {policy['harmful']} of "
        f"them harmful; near-duplicates count once, {policy['left_out']} are near-duplicates of "
        f"the run's own. Calibrator: {', '.join(numbers) or kind}. Precision, flagged and review "
        f"are for traffic that is {100 * policy['prevalence']:.3g}% harmful. Brackets: "
        f"{policy['confidence']:.4g} Clopper-Pearson, on the rows that chose the thresholds."
    )


def calibration_table(results: list[Result]) -> Table:
    """Calibration error and Brier score of every run with a policy.json, before and after its
    calibrator; on rows of both classes."""
    rows = []
    for result in results:
        after = calibrated(result)
        if after is None or len(set(result.truth)) < 2:
            continue
        cells = [result.method, _dash(result.cohort["seed"])]
        for error in (metrics.expected_calibration_error, metrics.brier):
            for scores in (result.probabilities, after):
                cells.append(f"{100 * error(result.truth, scores):.1f}")
        rows.append(cells)
    titles = ["method", "seed", "ECE", "ECE calibrated", "Brier", "Brier calibrated"]
    return Table(titles, rows)


def calibrated(result: Result) -> np.ndarray | None:
    """float [rows], by the calibrator of the run's policy.json; None without one."""
    policy = result.run["policy"] if result.run else None
    if policy is None or policy["run"]["weights"] != result.cohort["weights"]:
        return None
    return calibrators.apply(policy["calibrator"], result.probabilities)


def overview(parts: list[tuple[list[Result], list[dict]]]) -> Table:
    """A line for every cohort, a column for every method: F1 or, for rows of one class, recall or
    FPR. A method with several budgets has the largest."""
    names = dict.fromkeys(row["method"] for _, summaries in parts for row in summaries)
    rows = []
    for results, summaries in parts:
        cohort = results[0].cohort
        shown = next(name for name in ("f1", "recall", "fpr") if name in results[0].scores)
        by_labels = sorted(summaries, key=lambda row: row["labels"] or 0)
        scores = {row["method"]: cell(row["scores"].get(shown)) for row in by_labels}
        cells = [cohort["corpus"], cohort["threshold_policy"].partition(",")[0]]
        cells += [str(cohort["rows"]), str(cohort["harmful"])]
        metric = {"f1": "F1", "fpr": "FPR"}.get(shown, shown)
        rows.append([*cells, metric, *(scores.get(name, "-") for name in names)])
    return Table(["test set", "threshold", "rows", "harmful", "metric", *names], rows)


def _short(sha256: str | None) -> str:
    return sha256[:8] if sha256 else "-"


def reads_note(summaries: list[dict]) -> str:
    """A warning that names the methods that read their test set more than once; "" for none."""
    often = [f"{r['method']} ({r['times_read']} times)" for r in summaries if _often(r)]
    return (
        f"Read more than once: {', '.join(often)}. A number picked from several reads of a test "
        "set is too high."
        if often
        else ""
    )


def _often(row: dict) -> bool:
    return (row["times_read"] or 0) > 1


def contamination_table(summaries: list[dict]) -> Table:
    """Rows of the set that a method has seen in training; a dash where they were not counted, no
    rows where no method counted them."""
    titles = ["method", "exact", "near duplicates", "left out of the scores"]
    rows = []
    for row in summaries:
        found = [r.evaluation.get("contamination") or {} for r in row["results"]]
        cells = []
        for key in ("exact", "near_duplicates", "removed"):
            values = sorted({part[key] for part in found if part.get(key) is not None})
            # A method's seeds may have drawn other rows: then from the least to the most.
            cells.append(" to ".join(str(v) for v in dict.fromkeys(values[:1] + values[-1:])))
        removed = {"True": "yes", "False": "no", "False to True": "in some seeds"}
        cells[2] = removed.get(cells[2], "")
        rows.append([row["method"], *(c or "-" for c in cells)])
    return Table(titles, rows if any(row[1:] != ["-"] * 3 for row in rows) else [])


def every_score(results: list[Result]) -> Table:
    """Every metric, one line for each result and kind of weights."""
    kinds = [(result, kind) for result in results for kind in result.evaluation["scores"]]
    names = dict.fromkeys(name for r, kind in kinds for name in r.evaluation["scores"][kind])
    rows = [
        [
            result.method,
            _dash(result.cohort["seed"]),
            kind,
            f"{result.cohort['threshold'][kind]:.4f}",
            *(cell(result.evaluation["scores"][kind].get(name)) for name in names),
        ]
        for result, kind in kinds
    ]
    return Table(["method", "seed", "weights", "threshold", *names], rows)


class Published(NamedTuple):
    """A table copied from a paper."""

    title: str
    source: str
    metric: str
    table: Table
    caveats: list[str]


def read_published(path: str | Path) -> list[Published]:
    """Reads tables of papers: JSON {"tables": [{"title", "source", "metric", "columns", "rows":
    {name: numbers}, "caveats"}]}, a number null where the paper has none.

    Raises BadInput for another shape, and for a table without a source.
    """
    try:
        return [_published(table) for table in json.loads(Path(path).read_text())["tables"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(
            f"{path} holds no published tables ({type(error).__name__}: {error}): give JSON with "
            "title, source, metric, columns and rows of each."
        ) from error


def _published(table: dict) -> Published:
    if not table["source"]:
        raise ValueError(f"{table['title']} has no source")
    rows = [[name, *map(_dash, numbers)] for name, numbers in table["rows"].items()]
    titles = ["as published, not re-run", *table["columns"]]
    if any(len(row) != len(titles) for row in rows):
        raise ValueError(f"{table['title']} has rows of another length than its columns")
    caveats = list(table.get("caveats", []))
    return Published(table["title"], table["source"], table["metric"], Table(titles, rows), caveats)
