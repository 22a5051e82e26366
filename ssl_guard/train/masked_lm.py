"""Continued pre-training of an encoder on a run's own texts, by masked words.

    python -m ssl_guard.main --config=configs/mlm.py --workdir=runs/mlm

The texts are the labelled and unlabelled rows of the frozen split, never dev or test; a few of them
are held out to watch the loss. `workdir/encoder/` is then the folder of a model like any other:

    python -m ssl_guard.main --config=configs/uda.py --config.model.name=runs/mlm/encoder ...

Beside it are hashes of the prompts that it may have read, those of the model that it began with
included, so that a run whose test prompts are among them is refused.
"""

import functools
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from ssl_guard import config as config_module
from ssl_guard import models
from ssl_guard.data import pipeline
from ssl_guard.data.duplicates import Shingles
from ssl_guard.data.shards import Records
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import scorer
from ssl_guard.models import convert
from ssl_guard.prepare import PRETRAINING, Prepared, prepare, pretraining, read_split
from ssl_guard.runtime import lock, preemption, processes, provenance, sharding
from ssl_guard.runtime.checkpoint import Checkpoints
from ssl_guard.runtime.files import sha256_file, write_json
from ssl_guard.runtime.metrics import merge
from ssl_guard.runtime.writer import Writer, read
from ssl_guard.steps import masked_lm, optim
from ssl_guard.train.progress import Progress

HELD_OUT = 4  # random stream of a seed; data.pipeline has those below


class Texts(Sequence):
    """Some rows of one or two views, read like data.tfrecord.Records."""

    def __init__(self, views: Sequence[Records], rows: np.ndarray):
        self._views, self._rows = views, rows
        self.lengths = np.concatenate([view.lengths for view in views])[rows]
        self.manifest = views[0].manifest

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> dict:
        return self.gather([i])[0]

    def gather(self, indices: Iterable[int]) -> list[dict]:
        """The records at these positions, in this order."""
        first = len(self._views[0])
        rows = [int(self._rows[i]) for i in indices]
        return [self._views[0][row] if row < first else self._views[1][row - first] for row in rows]


def texts_of(prepared: Prepared, *, held_out: int, seed: int) -> tuple[Texts, Texts]:
    """The texts to learn from and those held out. Raises BadInput if none would be left."""
    views = [view for view in (prepared.labelled, prepared.unlabelled) if view is not None]
    order = np.random.default_rng([seed, HELD_OUT]).permutation(sum(map(len, views)))
    if held_out >= len(order):
        raise BadInput(
            f"config.mlm.held_out = {held_out} leaves nothing of {len(order)} texts: lower it."
        )
    return Texts(views, order[held_out:]), Texts(views, order[:held_out])


def _prompts(config: ConfigDict, model_folder: Path) -> Shingles:
    """Of all prompts that the model will have read."""
    rows, before = read_split(config).rows, pretraining(model_folder)
    mine = Shingles.of(e.prompt for side in ("labelled", "unlabelled") for e in rows[side])
    return mine if before is None else before + mine


def pretrain(config: ConfigDict, workdir: str | Path) -> dict:
    """Runs to the end, or on from the last checkpoint, and returns the report.

    A finished run returns at once; a workdir of another config is refused. Raises BadInput for
    anything the user can put right.
    """
    workdir = Path(workdir)
    config_module.check(config)
    config_module.refuse_other(workdir, config)
    if (workdir / "report.json").exists():
        return json.loads((workdir / "report.json").read_text())

    mesh = sharding.make_mesh(**{axis: config.mesh[axis] for axis in sharding.AXES})
    sharding.check_batch_sizes(mesh, **{"mlm.batch": config.mlm.batch})
    prepared = processes.in_turn(lambda: prepare(config, views=("weak",)))
    prompts = _prompts(config, prepared.model_folder)
    tokenizer = prepared.tokenizer
    if tokenizer.mask_id is None:
        raise BadInput(
            f"the tokenizer of {config.model.name} has no mask token, so nothing can be masked; "
            "choose another model."
        )
    learned, held_out = texts_of(prepared, held_out=config.mlm.held_out, seed=config.seed)
    batching = {
        "buckets": tuple(config.data.buckets),
        "pad_id": tokenizer.pad_id,
        "pack_groups": scorer.pack_groups(config, mesh),
    }
    iterator = iter(
        pipeline.train_batches(
            learned,
            None,
            None,
            seed=config.seed,
            steps=config.train.steps,
            labelled_batch=config.mlm.batch,
            unlabelled_batch=0,
            window_steps=config.data.window_steps,
            **sharding.own_slice(mesh),
            num_shapes=config.data.shapes,
            **batching,
        )
    )

    model = models.build_masked_lm(
        prepared.model_folder,
        num_layers=config.model.num_layers,
        dropout=config.model.dropout,
        dtype=config.model.dtype,
    )
    token = jnp.zeros((1, 1), jnp.int32)
    row = {"input_ids": token, "attention_mask": token, "token_type_ids": token, "row": token[0]}
    params = model.init(jax.random.fold_in(jax.random.key(config.seed), 1), row)
    tx = optim.of_run(config, params, model.config.num_hidden_layers)

    def new_state(params):
        key = jax.random.key(config.seed)
        return masked_lm.State(jnp.zeros((), jnp.int32), params, tx.init(params), key)

    template = sharding.place(jax.eval_shape(new_state, params), mesh)
    places = sharding.shardings(template)
    words = dict(
        apply=sharding.whole(model.apply, mesh),
        vocabulary=masked_lm.Vocabulary(
            tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids
        ),
        rate=config.mlm.rate,
    )
    step = jax.jit(
        functools.partial(masked_lm.mlm_step, tx=tx, freeze=tuple(config.optim.freeze), **words),
        in_shardings=(places, sharding.split_rows(mesh)),
        out_shardings=(places, sharding.replicated(mesh)),
        donate_argnums=0,
    )
    guess = jax.jit(
        functools.partial(masked_lm.guess, train=False, **words),
        out_shardings=sharding.replicated(mesh),
    )

    def held_out_scores(params) -> dict:
        """Every evaluation hides the same words: row and key are the same."""
        parts = []
        for number, (batch, _) in enumerate(
            pipeline.eval_batches(held_out, batch_size=config.mlm.batch, **batching)
        ):
            key = jax.random.fold_in(jax.random.key(config.seed), number)
            _, part = guess(params, sharding.put_global_batch(batch, mesh), key)
            parts.append(jax.device_get(part))
        scores = merge(parts)
        return {"loss": scores["loss/mlm"], "accuracy": scores["mlm/accuracy"]}

    with (
        lock.held(workdir),
        processes.own_files(workdir) as files,
        Checkpoints(
            workdir / "checkpoints",
            keep_last=config.train.keep_last,
            on_save_error=config.train.on_save_error,
        ) as checkpoints,
    ):
        write_json(files / "config.json", config_module.as_json(config))
        # Resume order: as in train.py.
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
            functions = step, held_out_scores
            _train(config, state, progress, iterator, *functions, mesh, checkpoints, writer)
        best = checkpoints.best
        state, _, meta = checkpoints.restore(best, template)
        encoder = sharding.gather(state.params["encoder"], mesh)
        convert.save_pretrained(files / "encoder", encoder, model.config, prepared.model_folder)
        prompts.save(files / "encoder" / PRETRAINING)
        rows = read(files / "metrics.jsonl")
        report = {
            "algorithm": "mlm",
            "seed": config.seed,
            "selected_step": best,
            "steps": config.train.steps,
            "texts": {"learned": len(learned), "held_out": len(held_out)},
            "prompts": {
                "read": len(prompts),
                "sha256": sha256_file(files / "encoder" / PRETRAINING),
            },
            "held_out": meta["held_out"],
            "data": prepared.summary,
            "training": {"seconds": round(sum(row["time/seconds"] for row in rows), 1)},
            "provenance": provenance.collect(**prepared.hashes),
        }
        write_json(files / "report.json", report)
        return report


def _train(
    config, state, progress, iterator, step_fn, held_out_scores, mesh, checkpoints, writer
) -> None:
    """Steps from state.step to the end, with a checkpoint at each interval and on a signal."""
    total, step = config.train.steps, int(state.step)
    saved = step
    pending, tokens, computed, _ = progress
    since = time.monotonic()
    bar = tqdm(total=total, initial=step, desc="mlm", disable=not sys.stderr.isatty(), leave=False)
    try:
        while step < total or pending:
            evaluates = step % config.train.eval_every_steps == 0 or step == total
            if not pending or not (evaluates or step % config.train.log_every_steps == 0):
                preemption.check(step)
                batch = next(iterator)["labelled"]
                real, padded = pipeline.token_counts(batch)
                tokens, computed = tokens + real, computed + padded
                batch = sharding.put_batch(batch, mesh)
                with jax.transfer_guard("disallow"):
                    state, step_metrics = step_fn(state, batch)
                preemption.hold()
                pending.append(step_metrics)
                step += 1
                bar.update()
                continue

            row = merge(jax.device_get(pending))
            tokens, computed = sharding.total(mesh, tokens, computed)
            if not np.isfinite(row["loss/mlm"] + row["grad_norm"]):
                raise BadInput(
                    f"the loss is not a number at step {step}: lower config.optim.lr; the last "
                    "checkpoint is from before that."
                )
            seconds = time.monotonic() - since
            row |= {
                "time/seconds": seconds,
                "time/tokens_per_second": tokens / seconds,
                "data/padding_share": 1 - tokens / computed,
            }
            if evaluates:
                scores = held_out_scores(state.params)
                row |= {f"held_out/{name}": value for name, value in scores.items()}
            writer.write(step, row)
            pending, tokens, computed, since = [], 0, 0, time.monotonic()
            if evaluates:
                checkpoints.save(
                    step,
                    state,
                    data=iterator.get_state(),
                    meta={"held_out": scores, "progress": Progress([]).as_json()},
                    selection=-scores["loss"],
                )
                saved = step
    except preemption.Preempted:
        if step > saved:
            checkpoints.save(
                step,
                state,
                data=iterator.get_state(),
                meta={"progress": Progress(pending, tokens, computed).as_json()},
                selection=None,
            )
        checkpoints.wait()
        raise
    bar.close()
    checkpoints.wait()
    preemption.release()
