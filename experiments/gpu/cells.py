"""Compares a recipe with its supervised baseline on an encoder of base size, on one GPU.

Rows and labels are those of experiments/methods; texts may be twice as long and no layer is frozen.
A cell is a size, a method and a seed. The smoke cells have the sizes of config.smoke, for a CPU.
"""

from experiments.methods import cells as methods
from experiments.sweep import Cell, product, taught
from experiments.tables import runs_of, seeds_table
from ssl_guard import config as configs

SEEDS = (0, 1, 2)
BASELINE = methods.BASELINE
RECIPE = "self_training"
SETTINGS = methods.SETTINGS | {
    "data.max_length": 256,
    "data.buckets": (64, 128, 192, 256),
    "data.num_shapes": 2,  # every shape is compiled
    "data.packing": True,
    "model.name": "all-mpnet-base-v2",
    "optim.freeze": (),
    "optim.lr": 5e-5,  # a fourth of the default, which is for frozen lower layers
    "train.steps": 300,
    "train.unlabelled_batch": 32,
    "train.eval_every_steps": 50,
}
_DEFAULT = configs.as_json(configs.default())
_SMALL = configs.as_json(configs.smoke(configs.default()))
SIZES = {
    "full": {},
    "smoke": {
        **{key: value for key, value in _SMALL.items() if value != _DEFAULT[key]},
        "data.num_shapes": 1,
    },
}


def _cell(size: str, method: str, seed: int) -> Cell:
    """Plans a cell; that of the recipe first trains its teachers, if these are not finished."""
    settings = SETTINGS | SIZES[size] | {"seed": seed}
    if method == BASELINE:
        return Cell(method, settings)
    baseline, ensemble, labels = (
        f"runs/gpu/{size}/{name}-{seed}" for name in (BASELINE, "ensemble", "soft_labels")
    )
    teachers = {
        baseline: Cell(BASELINE, settings),
        ensemble: Cell("graph", settings | {"graph.alpha": 0.0}),
    }
    return taught(Cell(method, settings | {"monitor.baseline_run": baseline}), labels, teachers)


CELLS = {
    f"{cell['size']}/{cell['method']}-{cell['seed']}": _cell(**cell)
    for cell in product(size=SIZES, seed=SEEDS, method=(BASELINE, RECIPE))
    if cell["size"] == "full" or cell["seed"] == SEEDS[0]
}

write_corpora = methods.write_corpora


def table() -> str:
    """Tabulates mean, spread and gain of the full cells; "" without records."""
    found = {
        method: runs_of("gpu", [f"full/{method}-{seed}" for seed in SEEDS])
        for method in (BASELINE, RECIPE)
    }
    found = {method: runs for method, runs in found.items() if runs}
    return seeds_table(found, baseline=BASELINE) if found else ""
