"""Trains the cells of this experiment that have no record yet, then prints the table.

    python experiments/budget/sweep.py --corpora=DIR           # train what is missing, the table
    python experiments/budget/sweep.py --corpora=DIR uda-50-0  # this cell alone
    python experiments/budget/sweep.py --table                 # the table alone

DIR holds prompt_harm.jsonl.gz, see experiments/methods, whose short cells are those of 200 labels
and of all; everything but the number of labels is theirs. An interrupted cell goes on from its last
checkpoint.
"""

import argparse
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ssl_guard.report import build

HERE = Path(__file__).parent
methods = runpy.run_path(str(HERE.parent / "methods" / "sweep.py"))
THERE = HERE.parent / "methods" / "short"
RUNS = Path("runs/budget")
SEEDS = (0, 1, 2)
METHODS = ("supervised", "uda")
BUDGETS = (50, 200, 800)
CELLS = [
    f"{method}-{labels}-{seed}"
    for seed in SEEDS
    for labels in BUDGETS
    for method in METHODS
    if labels != methods["SETTINGS"]["data.labelled"]
]
SHOWN = {"f1": "F1 harmful", "auprc": "AUPRC", "recall_at_1_fpr": "recall at 1% FPR"}


def train(cell: str) -> None:
    """Runs a cell, resuming it if it was interrupted, and keeps its record."""
    if (HERE / cell / "report.json").exists():
        return
    method, labels, seed = cell.split("-")
    keys = ("train.steps", "train.unlabelled_batch", "train.eval_every_steps")
    settings = methods["SETTINGS"] | dict(zip(keys, methods["LENGTHS"]["short"], strict=True))
    settings |= {"data.labelled": labels, "seed": seed}
    command = [sys.executable, "-m", "ssl_guard.main", f"--config=configs/{method}.py"]
    command += [f"--workdir={RUNS / cell}", *(f"--config.{k}={v}" for k, v in settings.items())]
    subprocess.run(command, check=True)
    (HERE / cell).mkdir(parents=True, exist_ok=True)
    for name in methods["KEPT"]:  # the report comes last: it says that the record is whole
        shutil.copy(RUNS / cell / name, HERE / cell / name)


def record(method: str, labels: int | None, seed: int) -> Path:
    """Where the record of a cell is; labels: None for all."""
    own = HERE / f"{method}-{labels}-{seed}"
    return own if own.name in CELLS else THERE / f"{method}-{seed}"


def table() -> str:
    """Every method and budget, over the seeds that have all their records; empty if none has."""
    columns = [(method, labels) for labels in BUDGETS for method in METHODS]
    columns.append(("supervised_full", None))
    seeds = [
        seed
        for seed in SEEDS
        if all((record(*column, seed) / "report.json").exists() for column in columns)
    ]
    rows = []
    for method, labels in columns if seeds else ():
        runs = [build.scores_of(build.load(record(method, labels, seed))) for seed in seeds]
        row = [
            labels or "all",
            method,
            *(over_seeds([run[name] for run in runs]) for name in SHOWN),
        ]
        rows.append(row)
    titles = ["labels", "method", *(f"{title}, %" for title in SHOWN.values())]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def over_seeds(scores: list[dict]) -> str:
    """The 95% interval of one seed, the mean and all values of several."""
    values = [100 * score["value"] for score in scores]
    if len(scores) == 1:
        return f"{values[0]:.1f} [{100 * scores[0]['low']:.1f}, {100 * scores[0]['high']:.1f}]"
    return f"{np.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cells", nargs="*", metavar="cell", help="all, if none is given")
    parser.add_argument("--corpora", type=Path, help="folder of prompt_harm.jsonl.gz")
    parser.add_argument("--table", action="store_true", help="the table alone")
    arguments = parser.parse_args()
    if arguments.corpora:
        methods["write_corpora"](arguments.corpora)
    if not arguments.table:
        for cell in arguments.cells or CELLS:
            train(cell)
    print(table())
