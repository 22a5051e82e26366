"""Makes the tables of a report. A missing number is printed as a dash, never as zero."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import calibrators, metrics
from ssl_guard.evaluation.table import cell
from ssl_guard.report.comparison import verdict
from ssl_guard.report.results import Result

SHOWN = {
    "f1": "F1 harmful",
    "auprc": "AUPRC",
    "recall_at_1_fpr": "recall at 1% FPR",
    "ece": "ECE",
}


class Table(NamedTuple):
    """A table of strings, printable in any format."""

    titles: list[str]
    rows: list[list[str]]


def summary_table(summaries: list[dict], against: str) -> Table:
    """Makes the table of `comparison.summarise`, in percent."""
    known = dict.fromkeys(name for row in summaries for name in row["scores"])
    shown = {name: title for name, title in SHOWN.items() if name in known}
    # A test set of one class has none of these.
    shown = shown or {name: name.replace("_", " ") for name in known}
    gains = ["difference of F1 [95%]", "p (Holm)", "better", "verdict"]
    titles = ["method", "labels", "seeds", *shown.values(), *gains, "times read"]
    rows = []
    for row in summaries:
        cells = [row["method"], _dash(row["labels"]), str(len(row["results"]))]
        cells += [cell(row["scores"].get(name)) for name in shown]
        cells += (
            [*_gain_cells(row["gains"]["f1"]), verdict(row["gains"]["f1"])]
            if row["gains"]
            else ["baseline" if row["method"] == against else "-", "-", "-", "-"]
        )
        rows.append([*cells, _dash(row["times_read"])])
    empty = set() if any(row["gains"] for row in summaries) else set(gains)
    if all(row[-1] == "-" for row in rows):
        empty.add("times read")
    places = [i for i, title in enumerate(titles) if title not in empty]
    return Table([titles[i] for i in places], [[row[i] for i in places] for row in rows])


def ladder_table(summaries: list[dict]) -> Table:
    """Lists the tested differences to the baseline, one line per method and number of labels."""
    compared = [row for row in summaries if row["gains"]]
    names = dict.fromkeys(name for row in compared for name in row["gains"])
    titles = ["method", "labels"]
    for name in names:
        titles += [f"difference of {SHOWN[name]} [95%]", "p (Holm)", "better"]
    rows = [
        [row["method"], _dash(row["labels"])]
        + [c for name in names for c in _gain_cells(row["gains"][name])]
        for row in compared
    ]
    return Table(titles, rows)


def _gain_cells(gain: dict) -> list[str]:
    return [cell(gain, sign="+"), f"{gain['holm']:.3f}", f"{gain['better']} of {gain['pairs']}"]


def worth_table(summaries: list[dict]) -> Table:
    """Lists the labels with which the baseline has an equal score, for each `budget.worth`."""
    found = [row for row in summaries if row["worth"]]
    names = dict.fromkeys(name for row in found for name in row["worth"])
    rows = []
    for row in sorted(found, key=lambda row: (row["method"], row["labels"] or 0)):
        seeds = {worth["seeds"] for worth in row["worth"].values()}
        values = [worth_cell(row["worth"][name]) if name in row["worth"] else "-" for name in names]
        rows.append([row["method"], _dash(row["labels"]), str(max(seeds)), *values])
    return Table(["method", "labels", "seeds", *(f"{SHOWN[name]} [95%]" for name in names)], rows)


def worth_cell(worth: dict) -> str:
    """Formats a `budget.worth` with its interval, such as "430 [260, more than 800]"."""

    def words(labels: float) -> str:
        if labels in (0, np.inf):
            return f"more than {worth['most']}" if labels else f"at most {worth['least']}"
        return f"{labels:.0f}"

    return f"{words(worth['value'])} [{words(worth['low'])}, {words(worth['high'])}]"


def _dash(value) -> str:
    return "-" if value is None else str(value)


def cohort_line(result: Result) -> str:
    """Describes the test rows, label map and threshold of a table in one line."""
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
    """Describes a label map in words."""
    if label_map is None:
        return "the corpus's own labels"
    words = {
        title: ", ".join(word for word, label in label_map.items() if label == value)
        for value, title in ((1, "harmful"), (0, "safe"))
    }
    return "; ".join(f"{title} is {found}" for title, found in words.items())


def policy_table(policies: dict[str, dict]) -> Table:
    """Lists the profiles of each policy.json; policies: by the run's name."""
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
    """Describes the band of scores for human review and its expected volume."""
    band = policy["abstain"]
    if band["low"] == band["high"]:
        return "review: no scores, since one threshold keeps both promises"
    text = (
        f"review: scores from {band['low']:.4f} to {band['high']:.4f}, "
        f"{cell(band['volume'])}% of traffic"
    )
    if band["harmful_share"] is not None:
        text += f", {100 * band['harmful_share']:.1f}% of it harmful"
    return text


def policy_warnings(policy: dict) -> list[str]:
    """Warns of thresholds that call all rows harmful, or none: they keep a promise without use."""
    found = {name: p["measured"]["flagged"]["value"] for name, p in policy["thresholds"].items()}
    words = {1.0: "every row", 0.0: "no row"}
    return [
        f"warning: {name} calls {words[share]} harmful, since the scores do not tell the classes "
        "apart well enough: it is of no use"
        for name, share in found.items()
        if share in words
    ]


def policy_lines(policy: dict) -> list[str]:
    """Describes the review band, the warnings and the rows of a policy.json, a line each."""
    return [review(policy), *policy_warnings(policy), policy_facts(policy)]


def policy_facts(policy: dict) -> str:
    """Describes the rows, calibrator and prevalence of a policy.json."""
    kind = policy["calibrator"]["kind"]
    numbers = [f"{k} {v:.3f}" for k, v in policy["calibrator"].items() if isinstance(v, float)]
    return (
        f"{policy['data']}: {policy['rows']} of {policy['rows_read']} rows, {policy['harmful']} of "
        f"them harmful; near-duplicates count once, and {policy['left_out']} near-duplicates of "
        f"the run's rows are excluded. Calibrator: {', '.join(numbers) or kind}. Precision, "
        f"flagged and review assume {100 * policy['prevalence']:.3g}% harmful traffic. Intervals: "
        f"{policy['confidence']:.4g} Clopper-Pearson, on the rows that chose the thresholds."
    )


def calibration_table(results: list[Result]) -> Table:
    """Lists ECE and Brier score of runs with a policy.json, before and after calibration.

    A test set of one class gives no rows.
    """
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
    """Applies the calibrator of the run's policy.json: float [rows], or None without one."""
    policy = result.run["policy"] if result.run else None
    if policy is None or policy["run"]["weights"] != result.cohort["weights"]:
        return None
    return calibrators.apply(policy["calibrator"], result.probabilities)


def overview(parts: list[tuple[list[Result], list[dict]]]) -> Table:
    """Lists one score per cohort and method: F1 or, for rows of one class, recall or FPR.

    Of several label budgets of a method, the largest is shown.
    """
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
    """Warns of methods that read their test set more than once; "" without any."""
    often = [f"{r['method']} ({r['times_read']} times)" for r in summaries if _often(r)]
    return (
        f"Read more than once: {', '.join(often)}. A score selected from several reads of a test "
        "set is biased upwards."
        if often
        else ""
    )


def _often(row: dict) -> bool:
    return (row["times_read"] or 0) > 1


def contamination_table(summaries: list[dict]) -> Table:
    """Counts test rows that were seen in training; no rows if no method has counts."""
    titles = ["method", "exact", "near duplicates", "left out of the scores"]
    rows = []
    for row in summaries:
        found = [r.evaluation.get("contamination") or {} for r in row["results"]]
        cells = []
        for key in ("exact", "near_duplicates", "removed"):
            values = sorted({part[key] for part in found if part.get(key) is not None})
            # Seeds may have drawn different rows: then the range.
            cells.append(" to ".join(str(v) for v in dict.fromkeys(values[:1] + values[-1:])))
        removed = {"True": "yes", "False": "no", "False to True": "in some seeds"}
        cells[2] = removed.get(cells[2], "")
        rows.append([row["method"], *(c or "-" for c in cells)])
    return Table(titles, rows if any(row[1:] != ["-"] * 3 for row in rows) else [])


def every_score(results: list[Result]) -> Table:
    """Lists every metric, one line per result and kind of weights."""
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


def runs_table(results: list[Result]) -> Table:
    """Lists the folder, hashes, cost and commit of every result; hashes to twelve digits."""
    titles = ["method", "seed", "folder", "corpus", "checkpoint sha256", "split sha256"]
    titles += ["steps", "minutes", "texts/s", "tokens/s", "commit"]
    rows = []
    for result in results:
        cohort, report = result.cohort, result.run["report"] if result.run else {}
        seconds = report.get("training", {}).get("seconds")
        provenance = result.evaluation.get("provenance") or report.get("provenance", {})
        cost = result.evaluation.get("cost") or {}
        hashes = cohort["checkpoint_sha256"], cohort["split_sha256"], provenance.get("commit")
        checkpoint, split, commit = (found and found[:12] for found in hashes)
        cells = [result.method, cohort["seed"], result.evaluation["scorer"]["workdir"]]
        cells += [cohort["corpus"], checkpoint, split, report.get("selected_step")]
        cells += [None if seconds is None else f"{seconds / 60:.1f}"]
        cells += [cost.get("texts_per_second"), cost.get("tokens_per_second"), commit]
        rows.append([_dash(cell) for cell in cells])
    return Table(titles, rows)


class Published(NamedTuple):
    """A table copied from a paper."""

    title: str
    source: str
    metric: str
    table: Table
    caveats: list[str]


def read_published(path: str | Path) -> list[Published]:
    """Reads tables of papers from JSON: {"tables": [{"title", "source", "metric", "columns",
    "rows": {name: numbers}, "caveats"}]}; a missing number is null.

    Raises BadInput for an invalid file, and for a table without a source.
    """
    try:
        return [_published(table) for table in json.loads(Path(path).read_text())["tables"]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(
            f"{path} holds no published tables ({type(error).__name__}: {error}): give JSON with "
            "the title, source, metric, columns and rows of each."
        ) from error


def _published(table: dict) -> Published:
    if not table["source"]:
        raise ValueError(f"{table['title']} has no source")
    rows = [[name, *map(_dash, numbers)] for name, numbers in table["rows"].items()]
    titles = ["as published, not re-run", *table["columns"]]
    if any(len(row) != len(titles) for row in rows):
        raise ValueError(f"{table['title']} has rows that do not match its columns")
    caveats = list(table.get("caveats", []))
    return Published(table["title"], table["source"], table["metric"], Table(titles, rows), caveats)
