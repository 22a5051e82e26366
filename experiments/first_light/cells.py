"""Compares UDA and FixMatch with their supervised baseline on a small corpus of responses.

A cell is a config and a seed. The seed draws the split, the head, the order and the dropout.
"""

import numpy as np

from experiments.sweep import Cell, product
from experiments.tables import github, runs_of, scores_of
from ssl_guard.report import comparison, results, tables

METHODS, SEEDS = ("uda", "fixmatch", "supervised"), (0, 1, 2)
CELLS = {
    f"{cell['method']}-{cell['seed']}": Cell(cell["method"], {"seed": cell["seed"]})
    for cell in product(seed=SEEDS, method=METHODS)
}


def table() -> str:
    """Tabulates mean and deviation over the seeds with records, and the verdict of each seed."""
    runs = {
        method: {
            run["report"]["seed"]: run
            for run in runs_of("first_light", [f"{method}-{seed}" for seed in SEEDS])
        }
        for method in METHODS
    }
    rows = []
    for method, found in runs.items():
        if not found:
            continue
        cells, verdicts = [], []
        for name in tables.SHOWN:
            values = [100 * scores_of(run)[name]["value"] for run in found.values()]
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}")
        for seed, run in found.items():
            if method != "supervised" and seed in runs["supervised"]:
                pair = [results.own_test(each) for each in (run, runs["supervised"][seed])]
                compared = {row["method"]: row for row in comparison.summarise(pair, "supervised")}
                gain = compared[method]["gains"]["f1"]
                verdicts.append(f"{100 * gain['value']:+.1f} ({comparison.verdict(gain)})")
        rows.append([method, len(found), *cells, ", ".join(verdicts) or "-"])
    titles = ["test, %", "seeds", *tables.SHOWN.values(), "F1 gain on the baseline, by seed"]
    return github(rows, titles)
