"""Methods with a closed form: a logistic regression on fixed features, without steps."""

import functools
import time
from pathlib import Path

import jax
from ml_collections import ConfigDict

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import baselines, inference, scorer
from ssl_guard.prepare import prepare
from ssl_guard.runtime import sharding
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
    seconds, tensorboard = time.monotonic() - began, config.train.tensorboard
    return Run(prepared, functools.partial(_finish, features, head, dev, seconds, tensorboard))


def _finish(
    features, head, dev: dict, seconds: float, tensorboard: bool, files: Path, _: Checkpoints
) -> Result:
    """Writes one row of metrics and returns the result of a fitted head; makes no checkpoint."""
    with Writer(files, resume_step=-1, tensorboard=tensorboard) as writer:
        row = {f"dev/raw/{name}": value for name, value in dev.items()}
        writer.write(0, row | {"time/seconds": seconds})
    return Result(
        dev={"raw": dev},
        scores=lambda split: {"raw": baselines.harmful(head, features(split))},
        checkpoint_sha256=scorer.tree_sha256(scorer.head_content(head)),
    )
