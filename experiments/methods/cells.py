"""Every method with 200 labels, under the same rows, model, batches and steps.

A cell is one method, one seed and one length of training; the seed draws labelled and dev rows,
head, order and dropout. The corpora are written from DIR/prompt_harm.jsonl.gz, whose rows have id,
source, prompt and prompt_harmful.
"""

import gzip
import json
from pathlib import Path

from experiments.sweep import Cell, product
from experiments.tables import alarm_values, runs_of, scores_of, seeds_table

SEEDS = (0, 1, 2)
TWIN = "supervised"
METHODS = (
    TWIN, "fixmatch", "multimatch", "softmatch", "freematch", "adamatch", "marginmatch", "uda",
    "mean_teacher", "flexmatch", "pseudo_label", "multihead_cotraining", "simmatch", "mixmatch",
    "vat", "dash", "pi_model", "remixmatch", "mixtext", "tmix",
    "supervised_full", "setfit", "logistic_regression", "tfidf_logistic",
)  # fmt: skip
# Steps, unlabelled rows a step, steps from one evaluation to the next. Long is what ends in ten
# minutes on two cores: three passes over the pool, where short takes half a pass.
LENGTHS = {"short": (100, 16, 50), "long": (300, 32, 100)}
SETTINGS = {
    "data.corpus": "data/wildguard_train.jsonl",
    "data.test_corpus": "data/wildguard_test.jsonl",
    "data.task": "prompt_harm",
    "data.labelled": 200,
    "data.dev": 300,
    "data.max_length": 128,
    "data.buckets": "(64,128)",
    "model.dtype": "bfloat16",
    "train.labelled_batch": 8,
    "train.log_every_steps": 10,
    "monitor.scored_rows": 200,
}
# The published 0.95 masks nine rows of ten for the first half of so short a run. Dash's first
# threshold is the loss of one pass over the labelled rows; the ceiling has 15 times their number. A
# pass over the pool takes 178 steps, so MultiMatch's epoch is one over the labelled rows, as in the
# safety paper's code.
OWN = {
    "dash": {"dash.estimate_steps": 25},
    "supervised_full": {"train.steps": 250, "train.labelled_batch": 16},
    "fixmatch": {"fixmatch.threshold": 0.8},
    "multimatch": {"train.steps_per_epoch": 25},
    "flexmatch": {"flexmatch.threshold": 0.8},
    "marginmatch": {"marginmatch.confidence": 0.8},
    "pseudo_label": {"pseudo_label.threshold": 0.8},
    "simmatch": {"simmatch.threshold": 0.8},
}


def settings(method: str, length: str, seed: int) -> dict:
    """The config of a cell, less its twin."""
    keys = ("train.steps", "train.unlabelled_batch", "train.eval_every_steps")
    steps = dict(zip(keys, LENGTHS[length], strict=True))
    return SETTINGS | steps | OWN.get(method, {}) | {"seed": seed}


def _cell(method: str, length: str, seed: int) -> Cell:
    twin = (
        {"monitor.baseline_run": f"runs/methods/{length}/{TWIN}-{seed}"} if method != TWIN else {}
    )
    return Cell(method, settings(method, length, seed) | twin)


CELLS = {
    f"{cell['length']}/{cell['method']}-{cell['seed']}": _cell(**cell)
    for cell in product(length=LENGTHS, method=METHODS, seed=SEEDS)
}


def write_corpora(folder: Path) -> None:
    """The pool and the test rows of the reference split, as files that the corpus reader takes."""
    with gzip.open(folder / "prompt_harm.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    Path("data").mkdir(exist_ok=True)
    for key in ("data.corpus", "data.test_corpus"):
        path = Path(SETTINGS[key])
        lines = [
            json.dumps({"id": r["id"], "prompt": r["prompt"], "label": r["prompt_harmful"]}) + "\n"
            for r in rows
            if r["source"] == path.stem
        ]
        path.write_text("".join(lines))


def table() -> str:
    """Mean, spread and gain on the twin of every method that has records, for each length."""
    parts = []
    for length, (steps, rows, _) in LENGTHS.items():
        found = {
            method: runs_of("methods", [f"{length}/{method}-{seed}" for seed in SEEDS])
            for method in METHODS
        }
        if methods := {method: runs for method, runs in found.items() if runs}:
            table = seeds_table(methods, twin=TWIN)
            parts.append(f"{length}: {steps} steps of {rows} unlabelled rows\n\n{table}")
            parts.append(alarms(methods))
    return "\n\n".join(parts)


def alarms(methods: dict[str, list[dict]]) -> str:
    """How often the alarm was up in cells with and without a gain on their twin."""
    twins = {run["report"]["seed"]: f1(run) for run in methods.get(TWIN, [])}
    ups = {True: [], False: []}
    for run in (run for runs in methods.values() for run in runs):
        values = alarm_values(run)
        if values and run["report"]["seed"] in twins:
            ups[f1(run) > twins[run["report"]["seed"]]].append(max(values) > 0)
    return (
        f"The shadow alarm was up in {sum(ups[False])} of the {len(ups[False])} cells that end no "
        f"better than their twin, and in {sum(ups[True])} of the {len(ups[True])} that end better."
    )


def f1(run: dict) -> float:
    """F1 of the harmful class on test."""
    return scores_of(run)["f1"]["value"]
