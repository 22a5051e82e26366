"""The observatory of one run: alarms bound to its data, its twin, its part of the report."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import inference
from ssl_guard.prepare import Prepared
from ssl_guard.runtime.writer import read
from ssl_guard.steps import diagnostics


def account(config, prepared: Prepared, state, predict_fn: Callable, workdir: Path) -> dict:
    """The report's account of alarms and brake, and rows to look at, by id: labelled ones whose
    margins speak against their label, unlabelled ones most worth a label.

    state: the selected TrainState; predict_fn(params, records) -> scores.
    """
    limit = config.observatory.listed
    found = diagnostics.history(read(workdir / "metrics.jsonl"))
    suspects = diagnostics.suspect_labels(
        *jax.device_get((state.watch.margin_sum, state.watch.visits)), limit
    )
    rows = prepared.labelled.gather([row for row, _ in suspects])
    found["suspect_labels"] = [
        {"id": row["id"], "label": int(row["label"]), "mean_margin": round(margin, 3)}
        for row, (_, margin) in zip(rows, suspects, strict=True)
    ]
    pool, most = prepared.unlabelled, config.observatory.scored_rows
    if pool is not None and most > 0:
        chosen = np.arange(len(pool))
        if len(pool) > most:
            chosen = np.random.default_rng(config.seed).choice(len(pool), most, replace=False)
        weights = state.params if state.ema_params is None else state.ema_params
        scores = predict_fn(weights, pool.subset(chosen))
        nearest = diagnostics.most_uncertain(scores, limit)
        rows = pool.gather(chosen[[row for row, _ in nearest]])
        found["label_next"] = [
            {"id": row["id"], "score": round(score, 4)}
            for row, (_, score) in zip(rows, nearest, strict=True)
        ]
    return found


def judge_of(config, prepared: Prepared) -> Callable:
    """A function: rows of metrics so far -> what the last one gets besides: its alarms as 0 or 1,
    and how far the classes of its pseudo-labels are from those of the labelled rows."""
    labels = inference.labels_of(prepared.labelled)
    prior = np.bincount(labels, minlength=2) / len(labels)
    settings = config.observatory

    def judge(rows):
        alarms = diagnostics.alarms(
            rows,
            prior=prior,
            repeated=prepared.summary.get("repeated_views", 0.0),
            idle_steps=settings.idle_steps,
            window_steps=settings.window_steps,
            max_kl=settings.max_kl,
            max_repeated=settings.max_repeated,
        )
        divergence = diagnostics.prior_divergence(rows[-1], prior)
        found = {} if divergence is None else {"pseudo/kl_to_prior": divergence}
        return found | {f"alarm/{name}": float(up) for name, up in alarms.items()}

    return judge


def twin_curves(twin: str, prepared: Prepared) -> dict[int, list[float]] | None:
    """{step: shadow curve} of the supervised twin; None without a twin.

    Raises BadInput for a twin that is not finished or was split otherwise.
    """
    if not twin:
        return None
    report = Path(twin) / "report.json"
    if not report.exists():
        raise BadInput(
            f"config.observatory.twin = {twin!r} holds no finished run (no report.json): train the "
            "supervised twin first, or leave the twin empty."
        )
    if (
        json.loads(report.read_text())["provenance"]["split_sha256"]
        != prepared.hashes["split_sha256"]
    ):
        raise BadInput(
            f"config.observatory.twin = {twin!r} has other dev rows than this run: its twin has "
            "the same corpus, seed and sizes."
        )
    rows = read(Path(twin) / "metrics.jsonl")
    return {row["step"]: row["shadow/curve"] for row in rows if "shadow/curve" in row}
