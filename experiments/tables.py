"""Makes tables from the records of experiments."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ssl_guard.evaluation.records_io import method_name
from ssl_guard.report import comparison, records, results, tables

HERE = Path(__file__).parent


def runs_of(experiment: str, names: Iterable[str]) -> list[dict]:
    """Loads the runs of the cells with records."""
    paths = [HERE / experiment / name for name in names]
    return [results.load(path) for path in paths if records.path_of(path).exists()]


def scores_of(found: dict) -> dict:
    """Returns {metric: {value, low, high}} on test for a run of `results.load`."""
    return found["report"]["test"][found["report"]["weights"]]


def reported(evaluation: dict) -> dict:
    """Returns {metric: {value, low, high}} of an evaluation's reported weights."""
    return evaluation["scores"][evaluation["cohort"]["weights"]]


def evaluations(record: dict, policy: str) -> dict[str, dict]:
    """Returns {corpus: evaluation} of a record under one threshold policy."""
    return {
        evaluation["cohort"]["corpus"]: evaluation
        for evaluation in record["evaluations"].values()
        if evaluation["cohort"]["threshold_policy"].partition(",")[0] == policy
    }


def github(rows: list[list], titles: list[str]) -> str:
    """Formats a table as GitHub Markdown without changing its cells."""
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def percent(score: dict | None) -> str:
    """Formats a score in percent with its interval; a dash for None."""
    if score is None:
        return "-"
    value, low, high = (100 * score[key] for key in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def over_seeds(scores: list[dict | None]) -> str:
    """Formats the interval of one seed, or the mean and all values of several."""
    if len(scores) == 1 or scores[0] is None:
        return percent(scores[0])
    values = [100 * score["value"] for score in scores]
    return f"{np.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})"


def operating_points(found: list[dict], profiles: Sequence[str]) -> str:
    """Tabulates guarantees and measurements of policies on calibration rows and every corpus.

    found: records of one cell, one per seed; a corpus is measured over the seeds that have it.
    """
    rows = []
    for profile in profiles:
        points = [record["policy"]["thresholds"][profile] for record in found]
        limits = ", ".join(f"{point['threshold']:.4f}" for point in points)
        name = f"{profile}: {points[0]['promise']}; score >= {limits}"
        first = found[0]["policy"]
        lines = [("calibration rows", first, [point["measured"] for point in points])]
        measured = [evaluations(record, f"policy:{profile}") for record in found]
        for corpus in sorted(measured[0], key=lambda name: ("-" not in name, name)):
            scores = [reported(of_seed[corpus]) for of_seed in measured if corpus in of_seed]
            lines.append((corpus, measured[0][corpus]["cohort"], scores))
        for number, (corpus, counts, scores) in enumerate(lines):
            shown = [
                over_seeds([score.get(key) for score in scores])
                for key in ("fpr", "recall", "precision")
            ]
            cells = [corpus, counts["rows"], counts["harmful"], *shown]
            rows.append(["" if number else name, *cells])
    titles = ["profile", "corpus", "rows", "harmful", "FPR, %", "recall, %", "precision, %"]
    return github(rows, titles)


def seeds_table(methods: dict[str, list[dict]], *, baseline: str) -> str:
    """Tabulates mean and deviation over seeds, and gains on the baseline; best F1 first.

    methods: {name: runs of `results.load`, one per seed}; baseline: one of the names. The gain is
    that of `comparison.summarise`, a dash if the baseline lacks a seed. `better` counts seeds with
    a gain. `shadow alarm` counts seeds in which dev precision fell below the baseline's at some
    step; it needs no test labels.

    Raises BadInput if the runs have different test rows.
    """
    found = [
        results.own_test(run)._replace(method=method_name(run["report"], method), labels=None)
        for method, runs in methods.items()
        for run in runs
    ]
    rows = []
    for row in comparison.summarise(found, baseline, tested=("f1",)):
        runs, gain = [result.run for result in row["results"]], row["gains"].get("f1")
        # Means keep their spread; the interval of a single run is omitted.
        scores = [tables.cell(row["scores"][name]).split(" [")[0] for name in tables.SHOWN]
        better = f"{gain['better']} of {gain['pairs']}" if gain else "-"
        gained = tables.cell(gain, sign="+")
        rows.append([row["method"], len(runs), *scores, gained, better, _seeds_with_alarm(runs)])
    titles = ["test, %", "seeds", *tables.SHOWN.values()]
    return github(rows, [*titles, "F1 gain [95%]", "better", "shadow alarm"])


def _seeds_with_alarm(runs: list[dict]) -> str:
    """Formats a count such as "2 of 3"; a dash for runs without pseudo-labels."""
    values = [alarm_values(run) for run in runs]
    return f"{sum(max(one) > 0 for one in values)} of {len(values)}" if all(values) else "-"


def alarm_values(run: dict) -> list[float]:
    """Returns the shadow alarm of every logged step that has one: 1 if it was raised, else 0."""
    name = "alarm/shadow_precision"
    return [row[name] for row in run["metrics"] if name in row]
