"""The training loop, read top to bottom: prepare, initialise or restore, step, evaluate, report."""

import collections
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from ssl_guard import algorithms, models
from ssl_guard import config as config_module
from ssl_guard import steps as steps_module
from ssl_guard.data import pipeline
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import baselines, evaluate, inference, metrics, scorer
from ssl_guard.prepare import Prepared, prepare
from ssl_guard.runtime import lock, preemption, processes, provenance, sharding
from ssl_guard.runtime.checkpoint import Checkpoints
from ssl_guard.runtime.files import write_json
from ssl_guard.runtime.metrics import merge
from ssl_guard.runtime.writer import Writer
from ssl_guard.steps import diagnostics, optim
from ssl_guard.train import monitor
from ssl_guard.train.progress import Progress


class Run(NamedTuple):
    """What stays the same from the first step to the last.

    train_step(state, batch), predict_fn(params, records): compiled; exact_fn: the latter in float32
    where bfloat16 is to be checked; schedule(updates done) -> the peak learning rate; teacher: the
    weights that the pseudo-labels come from, "raw" or "ema"; shadow(row, step, scores=dev scores)
    and judge(rows): of observatory and monitor, with the data they need.
    """

    prepared: Prepared
    batches: object
    mesh: object
    train_step: Callable
    predict_fn: Callable
    exact_fn: Callable | None
    schedule: Callable
    teacher: str
    shadow: Callable
    judge: Callable


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> dict:
    """Trains one run to its end and returns its report (also in `workdir/report.json`).

    The same call on the same workdir resumes; a finished run returns at once; a workdir that holds
    a run of another config, or that another process works on, is refused. Raises BadInput for
    anything the user can put right, Preempted when a signal has stopped the training.
    """
    workdir = Path(workdir)
    config_module.check(config)
    fitted = config.algorithm in algorithms.FITTED
    if not fitted:
        algorithm = algorithms.build(config.algorithm, **config[config.algorithm])
        _check_inside(config, algorithm)
    elif config.eval.windows:
        raise BadInput(f"{config.algorithm} reads whole texts: set config.eval.windows = 0.")
    config_module.refuse_other(workdir, config)
    if (workdir / "report.json").exists():
        return json.loads((workdir / "report.json").read_text())
    if fitted and jax.process_count() > 1:
        raise BadInput(f"{config.algorithm} is fitted by one process: start it alone.")
    if fitted:  # nothing to train in steps
        return _fit_and_evaluate(config, workdir)

    # Data: corpus -> frozen split -> shards -> an iterator of batches that knows its position.
    mesh = _mesh(config)
    prepared = processes.in_turn(lambda: prepare(config, views=algorithm.views))
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
        num_shapes=config.data.shapes,
        one_length=algorithm.forward is not None,
        pack_groups=scorer.pack_groups(config, mesh),
        **sharding.own_slice(mesh),
        pad_id=prepared.tokenizer.pad_id,
    )
    iterator = iter(batches)
    pool_size = len(prepared.unlabelled) if algorithm.views else 0

    # Model and optimiser; the state's shapes, and from them where its arrays go.
    model = scorer.build_model(config, prepared.model_folder, algorithm.extra_classes)
    params = scorer.initial_params(config, model, prepared.model_folder)
    tx = optim.of_run(config, params, model.config.num_hidden_layers)

    def new_state(params):
        state = steps_module.init_state(
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

    template = sharding.place(
        jax.eval_shape(new_state, params), mesh, shard_pool=config.mesh.shard_pool
    )
    places = sharding.shardings(template)

    # The two compiled functions.
    train_step = jax.jit(
        functools.partial(
            steps_module.train_step,
            apply=sharding.whole(model.apply, mesh),
            stages=models.Stages(*(sharding.whole(stage, mesh) for stage in model.stages)),
            algorithm=algorithm,
            tx=tx,
            total_steps=config.train.steps,
            steps_per_epoch=config.train.steps_per_epoch
            or max(1, pool_size // config.train.unlabelled_batch),
            freeze=tuple(config.optim.freeze),
            ema_decay=config.optim.ema_decay,
            accumulate=config.train.accumulate,
        ),
        in_shardings=(places, sharding.split_rows(mesh)),
        out_shardings=(places, sharding.replicated(mesh)),
        donate_argnums=0,
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
    run = Run(
        prepared,
        iterator,
        mesh,
        train_step,
        predict_fn,
        exact_fn,
        optim.schedule_of(config),
        teacher="ema" if algorithm.teacher == "ema" else "raw",
        shadow=functools.partial(
            diagnostics.shadow,
            labels=inference.labels_of(prepared.dev),
            twin=monitor.twin_curves(config.observatory.twin, prepared),
        ),
        judge=monitor.judge_of(config, prepared),
    )

    with (
        lock.held(workdir),
        processes.own_files(workdir) as files,
        Checkpoints(
            workdir / "checkpoints",
            keep_last=config.train.keep_last,
            on_save_error=config.train.on_save_error,
        ) as checkpoints,
    ):
        # Written here, when nothing of the input can fail any more: the workdir is this config's.
        write_json(files / "config.json", config_module.as_json(config))
        provenance.record_start(
            files, checkpoints.latest or 0, shards_sha256=prepared.shards_sha256, **prepared.hashes
        )
        # Resume order: 1. state, 2. position of the data, 3. the steps that no row of metrics has
        # yet, 4. the rows before these.
        resumed = checkpoints.resume(template)
        if resumed is None:
            state = jax.jit(new_state, out_shardings=places)(jax.device_get(params))
            progress = Progress([])
        else:
            state, position, meta = resumed
            iterator.set_state(position)
            progress = Progress(**meta["progress"])
        logged = int(state.step) - len(progress.pending)
        with Writer(files, resume_step=logged, tensorboard=config.train.tensorboard) as writer:
            _train(config, files, run, state, progress, checkpoints, writer)

        # Dev has chosen the step and the threshold; test is read once, here.
        best = checkpoints.best
        state, _, meta = checkpoints.restore(best, template)
        found = monitor.account(config, prepared, state, predict_fn, files)
        weights = {"raw": state.params, "ema": state.ema_params}
        weights = {kind: params for kind, params in weights.items() if params is not None}

        def scores_of(side):
            return {
                kind: predict_fn(params, getattr(prepared, side))
                for kind, params in weights.items()
            }

        _write_calibration(files, prepared, scores_of)
        return evaluate.write_report(
            files,
            config,
            prepared,
            meta["dev"],
            scores_of("test"),
            steps=config.train.steps,
            selected_step=best,
            checkpoint_sha256=scorer.tree_sha256(sharding.gather(weights, mesh)),
            observatory=found,
        )


def _mesh(config: ConfigDict):
    """The run's mesh. Raises BadInput for batches that it does not divide."""
    mesh = sharding.make_mesh(**{axis: config.mesh[axis] for axis in sharding.AXES})
    batches = {
        "train.labelled_batch": config.train.labelled_batch,
        "train.unlabelled_batch": config.train.unlabelled_batch,
    }
    sharding.check_batch_sizes(mesh, parts=config.train.accumulate, **batches)
    sharding.check_batch_sizes(mesh, **{"eval.batch": config.eval.batch})
    return mesh


def _fit_and_evaluate(config: ConfigDict, workdir: Path) -> dict:
    """A baseline of `algorithms.FITTED`: the files of a trained run, with one row of metrics."""
    prepared = prepare(config, views=())
    began = time.monotonic()
    if config.algorithm == "tfidf_logistic":
        of_texts = baselines.text_features(prepared.texts["labelled"])

        def features(side):
            return of_texts(prepared.texts[side])
    else:
        mesh = sharding.make_mesh()
        sharding.check_batch_sizes(mesh, **{"eval.batch": config.eval.batch})
        model = scorer.build_model(config, prepared.model_folder)
        params = scorer.initial_params(config, model, prepared.model_folder)
        encode = scorer.features_fn(config, model, prepared.tokenizer, mesh)

        def features(side):
            return encode(params, getattr(prepared, side))

    labels = {side: inference.labels_of(getattr(prepared, side)) for side in ("labelled", "dev")}
    head, dev = baselines.fit(
        features,
        labels,
        grid=tuple(config[config.algorithm].C),
        select_by=config.train.select_by,
    )
    with lock.held(workdir):
        write_json(workdir / "config.json", config_module.as_json(config))
        provenance.record_start(workdir, 0, shards_sha256=prepared.shards_sha256, **prepared.hashes)
        with Writer(workdir, resume_step=-1, tensorboard=config.train.tensorboard) as writer:
            row = {f"dev/raw/{name}": value for name, value in dev.items()}
            writer.write(0, row | {"time/seconds": time.monotonic() - began})

        def scores_of(side):
            return {"raw": baselines.harmful(head, features(side))}

        _write_calibration(workdir, prepared, scores_of)
        return evaluate.write_report(
            workdir,
            config,
            prepared,
            {"raw": dev},
            scores_of("test"),
            steps=0,
            selected_step=0,
            checkpoint_sha256=scorer.tree_sha256(scorer.head_content(head)),
        )


def _write_calibration(workdir: Path, prepared: Prepared, scores_of: Callable) -> None:
    """calibration.jsonl, with lines as in predictions.jsonl, where there are such rows.

    scores_of(side) -> {"raw": float64 [rows], "ema": ...}.
    """
    if prepared.calibration is not None:
        evaluate.write_predictions(
            workdir / "calibration.jsonl",
            prepared.calibration,
            prepared.calibration_groups,
            **scores_of("calibration"),
        )


def _train(
    config, files: Path, run: Run, state, progress: Progress, checkpoints: Checkpoints, writer
) -> None:
    """Steps from state.step to the end, with a dev evaluation and a checkpoint at each interval.

    A signal is noticed before a step and within an evaluation: the state is saved as it is, with
    the metrics that no row has yet, and Preempted goes on to the caller.
    """
    total, step = config.train.steps, int(state.step)
    saved = step
    dev_labels = inference.labels_of(run.prepared.dev)
    braked = float(state.watch.brake)
    pending, tokens, computed, skipped = progress
    seen = collections.deque(maxlen=config.train.max_skipped + config.train.log_every_steps)
    logged = since = time.monotonic()
    bar = tqdm(
        total=total,
        initial=step,
        desc=config.algorithm,
        disable=not sys.stderr.isatty(),
        leave=False,
    )
    try:
        while step < total or pending:
            evaluates = step % config.train.eval_every_steps == 0 or step == total
            if not pending or not (evaluates or step % config.train.log_every_steps == 0):
                preemption.check(step)
                batch = next(run.batches)
                seen.append((step + 1, batch["labelled"]["index"], batch.get("index")))
                real, padded = pipeline.token_counts(batch)
                tokens, computed = tokens + real, computed + padded
                batch = sharding.put_batch(batch, run.mesh)
                with jax.transfer_guard("disallow"):
                    state, step_metrics = run.train_step(state, batch)
                preemption.hold()
                pending.append(step_metrics)
                step += 1
                bar.update()
                continue

            pending, in_a_row = jax.device_get(pending), skipped
            for at, part in enumerate(pending, step - len(pending) + 1):
                in_a_row = in_a_row + 1 if part["skipped"][0] else 0
                if in_a_row == config.train.max_skipped:
                    raise _diverged(files, run.prepared, at, in_a_row, seen)
            row = merge(pending)
            tokens, computed = sharding.total(run.mesh, tokens, computed)
            now = time.monotonic()
            seconds = now - since
            row |= {
                "optim/lr": float(run.schedule(step - 1)),
                **_spike(row, writer.rows),
                "time/seconds": now - logged,  # evaluation and saving of the last interval included
                "time/steps_per_second": len(pending) / seconds,
                "time/tokens_per_second": tokens / seconds,
                "data/padding_share": 1 - tokens / computed,
            }
            bar.set_postfix_str(_short(row))
            if evaluates:
                params = {"raw": state.params, "ema": state.ema_params}
                scores = {
                    kind: run.predict_fn(weights, run.prepared.dev)
                    for kind, weights in params.items()
                    if weights is not None
                }
                dev = {kind: metrics.dev_scores(dev_labels, s) for kind, s in scores.items()}
                chosen = dev.get("ema", dev["raw"])
                row |= {f"dev/{kind}/{k}": v for kind, d in dev.items() for k, v in d.items()}
                row |= run.shadow(row, step, scores=scores[run.teacher])
                if run.exact_fn:
                    exact = run.exact_fn(params[run.teacher], run.prepared.dev)
                    found = metrics.precision_loss(dev_labels, scores[run.teacher], exact)
                    row |= {f"bfloat16/{name}": value for name, value in found.items()}
                tqdm.write(f"step {step}/{total}  {_short(row)}  dev F1 {chosen['f1']:.3f}  "
                           f"AUPRC {chosen['auprc']:.3f}", file=sys.stderr)  # fmt: skip
            judged = run.judge([*writer.rows, {"step": step, **row}])
            row |= judged
            if config.brake:
                row["brake"] = braked
                braked = float(any(judged[name] for name in judged if name.startswith("alarm/")))
                brake = jax.device_put(np.float32(braked), state.watch.brake.sharding)
                state = state._replace(watch=state.watch._replace(brake=brake))
            writer.write(step, row)
            pending, tokens, computed, skipped = [], 0, 0, in_a_row
            if evaluates:
                checkpoints.save(
                    step,
                    state,
                    data=run.batches.get_state(),
                    meta={"dev": dev, "progress": Progress([], skipped=skipped).as_json()},
                    selection=chosen[config.train.select_by],
                )
                saved = step
            logged, since = now, time.monotonic()
    except preemption.Preempted:
        if step > saved:
            progress = Progress(pending, tokens, computed, skipped)
            checkpoints.save(
                step,
                state,
                data=run.batches.get_state(),
                meta={"progress": progress.as_json()},
                selection=None,
            )
        checkpoints.wait()
        raise
    bar.close()
    checkpoints.wait()
    preemption.release()


def _spike(row: dict, rows: list[dict]) -> dict:
    """{"loss/spike": the loss over the median loss of the last 20 rows of metrics}, 1 for the first
    row; nothing if all steps of the row were skipped."""
    if "loss/total" not in row:
        return {}
    before = [r["loss/total"] for r in rows[-20:] if "loss/total" in r] or [row["loss/total"]]
    return {"loss/spike": row["loss/total"] / float(np.median(before))}


def _diverged(workdir: Path, prepared: Prepared, last: int, count: int, seen) -> BadInput:
    """What ends a run after `count` skipped steps up to `last`; skipped.json gets their rows' ids.

    seen: (step, places of its labelled rows, places in the pool or None) of the last batches.
    """

    def ids(records, places):
        return [] if places is None else [row["id"] for row in records.gather(places)]

    rows = {
        step: ids(prepared.labelled, labelled) + ids(prepared.unlabelled, pool)
        for step, labelled, pool in seen
        if last - count < step <= last
    }
    write_json(workdir / "skipped.json", rows)
    first = next(iter(rows.values()), [])
    return BadInput(
        f"the loss or its gradient is not a number in steps {last - count + 1} to {last}: lower "
        f"config.optim.lr, or look at the rows of these batches ({', '.join(first)} in the first, "
        f"all in {workdir}/skipped.json); none of them has touched the last checkpoint."
    )


def _check_inside(config, algorithm: algorithms.Algorithm) -> None:
    """Raises BadInput for what a method that works inside the model cannot have."""
    if algorithm.forward is None and not algorithm.logistic_head:
        return
    if config.data.packing and algorithm.forward is not None:
        raise BadInput(f"{config.algorithm}: {steps_module.NOT_PACKED}")
    for key, value in (
        ("data.prompt_corpus", config.data.prompt_corpus),
        ("eval.windows", algorithm.logistic_head and config.eval.windows),
    ):
        if value:
            raise BadInput(
                f"{config.algorithm} works inside the model and does not go with config.{key} = "
                f"{value!r}: unset it."
            )


def _short(row: dict) -> str:
    names = {
        "loss/supervised": "sup",
        "loss/unlabelled": "unlab",
        "pseudo/mask_rate": "masked",
        "time/steps_per_second": "steps/s",
    }
    return "  ".join(f"{short} {row[name]:.3f}" for name, short in names.items() if name in row)
