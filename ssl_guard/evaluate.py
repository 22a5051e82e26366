"""From weights and labelled records to scores: one code path for dev during training and for test.

An evaluation knows nothing of training: it gets data and predict_fn(params, batch) -> scores.
"""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from ssl_guard import metrics, provenance, sharding
from ssl_guard.data import pipeline, windows
from ssl_guard.data.schema import TASKS
from ssl_guard.data.tfrecord import Records
from ssl_guard.errors import BadInput
from ssl_guard.prepare import Prepared
from ssl_guard.writer import read, write_json


def outputs(
    fn: Callable,
    params,
    records: Records,
    *,
    batch_size: int,
    buckets,
    pad_id: int,
    mesh,
    pack_groups: int = 0,
) -> np.ndarray:
    """fn(params, batch), [batch, n], of every record: float64 [rows, n], in the records' order."""
    parts, places = [], []
    batches = pipeline.eval_batches(
        records, batch_size=batch_size, buckets=buckets, pad_id=pad_id, pack_groups=pack_groups
    )
    for batch, positions in batches:
        values = jax.device_get(fn(params, sharding.put_batch(batch, mesh)))
        parts.append(values[: len(positions)])
        places.append(positions)
    found = np.concatenate(parts).astype(np.float64)[np.argsort(np.concatenate(places))]
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        raise BadInput(
            f"{int((~finite).sum())} of {len(found)} rows got a score that is not a number: the "
            "run diverged; lower config.optim.lr."
        )
    return found


def predict(predict_fn: Callable, params, records: Records, **how) -> np.ndarray:
    """Harmful probability of every record, float64 [rows]; the arguments are those of `outputs`."""
    if isinstance(records, windows.Windowed):
        scores = predict(predict_fn, params, records.windows, **how)
        return windows.most_harmful(scores, records.owner)
    return outputs(predict_fn, params, records, **how)[:, 1]


def labels_of(records: Records) -> np.ndarray:
    """int [rows]: 1 harmful, 0 safe."""
    return np.array([row["label"] for row in records.gather(range(len(records)))])


def dev_scores(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Scores on dev at the threshold that is best there; the threshold is among them."""
    threshold = metrics.best_f1_threshold(labels, scores)
    return {"threshold": threshold, **metrics.binary_scores(labels, scores, threshold)}


def test_report(
    labels: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    groups: np.ndarray,
    *,
    resamples: int,
) -> dict[str, dict[str, float]]:
    """{metric: {value, low, high}} with 95% bootstrap intervals over prompt groups."""
    intervals = metrics.bootstrap(
        lambda rows: metrics.binary_scores(labels[rows], scores[rows], threshold),
        groups,
        labels,
        resamples=resamples,
    )
    return {name: interval._asdict() for name, interval in intervals.items()}


def write_report(
    workdir: Path,
    config: ConfigDict,
    prepared: Prepared,
    dev: dict[str, dict[str, float]],
    scores: dict[str, np.ndarray],
    *,
    steps: int,
    selected_step: int,
    observatory: dict | None = None,
) -> dict:
    """Writes predictions.jsonl and report.json, the last file of a run, and returns the report.

    dev: dev_scores of the raw and, if kept, the averaged weights, by "raw" and "ema"; scores:
    float64 [test rows] of each, which are judged at their own dev threshold; observatory: what
    `monitor.account` found, nothing for a baseline without steps.
    """
    labels, groups = labels_of(prepared.test), prepared.test_groups
    test = {
        kind: test_report(
            labels, values, dev[kind]["threshold"], groups, resamples=config.eval.bootstrap
        )
        for kind, values in scores.items()
    }
    tasks = pipeline.tasks_of(prepared.test)
    by_task = {
        name: {
            kind: test_report(
                labels[rows],
                values[rows],
                dev[kind]["threshold"],
                groups[rows],
                resamples=config.eval.bootstrap,
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
        "seed": config.seed,
        "selected_step": selected_step,
        "steps": steps,
        "data": prepared.summary,
        "training": _training_summary(workdir),
        "observatory": observatory or {},
        "provenance": provenance.collect(**prepared.hashes),
    }
    write_json(workdir / "report.json", report)
    return report


def _training_summary(workdir: Path) -> dict:
    """Cost of all steps of the run, over however many starts it took."""
    rows = read(workdir / "metrics.jsonl")
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
    """One JSON line a row: id, group, label, the named scores and, if long texts are scored in
    windows, how many; never the text."""
    rows = records.gather(range(len(records)))
    lines = []
    for i, row in enumerate(rows):
        values = {name: round(float(value[i]), 7) for name, value in scores.items()}
        line = {"id": row["id"], "group": int(groups[i]), "label": int(row["label"]), **values}
        line |= {"windows": row["windows"]} if "windows" in row else {}
        lines.append(json.dumps(line) + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(lines))
    temporary.replace(path)
