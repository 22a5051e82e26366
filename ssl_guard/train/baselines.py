"""Methods with a closed form: logistic regressions on fixed features, without steps."""

import functools
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import baselines, graph_model, inference, metrics, scorer
from ssl_guard.evaluation.prepare import prepare, views_of
from ssl_guard.runtime.checkpoint import Checkpoints
from ssl_guard.runtime.writer import Writer
from ssl_guard.train.folds import Chosen
from ssl_guard.train.result import Result, Run


def build(config: ConfigDict, chosen: Chosen | None = None) -> Run:
    """Reads the data and fits the head.

    chosen: the choice of cross-validation, None for a run that dev rows, or those of its fold,
    choose for. Raises BadInput for settings that these methods do not support and in a run of
    several processes.
    """
    if config.eval.stride:
        raise BadInput(f"{config.algorithm} reads whole texts: set config.eval.stride = 0.")
    if config.train.oracle:
        raise BadInput(f"{config.algorithm} has no pseudo-labels: set config.train.oracle = False.")
    if jax.process_count() > 1:
        raise BadInput(f"{config.algorithm} is fitted by one process: start it alone.")
    if config.algorithm == "graph":
        graph_model.Settings.of(config).check()
    prepared = prepare(config, views=views_of(config))
    began = time.monotonic()
    features_of = scorer.fixed_features(config, prepared, scorer.kinds_of(config))

    @functools.cache
    def features(split):
        return features_of(prepared.texts[split], getattr(prepared, split))

    sides = ("labelled", "dev") if prepared.dev is not None else ("labelled",)
    labels = {split: inference.labels_of(getattr(prepared, split)) for split in sides}
    fit = _graph if config.algorithm == "graph" else _logistic
    fitted, dev, score, rows = fit(config, features, labels, chosen)
    seconds, tensorboard = time.monotonic() - began, config.train.tensorboard
    return Run(prepared, functools.partial(_finish, fitted, dev, score, rows, seconds, tensorboard))


def _logistic(config, features, labels, chosen):
    """Fits and returns a head, its dev scores, score(split) -> float64 [rows], and rows of metrics.

    In a fold there is a row for every C, with the scores of the rows left out.
    """
    (kind,) = scorer.kinds_of(config)
    grid = tuple(config[config.algorithm].C)

    def fit(grid):
        return baselines.fit(
            lambda split: features(split)[kind],
            labels,
            grid=grid,
            select_by=config.train.select_by,
        )

    def score(split, head=None):
        return baselines.harmful(head or fitted, features(split)[kind])

    if chosen is not None:
        C = sorted(grid)[chosen.step]
        fitted = baselines.logistic(features("labelled")[kind], labels["labelled"], C)
        return fitted, chosen.dev["raw"] | {"C": C}, score, []
    fitted, dev = fit(grid)
    if config.eval.fold < 0:
        return fitted, dev, score, [_metrics(dev)]
    heads = [fit((C,)) for C in sorted(grid)]
    rows = [_metrics(dev, score("dev", head)) for head, dev in heads]
    return fitted, dev, score, rows


def _graph(config, features, labels, chosen):
    """Fits a model and returns the same as `_logistic`.

    Platt scaling is fitted on dev or on the scores of all folds, so a fold's run has none.
    """
    settings = graph_model.Settings.of(config)

    def score(split):
        return graph_model.predict(fitted, features(split), settings)

    if chosen is None and config.eval.fold < 0:
        fitted = graph_model.fit(features, labels, settings)
        dev = metrics.dev_scores(labels["dev"], score("dev"))
        return fitted, dev, score, [_metrics(dev)]
    fitted = graph_model.fit_scores(features, labels["labelled"], settings)
    if chosen is None:
        fitted |= graph_model.NOT_CALIBRATED
        found = graph_model.scores(fitted, features("dev"), settings)
        dev = metrics.dev_scores(labels["dev"], found)
        return fitted, dev, score, [_metrics(dev, found)]
    fitted = graph_model.calibrated(fitted, chosen.labels, chosen.scores["raw"])
    found = graph_model.apply_platt(fitted, chosen.scores["raw"])
    return fitted, metrics.dev_scores(chosen.labels, found), score, []


def _metrics(dev: dict, scores: np.ndarray | None = None) -> dict:
    """Returns a row of metrics; scores: of the rows that a fold leaves out, for `folds.choose`."""
    row = {f"dev/raw/{name}": value for name, value in dev.items()}
    return row | ({} if scores is None else {"dev/raw/scores": scores.tolist()})


def _finish(
    fitted,
    dev: dict,
    score,
    rows: list[dict],
    seconds: float,
    tensorboard: bool,
    files: Path,
    _: Checkpoints,
) -> Result:
    """Writes the rows of metrics, and a graph's model; makes no checkpoint."""
    with Writer(files, resume_step=-1, tensorboard=tensorboard) as writer:
        for step, row in enumerate(rows or [{}]):
            writer.write(step, row | {"time/seconds": 0.0 if step else seconds})
    if isinstance(fitted, dict):
        graph_model.save(files, fitted)
    return Result(
        dev={"raw": dev},
        scores=lambda split: {"raw": score(split)},
        checkpoint_sha256=scorer.tree_sha256(scorer.content_of(fitted)),
    )
