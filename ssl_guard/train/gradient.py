"""Methods that train an encoder by gradient steps: model, optimiser, step and dev evaluation."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ssl_guard import algorithms, models, steps
from ssl_guard.algorithms import selection
from ssl_guard.data import pipeline
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import inference, metrics, scorer
from ssl_guard.evaluation.prepare import Prepared
from ssl_guard.runtime import processes, sharding
from ssl_guard.runtime.checkpoint import Checkpoints
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.steps import optim
from ssl_guard.steps.state import TrainState
from ssl_guard.steps.training import NOT_PACKED
from ssl_guard.train import frozen, head_init, loop, monitor, neighbour_views
from ssl_guard.train.folds import Chosen
from ssl_guard.train.result import Result, Run


def build(config: ConfigDict, chosen: Chosen | None = None) -> Run:
    """Reads the data and compiles the functions of a run.

    chosen: the choice of cross-validation, None for a run that dev rows, or those of its fold,
    choose for. Raises BadInput for settings, data, a model or a mesh that do not fit together.
    """
    algorithm = algorithms.build(config.algorithm, **config[config.algorithm])
    _check_support(config, algorithm)
    if config.train.selection == "rank":
        algorithm = selection.by_rank(config.algorithm, algorithm, config.train.rank_share)
    mesh = sharding.make_mesh(**{axis: config.mesh[axis] for axis in sharding.AXES})
    sharding.check_batch_sizes(
        mesh,
        parts=config.train.grad_accum_steps,
        **{
            "train.labelled_batch": config.train.labelled_batch,
            "train.unlabelled_batch": config.train.unlabelled_batch,
        },
    )
    sharding.check_batch_sizes(mesh, **{"eval.batch": config.eval.batch})
    own_slice = sharding.own_slice(mesh)
    prepared = processes.first_process_first(
        lambda: neighbour_views.prepare(config, views=algorithm.views)
    )
    _check_batches(config, prepared)
    labels = inference.labels_of(prepared.labelled)
    pool_size = len(prepared.unlabelled) if algorithm.views else 0

    # Scoring of records. A bfloat16 run may score dev in float32 too, to compare.
    model = scorer.build_model(config, prepared.model_folder, algorithm.extra_classes)
    params = scorer.initial_params(config, model, prepared.model_folder)
    if config.model.head_init == "logistic":
        params |= {"head": head_init.logistic(config, model, params, prepared, mesh)}
    if config.train.cache_frozen:
        prepared, layers = frozen.cache(config, model, params, prepared, mesh)
        folder, extra = prepared.model_folder, algorithm.extra_classes
        model = scorer.build_model(config, folder, extra, cached_layers=layers)
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

    batches = pipeline.train_batches(
        prepared.labelled,
        prepared.unlabelled,
        prepared.strong,
        soft_labels=prepared.soft_labels,
        seed=config.seed,
        steps=config.train.steps,
        labelled_batch=config.train.labelled_batch,
        unlabelled_batch=config.train.unlabelled_batch,
        buckets=tuple(config.data.buckets),
        window_steps=config.data.window_steps,
        sort_by_length=config.data.sort_by_length,
        strata=labels if config.data.stratified_batches else None,
        pool_corpora=prepared.pool_corpora,
        pool_weights=tuple(config.data.unlabelled_weights),
        num_shapes=config.data.num_shapes,
        one_length=algorithm.forward is not None,
        pack_groups=sharding.row_shards(mesh) if config.data.packing else 0,
        **own_slice,
        pad_id=prepared.tokenizer.pad_id,
    )

    settings = optim.Settings(**config.optim)
    tx, schedule = optim.from_settings(
        settings,
        params,
        total_steps=config.train.steps,
        num_layers=model.config.num_hidden_layers,
    )

    def init(params):
        state = steps.init_state(
            jax.random.key(config.seed),
            params,
            algorithm=algorithm,
            tx=tx,
            pool_size=pool_size,
            num_classes=2,
            num_heads=config.model.num_heads,
            ema_decay=settings.ema_decay,
            # The same shape in all folds, so the step is compiled once
            labelled_size=prepared.summary["labels_used"],
            width=model.config.hidden_size,
        )
        return sharding.pad_pool(state)

    train_step: Callable = functools.partial(
        steps.train_step,
        apply=sharding.gather_fsdp_params(model.apply, mesh),
        stages=models.Stages(*(sharding.gather_fsdp_params(stage, mesh) for stage in model.stages)),
        algorithm=algorithm,
        tx=tx,
        total_steps=config.train.steps,
        steps_per_epoch=config.train.steps_per_epoch
        or max(1, pool_size // config.train.unlabelled_batch),
        freeze=settings.freeze,
        ema_decay=settings.ema_decay,
        accumulate=config.train.grad_accum_steps,
        oracle=config.train.oracle,
    )
    if algorithm.views and config.train.supervised_steps:
        train_step = steps.supervised_start(train_step, config.train.supervised_steps)
    plan = loop.Plan(**{key: config.train[key] for key in loop.Plan._fields})
    if chosen is not None:
        plan = plan._replace(steps=chosen.step)  # the schedules are those of all steps
        evaluate: Callable = functools.partial(_evaluate_nothing, dev=chosen.dev)
    else:
        evaluate = functools.partial(
            _evaluate,
            dev=prepared.dev,
            labels=inference.labels_of(prepared.dev),
            predict_fn=predict_fn,
            exact_fn=exact_fn,
            teacher="ema" if algorithm.teacher == "ema" else "raw",
            twin=monitor.twin_curves(config.monitor.baseline_run, prepared.hashes["split_sha256"]),
            select_by=config.train.select_by,
            keep_scores=config.eval.fold >= 0,
        )
    judge = functools.partial(
        monitor.judge,
        prior=monitor.prior_of(labels),
        repeated=prepared.summary.get("repeated_views", 0.0),
        idle_steps=config.monitor.idle_steps,
        window_steps=config.monitor.window_steps,
        max_kl=config.monitor.max_kl,
        brake=config.monitor.disable_unlabelled_on_alarm,
    )
    train = functools.partial(
        loop.fit,
        loop.compile_step(train_step, init, params, mesh, shard_pool=config.mesh.shard_pool),
        batches,
        evaluate,
        judge,
        schedule=schedule,
        records=(prepared.labelled, prepared.unlabelled),
        mesh=mesh,
        plan=plan,
        name=config.algorithm,
    )
    account = functools.partial(
        monitor.account,
        labelled=prepared.labelled,
        pool=prepared.unlabelled,
        seed=config.seed,
        scored_rows=config.monitor.scored_rows,
    )
    return Run(prepared, functools.partial(_fit, prepared, mesh, train, predict_fn, account))


def _check_batches(config: ConfigDict, prepared: Prepared) -> None:
    """Raises BadInput for a batch with more rows, or more of a corpus, than there are to draw."""
    for side in ("labelled", "unlabelled"):
        rows, batch = getattr(prepared, side), config.train[f"{side}_batch"]
        if rows is not None and batch > len(rows):
            raise BadInput(
                f"config.train.{side}_batch = {batch} is larger than the {len(rows)} {side} rows: "
                "lower it, or give more rows."
            )
    weights, batch = np.array(config.data.unlabelled_weights), config.train.unlabelled_batch
    if prepared.unlabelled is None or not len(weights):
        return
    rows = np.bincount(prepared.pool_corpora)
    if (short := np.flatnonzero(batch * weights / weights.sum() > rows)).size:
        raise BadInput(
            f"config.data.unlabelled_weights = {tuple(weights.tolist())}: a batch of {batch} would "
            f"repeat rows of corpus {short[0] + 1}, of which {rows[short[0]]} are in the pool: "
            "lower that weight or config.train.unlabelled_batch."
        )


def _check_support(config: ConfigDict, algorithm: algorithms.Algorithm) -> None:
    """Raises BadInput for settings that the method does not support."""
    if config.train.oracle and not algorithm.views:
        raise BadInput(
            f"{config.algorithm} has no pseudo-labels that hidden labels could replace: unset "
            "config.train.oracle, or set config.data.all_labels to train on them."
        )
    taught = config.data.soft_labels or config.train.oracle
    if config.algorithm == "self_training" and not taught:
        raise BadInput(
            "self_training learns from the soft labels of teachers: name their folder in "
            "config.data.soft_labels (python -m ssl_guard teach writes it), or use "
            "python -m ssl_guard self_train, which trains the teachers too."
        )
    if config.data.packing and algorithm.forward is not None:
        raise BadInput(f"{config.algorithm}: {NOT_PACKED}")
    if config.model.head_init == "logistic":
        head_init.check(config, algorithm)
    if config.train.cache_frozen and algorithm.forward is not None:
        raise BadInput(
            f"{config.algorithm} works inside the model, also below the frozen layers: unset "
            "config.train.cache_frozen."
        )
    if algorithm.forward is None and not algorithm.logistic_head:
        return
    for key, value in (
        ("data.prompt_corpus", config.data.prompt_corpus),
        ("eval.stride", algorithm.logistic_head and config.eval.stride),
    ):
        if value:
            raise BadInput(
                f"{config.algorithm} works inside the model and does not support config.{key} = "
                f"{value!r}: unset it."
            )


def _fit(
    prepared: Prepared,
    mesh: jax.sharding.Mesh,
    train: Callable,
    predict_fn: Callable,
    account: Callable,
    files: Path,
    checkpoints: Checkpoints,
) -> Result:
    """Trains, or resumes from the last checkpoint, and returns the result of the best one.

    train: `loop.fit`; account: `monitor.account`; predict_fn(params, records) -> harmful
    probability, float64 [rows].
    """
    best, state, meta = train(files=files, checkpoints=checkpoints)
    weights = _weights(state)
    rows = read_jsonl(files / "metrics.jsonl")
    score = functools.partial(predict_fn, weights.get("ema", weights["raw"]))
    return Result(
        dev=meta["dev"],
        scores=lambda split: {
            kind: predict_fn(params, getattr(prepared, split)) for kind, params in weights.items()
        },
        checkpoint_sha256=scorer.tree_sha256(sharding.gather(weights, mesh)),
        steps=rows[-1]["step"],
        selected_step=best,
        diagnostics=account(rows, state.watch, score=score),
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
    keep_scores: bool,
) -> tuple[dict, dict, float]:
    """Scores dev; see `loop.fit`.

    exact_fn: predict_fn in float32, to compare with bfloat16; teacher: kind of the weights that
    give the pseudo-labels, "raw" or "ema"; twin: see `monitor.shadow`; keep_scores: adds the scores
    of all rows to the metrics, for `folds.choose`.
    """
    weights = _weights(state)
    scores = {kind: predict_fn(params, dev) for kind, params in weights.items()}
    found = {kind: metrics.dev_scores(labels, values) for kind, values in scores.items()}
    added: dict[str, Any] = {
        f"dev/{kind}/{name}": value
        for kind, values in found.items()
        for name, value in values.items()
    }
    if keep_scores:
        added |= {f"dev/{kind}/scores": values.tolist() for kind, values in scores.items()}
    added |= monitor.shadow(row, step, labels=labels, scores=scores[teacher], twin=twin)
    if exact_fn:
        exact = exact_fn(weights[teacher], dev)
        loss = metrics.precision_loss(labels, scores[teacher], exact)
        added |= {f"bfloat16/{name}": value for name, value in loss.items()}
    return added, {"dev": found}, found.get("ema", found["raw"])[select_by]


def _evaluate_nothing(state: TrainState, step: int, row: dict, *, dev: dict):
    """Selects the last step, which cross-validation chose; dev: `Chosen.dev`. See `loop.fit`."""
    return {}, {"dev": dev}, float(step)


def _weights(state: TrainState) -> dict:
    """Parameters by kind: "raw", and "ema" if an average is kept."""
    weights = {"raw": state.params, "ema": state.ema_params}
    return {kind: params for kind, params in weights.items() if params is not None}
