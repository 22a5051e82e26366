"""Methods with a closed form: a logistic regression on fixed features, without steps."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import baselines, inference, scorer
from ssl_guard.prepare import Prepared, prepare
from ssl_guard.runtime import sharding
from ssl_guard.runtime.checkpoint import Checkpoints
from ssl_guard.runtime.writer import Writer
from ssl_guard.train.result import Result


class Fitted(NamedTuple):
    """A fitted head. features(split) -> [rows, n]; dev: metrics.dev_scores and C; seconds: of the
    fit."""

    prepared: Prepared
    features: Callable
    head: Any
    dev: dict[str, float]
    seconds: float


def check(config: ConfigDict) -> None:
    """Raises BadInput for settings that these methods do not support."""
    if config.eval.stride:
        raise BadInput(f"{config.algorithm} reads whole texts: set config.eval.stride = 0.")


def build(config: ConfigDict) -> Fitted:
    """Reads the data and fits the head. Raises BadInput in a run of several processes."""
    if jax.process_count() > 1:
        raise BadInput(f"{config.algorithm} is fitted by one process: start it alone.")
    prepared = prepare(config, views=())
    began = time.monotonic()
    if config.algorithm == "tfidf_logistic":
        features_of_texts = baselines.text_features(prepared.texts["labelled"])

        def features(split):
            return features_of_texts(prepared.texts[split])
    else:
        mesh = sharding.make_mesh()
        sharding.check_batch_sizes(mesh, **{"eval.batch": config.eval.batch})
        model = scorer.build_model(config, prepared.model_folder)
        params = scorer.initial_params(config, model, prepared.model_folder)
        encode = scorer.features_fn(config, model, prepared.tokenizer, mesh)

        def features(split):
            return encode(params, getattr(prepared, split))

    head, dev = baselines.fit(
        features,
        {split: inference.labels_of(getattr(prepared, split)) for split in ("labelled", "dev")},
        grid=tuple(config[config.algorithm].C),
        select_by=config.train.select_by,
    )
    return Fitted(prepared, features, head, dev, time.monotonic() - began)


def fit(run: Fitted, config: ConfigDict, files: Path, checkpoints: Checkpoints) -> Result:
    """Writes one row of metrics and returns the result of a fitted head; makes no checkpoint."""
    with Writer(files, resume_step=-1, tensorboard=config.train.tensorboard) as writer:
        row = {f"dev/raw/{name}": value for name, value in run.dev.items()}
        writer.write(0, row | {"time/seconds": run.seconds})
    return Result(
        dev={"raw": run.dev},
        scores=lambda split: {"raw": baselines.harmful(run.head, run.features(split))},
        checkpoint_sha256=scorer.tree_sha256(scorer.head_content(run.head)),
    )
