"""Tables that several experiments print from their records."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ssl_guard.evaluation.records_io import method_name
from ssl_guard.report import comparison, records, results, tables

HERE = Path(__file__).parent


def runs_of(experiment: str, names: Iterable[str]) -> list[dict]:
    """The runs of the cells that have records, as `results.load` gives them."""
    paths = [HERE / experiment / name for name in names]
    return [results.load(path) for path in paths if records.path_of(path).exists()]


def scores_of(found: dict) -> dict:
    """{metric: {value, low, high}} on test of a run of `results.load`."""
    return found["report"]["test"][found["report"]["weights"]]


def evaluations(record: dict, policy: str) -> dict[str, dict]:
    """{corpus: evaluation} of a record under one threshold policy."""
    return {
        evaluation["cohort"]["corpus"]: evaluation
        for evaluation in record["evaluations"].values()
        if evaluation["cohort"]["threshold_policy"].partition(",")[0] == policy
    }


def github(rows: list[list], titles: list[str]) -> str:
    """The table as GitHub Markdown, its cells as they are."""
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def percent(score: dict | None) -> str:
    """A score with its interval; a dash for a score that the corpus does not have."""
    if score is None:
        return "-"
    value, low, high = (100 * score[key] for key in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def over_seeds(scores: list[dict | None]) -> str:
    """The interval of one seed; the mean and all values of several."""
    if len(scores) == 1 or scores[0] is None:
        return percent(scores[0])
    values = [100 * score["value"] for score in scores]
    return f"{np.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})"


def seeds_table(methods: dict[str, list[dict]], *, twin: str) -> str:
    """Every method's mean and standard deviation over its seeds, and its gain on the twin's runs of
    the same seeds, as GitHub Markdown; best F1 first.

    methods: {name: runs of `results.load`, one a seed}; twin: one of the names. The gain is that
    of `comparison.summarise`, a dash where the twin has no run of a seed. `better` counts the seeds
    with a gain. `shadow alarm` counts the seeds in which dev precision fell below the twin's at
    some step; it needs no test label.

    Raises BadInput if the runs do not share the test rows.
    """
    found = [
        results.own_test(run)._replace(method=method_name(run["report"], method), labels=None)
        for method, runs in methods.items()
        for run in runs
    ]
    rows = []
    for row in comparison.summarise(found, twin, tested=("f1",)):
        runs, gain = [result.run for result in row["results"]], row["gains"].get("f1")
        # A mean has its spread; the interval of a single run is left out here.
        scores = [tables.cell(row["scores"][name]).split(" [")[0] for name in tables.SHOWN]
        better = f"{gain['better']} of {gain['pairs']}" if gain else "-"
        gained = tables.cell(gain, sign="+")
        rows.append([row["method"], len(runs), *scores, gained, better, _seeds_with_alarm(runs)])
    titles = ["test, %", "seeds", *tables.SHOWN.values()]
    return github(rows, [*titles, "F1 gain [95%]", "better", "shadow alarm"])


def _seeds_with_alarm(runs: list[dict]) -> str:
    """ "2 of 3", or a dash for runs without pseudo-labels, which have no alarms."""
    values = [alarm_values(run) for run in runs]
    return f"{sum(max(one) > 0 for one in values)} of {len(values)}" if all(values) else "-"


def alarm_values(run: dict) -> list[float]:
    """The shadow alarm at every logged step that has one: 1 if it was up, else 0."""
    name = "alarm/shadow_precision"
    return [row[name] for row in run["metrics"] if name in row]
