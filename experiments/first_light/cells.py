"""Runs what `make demo` runs: self-training and its supervised baseline on a small corpus.

A cell is a method and a seed. The seed draws the split, the head, the order and the dropout.
"""

import importlib

import numpy as np

from experiments.sweep import Cell, product, taught
from experiments.tables import github, runs_of, scores_of
from ssl_guard import config as configs
from ssl_guard.report import comparison, results, tables

METHODS, SEEDS = ("self_training", "supervised", "graph"), (0, 1, 2)
_DEFAULT = configs.leaves(configs.default())
_STUDENT = configs.leaves(importlib.import_module("configs.self_training").get_config())
# The settings of the student, which the command self_train gives to the teachers too, and the flags
# of `make demo`.
SETTINGS = {
    key: value
    for key, value in _STUDENT.items()
    if key in _DEFAULT and value != _DEFAULT[key] and key != "algorithm"
} | {"train.steps": 60, "train.eval_every_steps": 20}


def _cell(method: str, seed: int) -> Cell:
    own = {"graph.alpha": 0.0} if method == "graph" else {}
    plain = Cell(method, SETTINGS | own | {"seed": seed})
    if method != "self_training":
        return plain
    names = [name for name in METHODS if name != method]
    teachers = {f"runs/first_light/{name}-{seed}": _cell(name, seed) for name in names}
    return taught(plain, f"runs/first_light/{method}-{seed}-soft_labels", teachers)


CELLS = {
    f"{cell['method']}-{cell['seed']}": _cell(**cell)
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
