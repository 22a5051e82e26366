"""Runs a model over records: the same path for dev, test and any corpus."""

from collections.abc import Callable

import jax
import numpy as np

from ssl_guard.data import pipeline, windows
from ssl_guard.data.records import Records
from ssl_guard.errors import BadInput
from ssl_guard.runtime import preemption, sharding


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
    """Applies fn(params, batch) -> [batch, n] to all records: float64 [rows, n], in their order.

    Raises Preempted if a signal arrives, BadInput for values that are not finite.
    """
    parts, places = [], []
    batches = pipeline.eval_batches(
        records, batch_size=batch_size, buckets=buckets, pad_id=pad_id, pack_groups=pack_groups
    )
    for batch, positions in batches:
        preemption.check()
        values = jax.device_get(fn(params, sharding.put_global_batch(batch, mesh)))
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
    """Predicts harmful probabilities, float64 [rows]; the arguments are those of `outputs`."""
    if isinstance(records, windows.Windowed):
        scores = predict(predict_fn, params, records.windows, **how)
        return windows.most_harmful(scores, records.owner)
    return outputs(predict_fn, params, records, **how)[:, 1]


def labels_of(records: Records) -> np.ndarray:
    """Returns the labels, int [rows]: 1 harmful, 0 safe."""
    return np.array([row["label"] for row in records.gather(range(len(records)))])
