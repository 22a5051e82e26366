"""Compares UDA with its supervised baseline for 50, 200, 800 and all labels.

Cells of 200 labels and of all labels are the short ones of experiments/methods. The others differ
from them only in the number of labels.
"""

from experiments.methods import cells as methods
from experiments.sweep import Cell, product
from experiments.tables import github, over_seeds, runs_of, scores_of

SEEDS = (0, 1, 2)
METHODS = ("supervised", "uda")
BUDGETS = (50, 200, 800)
SHOWN = {"f1": "F1 harmful", "auprc": "AUPRC", "recall_at_1_fpr": "recall at 1% FPR"}
CELLS = {
    "{method}-{labels}-{seed}".format(**cell): Cell(
        cell["method"],
        methods.settings(cell["method"], "short", cell["seed"]) | {"data.labelled": cell["labels"]},
    )
    for cell in product(seed=SEEDS, labels=BUDGETS, method=METHODS)
    if cell["labels"] != methods.SETTINGS["data.labelled"]
}

write_corpora = methods.write_corpora


def runs(method: str, labels: int | None) -> dict[int, dict]:
    """Loads {seed: run} of the cells with records; labels: None for all."""
    found = {}
    for seed in SEEDS:
        own = f"{method}-{labels}-{seed}"
        place = ("budget", own) if own in CELLS else ("methods", f"short/{method}-{seed}")
        if of_seed := runs_of(place[0], [place[1]]):
            found[seed] = of_seed[0]
    return found


def table() -> str:
    """Tabulates methods and budgets over the seeds with all records; no rows without any."""
    columns = [(method, labels) for labels in BUDGETS for method in METHODS]
    found = {column: runs(*column) for column in [*columns, ("supervised_full", None)]}
    seeds = [seed for seed in SEEDS if all(seed in of_seeds for of_seeds in found.values())]
    rows = []
    for (method, labels), of_seeds in found.items() if seeds else ():
        scores = [scores_of(of_seeds[seed]) for seed in seeds]
        shown = [over_seeds([score[name] for score in scores]) for name in SHOWN]
        rows.append([labels or "all", method, *shown])
    return github(rows, ["labels", "method", *(f"{title}, %" for title in SHOWN.values())])
