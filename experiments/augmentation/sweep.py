"""Trains the cells of this experiment that have no record yet, then prints the table.

    python experiments/augmentation/sweep.py --corpora=DIR          # what is missing, the table
    python experiments/augmentation/sweep.py --corpora=DIR rules    # the cells of one set alone
    python experiments/augmentation/sweep.py --table                # the table alone

DIR is that of experiments/methods. A cell is one kind of strong view and one seed; everything else
is UDA's cell of experiments/methods, short form, whose records are the cells of `tfidf`.
"""

import argparse
import json
import runpy
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from tabulate import tabulate

from ssl_guard.report import build

HERE = Path(__file__).parent
METHODS = HERE.parent / "methods"
RUNS = Path("runs/augmentation")
ALGORITHM, LENGTH, TWIN = "uda", "short", "supervised"
KINDS = ("none", "eda", "tfidf", "back_translation", "rules", "mixed")  # files of configs/augment/
RECORDED = "tfidf"  # in experiments/methods
GENERAL = ("eda", "tfidf", "back_translation")  # general-purpose augmentation

methods = runpy.run_path(str(METHODS / "sweep.py"))
SEEDS, KEPT = methods["SEEDS"], methods["KEPT"]


def settings(seed: int) -> dict:
    """The config of UDA's cell in experiments/methods."""
    keys = ("train.steps", "train.unlabelled_batch", "train.eval_every_steps")
    lengths = dict(zip(keys, methods["LENGTHS"][LENGTH], strict=True))
    own = methods["OWN"].get(ALGORITHM, {})
    return methods["SETTINGS"] | lengths | own | {"seed": seed}


def command(module: str, config: str, values: dict, *flags: str) -> list[str]:
    """The command line of one of the package's programs."""
    overrides = [f"--config.{key}={value}" for key, value in values.items()]
    return [sys.executable, "-m", f"ssl_guard.{module}", f"--config={config}", *flags, *overrides]


def record(kind: str, seed: int) -> Path:
    """Where the record of a cell is."""
    if kind == RECORDED:
        return METHODS / LENGTH / f"{ALGORITHM}-{seed}"
    return HERE / "records" / f"{kind}-{seed}"


def train(kind: str, seed: int) -> None:
    """Makes the set of a cell, runs or resumes it, and keeps its record and the set's account."""
    kept = record(kind, seed)
    if (kept / "report.json").exists():
        return
    workdir, values = RUNS / f"{kind}-{seed}", settings(seed)
    make = command("augment", f"configs/augment/{kind}.py", values)
    subprocess.run(make, check=True)
    values["augment.sets"] = repr((kind,))
    values["observatory.twin"] = f"runs/methods/{LENGTH}/{TWIN}-{seed}"
    config = f"configs/{ALGORITHM}.py"
    subprocess.run(command("main", config, values, f"--workdir={workdir}"), check=True)
    kept.mkdir(parents=True, exist_ok=True)
    manifest = next(Path("data/augmented").glob(f"*.{seed}@*/{kind}/manifest.json"))
    shutil.copy(manifest, kept / "set.json")
    for name in KEPT:  # the report comes last: it says that the record is whole
        shutil.copy(workdir / name, kept / name)


def table() -> str:
    """Three tables: the gain on the supervised twin of every kind of strong view; of those that are
    not general-purpose, the gain on the best one that is; what the runs and the gates saw."""
    cells = {kind: [record(kind, seed) for seed in SEEDS] for kind in KINDS}
    cells[TWIN] = [METHODS / LENGTH / f"{TWIN}-{seed}" for seed in SEEDS]
    runs = {
        kind: [build.load(cell) for cell in paths if (cell / "report.json").exists()]
        for kind, paths in cells.items()
    }
    runs = {kind: found for kind, found in runs.items() if found}
    best = max(runs.keys() & set(GENERAL), key=lambda kind: mean_f1(runs[kind]))
    against_best = {
        kind: found for kind, found in runs.items() if kind == best or kind not in GENERAL
    }
    del against_best[TWIN]
    return (
        f"Gain on the supervised twin:\n\n{build.seeds_table(runs, twin=TWIN)}\n\n"
        f"Gain on the best general-purpose augmentation, {best}:\n\n"
        f"{build.seeds_table(against_best, twin=best)}\n\n"
        f"What the runs and the gates saw:\n\n{seen(runs)}"
    )


def seen(runs: dict[str, list[dict]]) -> str:
    """Means over steps and seeds of what training logs, and the share of views that the first stage
    of the recipe made, by class; a dash for the records of experiments/methods, which have none."""
    rows = []
    for kind in (kind for kind in KINDS if kind in runs):
        logged = [row for run in runs[kind] for row in run["metrics"]]
        shown = [
            statistics.mean(row[name] for row in logged if name in row)
            for name in ("loss/unlabelled", "pseudo/mask_rate", "pseudo/accuracy")
        ]
        accounts = [json.loads(path.read_text())["account"] for path in accounts_of(kind)]
        made = ["-", "-"]
        if accounts:
            made = [f"{100 * first_stage(accounts, label):.1f}" for label in ("harmful", "safe")]
        rows.append(
            [kind, f"{shown[0]:.3f}", *(f"{100 * value:.1f}" for value in shown[1:]), *made]
        )
    titles = ["", "unlabelled loss, nats", "masked, %", "pseudo-labels right, %"]
    titles += ["harmful made first, %", "safe made first, %"]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


def accounts_of(kind: str) -> list[Path]:
    """The files with the accounts of the sets of a kind."""
    return [path for seed in SEEDS if (path := record(kind, seed) / "set.json").exists()]


def first_stage(accounts: list[dict], label: str) -> float:
    """Share of the views of a class that passed the gates as the first stage made them."""
    stages = [next(iter(account["tried"])) for account in accounts]
    pairs = list(zip(accounts, stages, strict=True))
    accepted = sum(account["accepted"][stage][label] for account, stage in pairs)
    return accepted / sum(account["tried"][stage][label] for account, stage in pairs)


def mean_f1(runs: list[dict]) -> float:
    """F1 of the harmful class on test, the mean over seeds."""
    return sum(build.scores_of(run)["f1"]["value"] for run in runs) / len(runs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="kind", help="all, if none is given")
    parser.add_argument("--corpora", type=Path, help="folder of prompt_harm.jsonl.gz")
    parser.add_argument("--table", action="store_true", help="the table alone")
    arguments = parser.parse_args()
    if arguments.corpora:
        methods["write_corpora"](arguments.corpora)
    if not arguments.table:
        for kind in arguments.kinds or KINDS:
            for seed in SEEDS:
                train(kind, seed)
    print(table())
