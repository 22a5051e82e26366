"""From weights and labelled records to scores: one code path for dev during training and for test.

An evaluation knows nothing of training: it gets data and predict_fn(params, batch) -> scores.
"""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from ssl_guard import metrics, sharding
from ssl_guard.data import pipeline
from ssl_guard.data.tfrecord import Records
from ssl_guard.errors import BadInput


def predict(
    predict_fn: Callable,
    params,
    records: Records,
    *,
    batch_size: int,
    buckets,
    pad_id: int,
    mesh,
    pack_groups: int = 0,
) -> np.ndarray:
    """Harmful probability of every record, float64 [rows], in the records' order."""
    scores = np.full(len(records), np.nan)
    batches = pipeline.eval_batches(
        records, batch_size=batch_size, buckets=buckets, pad_id=pad_id, pack_groups=pack_groups
    )
    for batch, positions in batches:
        probs = jax.device_get(predict_fn(params, sharding.put_batch(batch, mesh)))
        scores[positions] = probs[: len(positions), 1]
    if not np.isfinite(scores).all():
        raise BadInput(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} rows got a score that is not a "
            "number: the run diverged; lower config.optim.lr."
        )
    return scores


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


def write_predictions(path: Path, records: Records, groups: np.ndarray, **scores: np.ndarray):
    """One JSON line a row: id, group, label and the named scores; never the text."""
    rows = records.gather(range(len(records)))
    lines = []
    for i, row in enumerate(rows):
        values = {name: round(float(value[i]), 7) for name, value in scores.items()}
        line = {"id": row["id"], "group": int(groups[i]), "label": int(row["label"]), **values}
        lines.append(json.dumps(line) + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(lines))
    temporary.replace(path)
