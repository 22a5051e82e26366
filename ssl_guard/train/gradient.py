"""Methods that train an encoder by gradient steps: model, optimiser, step and dev evaluation."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from ssl_guard import algorithms, models, steps
from ssl_guard.data import pipeline
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import inference, metrics, scorer
from ssl_guard.prepare import Prepared, prepare
from ssl_guard.runtime import processes, sharding
from ssl_guard.runtime.checkpoint import Checkpoints
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.steps import optim
from ssl_guard.steps.state import TrainState
from ssl_guard.steps.training import NOT_PACKED
from ssl_guard.train import loop, monitor
from ssl_guard.train.result import Result


class Run(NamedTuple):
    """A run that is ready for its first step.

    predict_fn(params, records) -> harmful probability, float64 [rows]; the other functions are
    those of `loop.fit`.
    """

    prepared: Prepared
    mesh: jax.sharding.Mesh
    batches: Iterable[dict]
    template: Any
    step_fn: Callable
    new_state: Callable
    predict_fn: Callable
    evaluate: Callable
    monitor: Callable


def check(config: ConfigDict) -> None:
    """Raises BadInput for settings that a method inside the model does not support."""
    algorithm = algorithms.build(config.algorithm, **config[config.algorithm])
    if algorithm.forward is None and not algorithm.logistic_head:
        return
    if config.data.packing and algorithm.forward is not None:
        raise BadInput(f"{config.algorithm}: {NOT_PACKED}")
    for key, value in (
        ("data.prompt_corpus", config.data.prompt_corpus),
        ("eval.stride", algorithm.logistic_head and config.eval.stride),
    ):
        if value:
            raise BadInput(
                f"{config.algorithm} works inside the model and does not go with config.{key} = "
                f"{value!r}: unset it."
            )


def build(config: ConfigDict) -> Run:
    """Reads the data and compiles the functions of a run.

    Raises BadInput for data, a model or a mesh that do not fit together.
    """
    algorithm = algorithms.build(config.algorithm, **config[config.algorithm])
    mesh = _mesh(config)
    prepared = processes.first_process_first(lambda: prepare(config, views=algorithm.views))
    batches = pipeline.train_batches(
        prepared.labelled,
        prepared.unlabelled,
        prepared.strong,
        seed=config.seed,
        steps=config.train.steps,
        labelled_batch=config.train.labelled_batch,
        unlabelled_batch=config.train.unlabelled_batch,
        buckets=tuple(config.data.buckets),
        window_steps=config.data.window_steps,
        num_shapes=config.data.num_shapes,
        one_length=algorithm.forward is not None,
        pack_groups=scorer.pack_groups(config, mesh),
        **sharding.own_slice(mesh),
        pad_id=prepared.tokenizer.pad_id,
    )
    pool_size = len(prepared.unlabelled) if algorithm.views else 0

    model = scorer.build_model(config, prepared.model_folder, algorithm.extra_classes)
    params = scorer.initial_params(config, model, prepared.model_folder)
    tx = optim.of_run(config, params, model.config.num_hidden_layers)

    def init(params):
        state = steps.init_state(
            jax.random.key(config.seed),
            params,
            algorithm=algorithm,
            tx=tx,
            pool_size=pool_size,
            num_classes=2,
            num_heads=config.model.num_heads,
            ema_decay=config.optim.ema_decay,
            labelled_size=len(prepared.labelled),
            width=model.config.hidden_size,
        )
        return sharding.pad_pool(state)

    train_step = functools.partial(
        steps.train_step,
        apply=sharding.gather_fsdp_params(model.apply, mesh),
        stages=models.Stages(*(sharding.gather_fsdp_params(stage, mesh) for stage in model.stages)),
        algorithm=algorithm,
        tx=tx,
        total_steps=config.train.steps,
        steps_per_epoch=config.train.steps_per_epoch
        or max(1, pool_size // config.train.unlabelled_batch),
        freeze=tuple(config.optim.freeze),
        ema_decay=config.optim.ema_decay,
        accumulate=config.train.grad_accum_steps,
    )
    template, step_fn, new_state = loop.compile_step(
        train_step, init, params, mesh, shard_pool=config.mesh.shard_pool
    )

    score_with = functools.partial(
        scorer.predict_fn,
        config,
        algorithm,
        tokenizer=prepared.tokenizer,
        mesh=mesh,
        labelled=prepared.labelled,
    )
    predict_fn, exact_fn = score_with(model), None
    if config.train.float32_check:
        folder, extra = prepared.model_folder, algorithm.extra_classes
        exact_fn = score_with(scorer.build_model(config, folder, extra, dtype="float32"))
    return Run(
        prepared,
        mesh,
        batches,
        template,
        step_fn,
        new_state,
        predict_fn,
        evaluate=functools.partial(
            _evaluate,
            dev=prepared.dev,
            labels=inference.labels_of(prepared.dev),
            predict_fn=predict_fn,
            exact_fn=exact_fn,
            teacher="ema" if algorithm.teacher == "ema" else "raw",
            twin=monitor.twin_curves(config.monitor.baseline_run, prepared.hashes["split_sha256"]),
            select_by=config.train.select_by,
        ),
        monitor=functools.partial(
            monitor.judge,
            prior=monitor.prior_of(inference.labels_of(prepared.labelled)),
            repeated=prepared.summary.get("repeated_views", 0.0),
            idle_steps=config.monitor.idle_steps,
            window_steps=config.monitor.window_steps,
            max_kl=config.monitor.max_kl,
            max_repeated=config.monitor.max_repeated,
            brake=config.monitor.disable_unlabelled_on_alarm,
        ),
    )


def fit(run: Run, config: ConfigDict, files: Path, checkpoints: Checkpoints) -> Result:
    """Trains, or resumes from the last checkpoint, and returns the result of the best one."""
    prepared = run.prepared
    best, state, meta = loop.fit(
        run.new_state,
        run.template,
        run.batches,
        run.step_fn,
        run.evaluate,
        run.monitor,
        schedule=optim.schedule_of(config),
        records=(prepared.labelled, prepared.unlabelled),
        mesh=run.mesh,
        files=files,
        checkpoints=checkpoints,
        train=config.train,
        name=config.algorithm,
    )
    weights = _weights(state)
    account = monitor.account(
        read_jsonl(files / "metrics.jsonl"),
        state.watch,
        prepared.labelled,
        prepared.unlabelled,
        functools.partial(run.predict_fn, weights.get("ema", weights["raw"])),
        seed=config.seed,
        scored_rows=config.monitor.scored_rows,
        listed=config.monitor.listed,
    )
    return Result(
        dev=meta["dev"],
        scores=lambda split: {
            kind: run.predict_fn(params, getattr(prepared, split))
            for kind, params in weights.items()
        },
        checkpoint_sha256=scorer.tree_sha256(sharding.gather(weights, run.mesh)),
        steps=config.train.steps,
        selected_step=best,
        observatory=account,
    )


def _evaluate(
    state: TrainState,
    step: int,
    row: dict,
    *,
    dev,
    labels: np.ndarray,
    predict_fn: Callable,
    exact_fn: Callable | None,
    teacher: str,
    twin: dict[int, list] | None,
    select_by: str,
) -> tuple[dict, dict, float]:
    """Scores dev; see `loop.fit`.

    exact_fn: predict_fn in float32, to compare with bfloat16; teacher: kind of the weights that
    give the pseudo-labels, "raw" or "ema"; twin: see `monitor.shadow`.
    """
    weights = _weights(state)
    scores = {kind: predict_fn(params, dev) for kind, params in weights.items()}
    found = {kind: metrics.dev_scores(labels, values) for kind, values in scores.items()}
    added = {f"dev/{kind}/{k}": v for kind, values in found.items() for k, v in values.items()}
    added |= monitor.shadow(row, step, labels=labels, scores=scores[teacher], twin=twin)
    if exact_fn:
        exact = exact_fn(weights[teacher], dev)
        loss = metrics.precision_loss(labels, scores[teacher], exact)
        added |= {f"bfloat16/{name}": value for name, value in loss.items()}
    return added, {"dev": found}, found.get("ema", found["raw"])[select_by]


def _weights(state: TrainState) -> dict:
    """Parameters by kind: "raw", and "ema" if an average is kept."""
    weights = {"raw": state.params, "ema": state.ema_params}
    return {kind: params for kind, params in weights.items() if params is not None}


def _mesh(config: ConfigDict) -> jax.sharding.Mesh:
    """The mesh of a run. Raises BadInput for batches that it does not divide."""
    mesh = sharding.make_mesh(**{axis: config.mesh[axis] for axis in sharding.AXES})
    batches = {
        "train.labelled_batch": config.train.labelled_batch,
        "train.unlabelled_batch": config.train.unlabelled_batch,
    }
    sharding.check_batch_sizes(mesh, parts=config.train.grad_accum_steps, **batches)
    sharding.check_batch_sizes(mesh, **{"eval.batch": config.eval.batch})
    return mesh
