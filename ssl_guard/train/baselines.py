"""Methods with a closed form: logistic regressions on fixed features, without steps."""

import functools
import time
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import baselines, graph_model, inference, metrics, scorer
from ssl_guard.prepare import prepare, views_of
from ssl_guard.runtime.checkpoint import Checkpoints
from ssl_guard.runtime.writer import Writer
from ssl_guard.train.result import Result, Run


def build(config: ConfigDict) -> Run:
    """Reads the data and fits the head.

    Raises BadInput for settings that these methods do not support and in a run of several
    processes.
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

    labels = {split: inference.labels_of(getattr(prepared, split)) for split in ("labelled", "dev")}
    fit = _graph if config.algorithm == "graph" else _logistic
    fitted, dev, score = fit(config, features, labels)
    seconds, tensorboard = time.monotonic() - began, config.train.tensorboard
    return Run(prepared, functools.partial(_finish, fitted, dev, score, seconds, tensorboard))


def _logistic(config, features, labels):
    """Fits and returns a head, its dev scores, and score(split) -> float64 [rows]."""
    (kind,) = scorer.kinds_of(config)
    head, dev = baselines.fit(
        lambda split: features(split)[kind],
        labels,
        grid=tuple(config[config.algorithm].C),
        select_by=config.train.select_by,
    )
    return head, dev, lambda split: baselines.harmful(head, features(split)[kind])


def _graph(config, features, labels):
    """Fits and returns a model, its dev scores, and score(split) -> float64 [rows]."""
    settings = graph_model.Settings.of(config)
    model = graph_model.fit(features, labels, settings)

    def score(split):
        return graph_model.predict(model, features(split), settings)

    return model, metrics.dev_scores(labels["dev"], score("dev")), score


def _finish(
    fitted, dev: dict, score, seconds: float, tensorboard: bool, files: Path, _: Checkpoints
) -> Result:
    """Writes one row of metrics, and a graph's model; makes no checkpoint."""
    with Writer(files, resume_step=-1, tensorboard=tensorboard) as writer:
        row = {f"dev/raw/{name}": value for name, value in dev.items()}
        writer.write(0, row | {"time/seconds": seconds})
    if isinstance(fitted, dict):
        graph_model.save(files, fitted)
    return Result(
        dev={"raw": dev},
        scores=lambda split: {"raw": score(split)},
        checkpoint_sha256=scorer.tree_sha256(scorer.content_of(fitted)),
    )
