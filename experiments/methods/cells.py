"""Compares all methods with 200 labels on the same rows, model, batches and steps.

A cell is a method, a seed and a length of training. The seed draws labelled and dev rows, head,
order and dropout. The corpora are written from DIR/prompt_harm.jsonl.gz, with fields id, source,
prompt and prompt_harmful.
"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from experiments.sweep import Cell, product
from experiments.tables import alarm_values, runs_of, scores_of, seeds_table
from ssl_guard.runtime.files import write_jsonl

SEEDS = (0, 1, 2)
BASELINE = "supervised"
METHODS = (
    BASELINE, "fixmatch", "multimatch", "softmatch", "freematch", "adamatch", "marginmatch", "uda",
    "mean_teacher", "flexmatch", "pseudo_label", "multihead_cotraining", "simmatch", "mixmatch",
    "vat", "dash", "pi_model", "remixmatch", "mixtext", "tmix",
    "supervised_full", "setfit", "logistic_regression", "tfidf_logistic",
)  # fmt: skip
# Steps, unlabelled rows per step, steps between evaluations. Long takes up to ten minutes on two
# cores and three passes over the pool; short takes half a pass.
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
# The published threshold 0.95 masks 90% of rows in the first half of so short a run. Dash's first
# threshold is the loss over one pass of the labelled rows. supervised_full has 15 times the labels.
# A pass over the pool takes 178 steps, so MultiMatch's epoch is a pass over the labelled rows, as
# in the safety paper's code.
OWN = {
    "dash": {"dash.estimate_steps": 25},
    "supervised_full": {"train.steps": 250, "train.labelled_batch": 16},
    "fixmatch": {"fixmatch.threshold": 0.8},
    "multimatch": {"train.steps_per_epoch": 25},
    "flexmatch": {"flexmatch.threshold": 0.8},
    "marginmatch": {"marginmatch.confidence": 0.8},
    "pseudo_label": {"pseudo_label.threshold": 0.8},
    "simmatch": {"simmatch.threshold": 0.8},
    "setfit": {"train.steps": 500, "train.labelled_batch": 16},  # its paper's
}


def settings(method: str, length: str, seed: int) -> dict:
    """Returns the settings of a cell without its baseline run."""
    keys = ("train.steps", "train.unlabelled_batch", "train.eval_every_steps")
    steps = dict(zip(keys, LENGTHS[length], strict=True))
    return SETTINGS | steps | OWN.get(method, {}) | {"seed": seed}


def _cell(method: str, length: str, seed: int) -> Cell:
    found = settings(method, length, seed)
    if method != BASELINE:
        found["monitor.baseline_run"] = f"runs/methods/{length}/{BASELINE}-{seed}"
    return Cell(method, found)


CELLS = {
    f"{cell['length']}/{cell['method']}-{cell['seed']}": _cell(**cell)
    for cell in product(length=LENGTHS, method=METHODS, seed=SEEDS)
}


def write_corpora(folder: Path) -> None:
    """Writes the pool and the test rows as corpus files."""
    write_sources(folder, [Path(SETTINGS[key]).stem for key in ("data.corpus", "data.test_corpus")])


def write_sources(folder: Path, sources: Sequence[str]) -> None:
    """Writes data/<source>.jsonl for sources of DIR/prompt_harm.jsonl.gz."""
    with gzip.open(folder / "prompt_harm.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for source in sources:
        kept = [
            {"id": row["id"], "prompt": row["prompt"], "label": row["prompt_harmful"]}
            for row in rows
            if row["source"] == source
        ]
        write_jsonl(Path("data", f"{source}.jsonl"), kept)


def table() -> str:
    """Tabulates mean, spread and gain of the methods with records, for each length."""
    parts = []
    for length, (steps, rows, _) in LENGTHS.items():
        found = {
            method: runs_of("methods", [f"{length}/{method}-{seed}" for seed in SEEDS])
            for method in METHODS
        }
        if methods := {method: runs for method, runs in found.items() if runs}:
            table = seeds_table(methods, baseline=BASELINE)
            parts.append(f"{length}: {steps} steps of {rows} unlabelled rows\n\n{table}")
            parts.append(alarms(methods))
    return "\n\n".join(parts)


def alarms(methods: dict[str, list[dict]]) -> str:
    """Counts alarms in cells with and without a gain on the baseline of their seed."""
    baseline = {run["report"]["seed"]: f1(run) for run in methods.get(BASELINE, [])}
    raised: dict[bool, list[bool]] = {True: [], False: []}
    for run in (run for runs in methods.values() for run in runs):
        values = alarm_values(run)
        if values and run["report"]["seed"] in baseline:
            raised[f1(run) > baseline[run["report"]["seed"]]].append(max(values) > 0)
    worse, better = raised[False], raised[True]
    return (
        f"The shadow alarm was raised in {sum(worse)} of the {len(worse)} cells with no gain on "
        f"their baseline, and in {sum(better)} of the {len(better)} cells with one."
    )


def f1(run: dict) -> float:
    """Returns F1 of the harmful class on test."""
    return scores_of(run)["f1"]["value"]
