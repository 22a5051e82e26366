"""Chooses the step and the threshold of a run by cross-validation over its labelled rows.

    WORKDIR/folds/<k>/    a run without the labelled rows of fold k, which are its dev and its test
    WORKDIR/              the run on all labelled rows, to the step that the folds chose

With config.eval.folds = K, K runs of the same config leave out one fold each, see data/folds.py.
Every evaluation step scores the held-out rows, so each labelled row gets a score of a model that
did not learn its label. The step with the best mean over the folds is chosen, and the threshold is
the best on all out-of-fold scores at that step. No dev row is read. The folds' models learn fewer
rows than the final one, so their scores are slightly pessimistic (Hastie, Tibshirani and Friedman,
The Elements of Statistical Learning, 2nd edition, section 7.10.1).

The steps of a logistic regression are the values of C in ascending order.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssl_guard.evaluation import metrics
from ssl_guard.runtime.files import read_jsonl


class Chosen(NamedTuple):
    """The choice of cross-validation.

    step: the best one; labels: int [rows], and scores: {kind of weights: float64 [rows]}, of the
    labelled rows at that step, fold by fold; dev: {kind of weights: metrics.dev_scores} of them.
    """

    step: int
    labels: np.ndarray
    scores: dict[str, np.ndarray]
    dev: dict[str, dict[str, float]]


def plan(config: ConfigDict, workdir: Path) -> list[tuple[ConfigDict, Path]]:
    """Returns the config and the folder of each fold's run; none for a run without folds."""
    runs = []
    for fold in range(config.eval.folds if config.eval.fold < 0 else 0):
        own = config.copy_and_resolve_references().unlock()
        own.eval.fold = fold
        own.monitor.scored_rows = 0  # the run on all labelled rows suggests rows to label
        if config.data.soft_labels:
            own.data.soft_labels = str(Path(config.data.soft_labels, f"fold-{fold}"))
        runs.append((own.lock(), workdir / "folds" / str(fold)))
    return runs


def choose(runs: Sequence[Path], select_by: str) -> Chosen:
    """Reads the folds' finished runs and chooses; the earliest step wins ties.

    select_by: a name of `metrics.dev_scores`, of the averaged weights if there are any.
    """
    rows = [
        {row["step"]: row for row in read_jsonl(run / "metrics.jsonl") if "dev/raw/scores" in row}
        for run in runs
    ]
    steps = sorted(rows[0])
    kinds = [kind for kind in ("raw", "ema") if f"dev/{kind}/scores" in rows[0][steps[0]]]
    means = [
        np.mean([fold[step][f"dev/{kinds[-1]}/{select_by}"] for fold in rows]) for step in steps
    ]
    step = steps[int(np.argmax(means))]
    scores = {
        kind: np.concatenate([fold[step][f"dev/{kind}/scores"] for fold in rows]) for kind in kinds
    }
    held = [row["label"] for run in runs for row in read_jsonl(run / "predictions.jsonl")]
    labels = np.array(held)
    dev = {kind: metrics.dev_scores(labels, values) for kind, values in scores.items()}
    return Chosen(step, labels, scores, dev)
