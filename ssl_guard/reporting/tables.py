"""From results to the numbers of a table, and to its cells.

A number that is not there is None here and a dash in print, never zero.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_guard import bootstrap
from ssl_guard.errors import BadInput
from ssl_guard.reporting.results import Result, by_method, check_cohort

SHOWN = {
    "f1": "F1 harmful",
    "auprc": "AUPRC",
    "recall_at_1_fpr": "recall at 1% FPR",
    "ece": "ECE",
}
RESAMPLES = 1000


class Table(NamedTuple):
    """Strings, ready to print in any format."""

    titles: list[str]
    rows: list[list[str]]


def summarise(results: list[Result], against: str) -> list[dict]:
    """One dict for each method and number of labels, best F1 first.

    results: of one cohort, else BadInput; against: the baseline's method. In a dict:
        method, labels, results (one a seed)
        scores      {metric: {value, low, high} of one seed, {value, spread} of several, or None
                    where a seed has no such number}
        gain        the mean difference of F1 to the baseline over pairs of the same seed and
                    labelled rows: value; low, high and two-sided p of a paired bootstrap over
                    groups of test rows, the seeds held; holm, p after Holm's correction for the
                    methods here; better, the number of the pairs that gained. None for the
                    baseline, where a seed has no partner, and for rows of one class
        times_read  the largest, None if nobody counted
    """
    check_cohort(results)
    baselines = [result for result in results if result.method == against]
    found = []
    for (method, labels), mine in by_method(results).items():
        metrics = dict.fromkeys(name for result in mine for name in result.scores)
        pairs = [] if method == against else _pairs(mine, baselines)
        reads = [r.evaluation["times_read"] for r in mine if "times_read" in r.evaluation]
        found.append(
            {
                "method": method,
                "labels": labels,
                "results": mine,
                "scores": {name: _score(mine, name) for name in metrics},
                "gain": _gain(pairs) if pairs and "f1" in metrics else None,
                "times_read": max(reads, default=None),
            }
        )
    tested = [row["gain"] for row in found if row["gain"]]
    for gain, p in zip(tested, bootstrap.holm([gain["p"] for gain in tested]), strict=True):
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
    """Pairs of the same seed and labelled rows; who learned from no rows of ours is paired with
    every baseline. Empty unless each of `mine` has a partner."""

    def partners(result):
        if result.run is None and len({b.labels for b in baselines}) > 1:
            return []  # which budget would it be compared with?
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


def _gain(pairs: list[tuple[Result, Result]]) -> dict | None:
    rows = pairs[0][0].rows
    labels = np.array([row["label"] for row in rows])
    groups = np.unique([row["group"] for row in rows], return_inverse=True)[1]
    if len(set(labels)) < 2:
        return None
    totals = [(r.verdicts * labels, r.verdicts + labels) for pair in pairs for r in pair]

    def gains(times):
        f1 = [2 * (times @ hits) / (times @ both) for hits, both in totals]
        return np.mean([mine - theirs for mine, theirs in zip(f1[::2], f1[1::2], strict=True)], 0)

    value = gains(np.ones((1, len(labels)), int))[0]
    draws = bootstrap.resampled(labels, groups, RESAMPLES, seed=0)
    drawn = np.concatenate([gains(times) for times in draws])
    low, high = np.percentile(drawn, [2.5, 97.5])
    single = [mine.scores["f1"]["value"] - b.scores["f1"]["value"] for mine, b in pairs]
    return {
        "value": float(value),
        "low": float(low),
        "high": float(high),
        "p": bootstrap.p_value(drawn),
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
        gain = row["gain"]
        cells = [row["method"], _dash(row["labels"]), str(len(row["results"]))]
        cells += [cell(row["scores"].get(name)) for name in shown]
        cells += (
            [
                cell(gain, sign="+"),
                f"{gain['holm']:.3f}",
                f"{gain['better']} of {gain['pairs']}",
                verdict(gain),
            ]
            if gain
            else ["baseline" if row["method"] == against else "-", "-", "-", "-"]
        )
        rows.append([*cells, _dash(row["times_read"])])
    if not any(row["gain"] for row in summaries):
        places = [i for i, title in enumerate(titles) if title not in gains]
        titles, rows = [titles[i] for i in places], [[r[i] for i in places] for r in rows]
    return Table(titles, rows)


def cell(score: dict | None, sign: str = "") -> str:
    """A number in percent with its interval or its spread over seeds, a dash if there is none."""
    if score is None:
        return "-"
    if "spread" in score:
        return f"{100 * score['value']:.1f} ± {100 * score['spread']:.1f}"
    value, low, high = (f"{100 * score[key]:{sign}.1f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _dash(value) -> str:
    return "-" if value is None else str(value)


def cohort_line(cohort: dict) -> str:
    """What the numbers of a table are of, in one line."""
    label_map = cohort["label_map"]
    return (
        f"{cohort['corpus']} (sha256 {_short(cohort['corpus_sha256'])}), {cohort['task']}: "
        f"{cohort['rows']} rows ({_short(cohort['rows_sha256'])}), {cohort['harmful']} harmful; "
        f"label map {json.dumps(label_map) if label_map else '-'}; "
        f"threshold {cohort['threshold_policy']}"
    )


def _short(sha256: str | None) -> str:
    return sha256[:8] if sha256 else "-"


def reads_note(summaries: list[dict]) -> str:
    """A warning that names methods whose test set was read more than once; "" if none was."""
    often = [f"{r['method']} ({r['times_read']} times)" for r in summaries if _often(r)]
    return (
        f"Read more than once: {', '.join(often)}. A number picked from several reads of a test "
        "set flatters."
        if often
        else ""
    )


def _often(row: dict) -> bool:
    return (row["times_read"] or 0) > 1


def contamination_table(summaries: list[dict]) -> Table:
    """Rows of the set that a method has seen in training; a dash where nobody has looked."""
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
    return Table(titles, rows)


def every_score(results: list[Result]) -> Table:
    """Every metric of every result and kind of weights, one line each."""
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
    """A table of a paper, as it stands there."""

    title: str
    source: str
    metric: str
    table: Table
    caveats: list[str]


def read_published(path: str | Path) -> list[Published]:
    """Tables of papers: JSON {"tables": [{"title", "source", "metric", "columns", "rows": {name:
    numbers}, "caveats"}]}, a number null where the paper has none.

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
