"""Trains the cells of this experiment that have no record yet, then prints the table.

    python experiments/first_light/sweep.py              # train what is missing, then the table
    python experiments/first_light/sweep.py --table      # the table alone

A cell is one config and one seed; the seed draws the split, the head, the order and the dropout.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ssl_guard.report import build

HERE = Path(__file__).parent
METHODS, SEEDS = ("uda", "fixmatch", "supervised"), (0, 1, 2)
KEPT = ("config.json", "report.json", "metrics.jsonl", "predictions.jsonl")


def train(method: str, seed: int) -> None:
    """Runs a cell, resuming it if it was interrupted, and keeps its record."""
    workdir, record = Path("runs/first_light") / f"{method}-{seed}", HERE / f"{method}-{seed}"
    if (record / "report.json").exists():
        return
    command = [sys.executable, "-m", "ssl_guard.main", f"--config=configs/{method}.py"]
    subprocess.run([*command, f"--workdir={workdir}", f"--config.seed={seed}"], check=True)
    record.mkdir(exist_ok=True)
    for name in sorted(KEPT, key=lambda name: name == "report.json"):  # the report comes last
        shutil.copy(workdir / name, record / name)


def table() -> str:
    """Mean and standard deviation over the seeds that have records, and verdicts per seed."""
    runs = {
        (method, seed): build.load(HERE / f"{method}-{seed}")
        for method in METHODS
        for seed in SEEDS
        if (HERE / f"{method}-{seed}" / "report.json").exists()
    }
    rows = []
    for method in METHODS:
        seeds = [seed for seed in SEEDS if (method, seed) in runs]
        if not seeds:
            continue
        cells, verdicts = [], []
        for name in build.SHOWN:
            values = [100 * build.scores_of(runs[method, seed])[name]["value"] for seed in seeds]
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}")
        for seed in seeds:
            if method != "supervised" and ("supervised", seed) in runs:
                compared = build.compare(runs[method, seed], runs["supervised", seed])
                gain = 100 * compared["difference"]["f1"]["value"]
                verdicts.append(f"{gain:+.1f} ({compared['unlabelled_data']})")
        rows.append([method, len(seeds), *cells, ", ".join(verdicts) or "-"])
    titles = ["test, %", "seeds", *build.SHOWN.values(), "F1 against the twin, by seed"]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    if "--table" not in sys.argv:
        for seed in SEEDS:
            for method in METHODS:
                train(method, seed)
    print(table())
