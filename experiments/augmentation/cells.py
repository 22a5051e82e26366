"""Compares kinds of strong views for UDA with 200 labels.

A cell is one kind of strong view and one seed. All other settings are those of UDA's short cell of
experiments/methods, whose records are the cells of `tfidf`.
"""

import statistics

from experiments.methods import cells as methods
from experiments.sweep import Cell, overrides, product
from experiments.tables import github, runs_of, scores_of, seeds_table

ALGORITHM, LENGTH, TWIN = "uda", "short", "supervised"
KINDS = ("none", "eda", "tfidf", "back_translation", "rules", "mixed")  # files of configs/augment/
RECORDED = "tfidf"  # in experiments/methods
GENERAL = ("eda", "tfidf", "back_translation")  # general-purpose kinds
SEEDS = methods.SEEDS

write_corpora = methods.write_corpora


def _cell(kind: str, seed: int) -> Cell:
    """Returns the cell that makes the set, trains on it, and keeps the set's manifest."""
    settings = methods.settings(ALGORITHM, LENGTH, seed)
    make = ("augment", f"--config=configs/augment/{kind}.py", *overrides(settings))
    twin = f"runs/methods/{LENGTH}/{TWIN}-{seed}"
    settings |= {"augment.sets": repr((kind,)), "monitor.baseline_run": twin}
    manifest = f"data/augmented/*.{seed}@*/{kind}/manifest.json"
    return Cell(ALGORITHM, settings, before=[make], more={"set": manifest})


CELLS = {
    f"{cell['kind']}-{cell['seed']}": _cell(**cell)
    for cell in product(kind=KINDS, seed=SEEDS)
    if cell["kind"] != RECORDED
}


def table() -> str:
    """Formats three tables.

    The gain of every kind on the supervised twin; the gain of the task-specific kinds on the best
    general-purpose one; means of what training and the gates logged.
    """
    found = {kind: runs_of("augmentation", [f"{kind}-{seed}" for seed in SEEDS]) for kind in KINDS}
    for kind, method in ((RECORDED, ALGORITHM), (TWIN, TWIN)):
        found[kind] = runs_of("methods", [f"{LENGTH}/{method}-{seed}" for seed in SEEDS])
    runs = {kind: of_kind for kind, of_kind in found.items() if of_kind}
    best = max(runs.keys() & set(GENERAL), key=lambda kind: mean_f1(runs[kind]))
    against_best = {
        kind: of_kind
        for kind, of_kind in runs.items()
        if kind != TWIN and (kind == best or kind not in GENERAL)
    }
    return (
        f"Gain on the supervised twin:\n\n{seeds_table(runs, baseline=TWIN)}\n\n"
        f"Gain on the best general-purpose augmentation, {best}:\n\n"
        f"{seeds_table(against_best, baseline=best)}\n\n"
        f"What the runs and the gates saw:\n\n{seen(runs)}"
    )


def seen(runs: dict[str, list[dict]]) -> str:
    """Formats means over steps and seeds of logged metrics, and the views made by the first stage.

    The latter as shares by class; a dash for records of experiments/methods, which have no set.
    """
    rows = []
    for kind in (kind for kind in KINDS if kind in runs):
        logged = [row for run in runs[kind] for row in run["metrics"]]
        shown = [
            statistics.mean(row[name] for row in logged if name in row)
            for name in ("loss/unlabelled", "pseudo/mask_rate", "pseudo/accuracy")
        ]
        accounts = [run["more"]["set"]["account"] for run in runs[kind] if "set" in run["more"]]
        made = ["-", "-"]
        if accounts:
            made = [f"{100 * first_stage(accounts, label):.1f}" for label in ("harmful", "safe")]
        rows.append(
            [kind, f"{shown[0]:.3f}", *(f"{100 * value:.1f}" for value in shown[1:]), *made]
        )
    titles = ["", "unlabelled loss, nats", "masked, %", "pseudo-labels right, %"]
    return github(rows, [*titles, "harmful made first, %", "safe made first, %"])


def first_stage(accounts: list[dict], label: str) -> float:
    """Returns the share of a class's views that the first stage made and the gates accepted."""
    stages = [next(iter(account["tried"])) for account in accounts]
    pairs = list(zip(accounts, stages, strict=True))
    accepted = sum(account["accepted"][stage][label] for account, stage in pairs)
    return accepted / sum(account["tried"][stage][label] for account, stage in pairs)


def mean_f1(runs: list[dict]) -> float:
    """Returns the F1 of the harmful class on test, averaged over seeds."""
    return sum(scores_of(run)["f1"]["value"] for run in runs) / len(runs)
