"""Writes the last files of a training run: the report, and the scores of its rows."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from ssl_guard.data import pipeline
from ssl_guard.data.records import Records
from ssl_guard.data.schema import TASKS
from ssl_guard.evaluation import inference
from ssl_guard.evaluation.bootstrap import score_intervals
from ssl_guard.evaluation.prepare import Prepared
from ssl_guard.runtime import provenance
from ssl_guard.runtime.files import read_jsonl, write_json, write_jsonl


def write_report(
    workdir: Path,
    config: ConfigDict,
    prepared: Prepared,
    dev: dict[str, dict[str, float]],
    scores: dict[str, np.ndarray],
    *,
    steps: int,
    selected_step: int,
    checkpoint_sha256: str,
    diagnostics: dict | None = None,
) -> dict:
    """Writes predictions.jsonl and report.json, the last file of a run, and returns the report.

    dev: metrics.dev_scores of the raw and, if kept, the averaged weights, by "raw" and "ema";
    scores: float64 [test rows] of each, evaluated at their own dev threshold;
    checkpoint_sha256: of the weights, see `scorer.tree_sha256`; diagnostics: `monitor.account`,
    None for a method without steps.
    """
    labels, groups = inference.labels_of(prepared.test), prepared.test_groups
    test = {
        kind: score_intervals(
            labels, values, dev[kind]["threshold"], groups, resamples=config.eval.bootstrap_samples
        )
        for kind, values in scores.items()
    }
    tasks = pipeline.tasks_of(prepared.test)
    by_task = {
        name: {
            kind: score_intervals(
                labels[rows],
                values[rows],
                dev[kind]["threshold"],
                groups[rows],
                resamples=config.eval.bootstrap_samples,
            )
            for kind, values in scores.items()
        }
        for number, name in enumerate(TASKS)
        if len(set(labels[rows := np.flatnonzero(tasks == number)])) == 2 and len(set(tasks)) > 1
    }
    write_predictions(workdir / "predictions.jsonl", prepared.test, groups, **scores)
    report = {
        "weights": "ema" if "ema" in test else "raw",
        "dev": dev,
        "test": test,
        "test_by_task": by_task,
        "algorithm": config.algorithm,
        "oracle": config.train.oracle,
        "seed": config.seed,
        "selected_step": selected_step,
        "checkpoint_sha256": checkpoint_sha256,
        "steps": steps,
        "data": prepared.summary,
        "contamination": prepared.contamination,
        "training": _training_summary(workdir),
        "observatory": diagnostics or {},
        "provenance": provenance.collect(**prepared.hashes),
    }
    write_json(workdir / "report.json", report)
    return report


def _training_summary(workdir: Path) -> dict:
    """Sums up the cost of all steps of a run, over all of its starts."""
    rows = read_jsonl(workdir / "metrics.jsonl")
    cost = {"seconds": round(sum(row["time/seconds"] for row in rows), 1)}
    speed = [row["time/tokens_per_second"] for row in rows if "time/tokens_per_second" in row]
    padding = [row["data/padding_share"] for row in rows if "data/padding_share" in row]
    if speed:  # a run with steps
        cost |= {
            "tokens_per_second": round(float(np.median(speed))),
            "padding_share": round(float(np.mean(padding)), 4),
        }
    return cost


def write_predictions(path: Path, records: Records, groups: np.ndarray, **scores: np.ndarray):
    """Writes one JSON line a row: id, group, label, the named scores and, for texts scored in
    windows, their number; never the text."""
    rows = records.gather(range(len(records)))
    lines = []
    for i, row in enumerate(rows):
        values = {name: round(float(value[i]), 7) for name, value in scores.items()}
        line = {"id": row["id"], "group": int(groups[i]), "label": int(row["label"]), **values}
        line |= {"windows": row["windows"]} if "windows" in row else {}
        lines.append(line)
    write_jsonl(path, lines)
