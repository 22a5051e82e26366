"""Continues the masked-language-model pre-training of an encoder on a run's own texts.

    python -m ssl_guard.main --config=configs/mlm.py --workdir=runs/mlm

The texts are the labelled and unlabelled rows of the frozen split, never dev or test; a few of them
are held out to measure the loss. `workdir/encoder/` is a model folder for other configs:

    python -m ssl_guard.main --config=configs/uda.py --config.model.name=runs/mlm/encoder ...

It also holds hashes of the prompts that the encoder has read, in this run or before it. A run whose
test prompts are among them is refused.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ssl_guard import config as config_module
from ssl_guard import models
from ssl_guard.data import pipeline
from ssl_guard.data.contamination import PRETRAINING, pretraining
from ssl_guard.data.duplicates import Shingles
from ssl_guard.data.records import Concat, Records
from ssl_guard.errors import BadInput
from ssl_guard.evaluation.prepare import Prepared, prepare, read_split
from ssl_guard.models import convert
from ssl_guard.runtime import preemption, processes, provenance, sharding
from ssl_guard.runtime.files import check_folder, read_jsonl, sha256_file, write_json
from ssl_guard.runtime.metrics import merge
from ssl_guard.steps import masked_lm, optim
from ssl_guard.train import loop
from ssl_guard.train.workdir import finished, opened

HELD_OUT = 4  # random stream of a seed; data.pipeline uses the lower ones


def texts_of(prepared: Prepared, *, held_out: int, seed: int) -> tuple[Records, Records]:
    """Splits the texts into (training, held out). Raises BadInput if none is left for training."""
    views = [view for view in (prepared.labelled, prepared.unlabelled) if view is not None]
    order = np.random.default_rng([seed, HELD_OUT]).permutation(sum(map(len, views)))
    if held_out >= len(order):
        raise BadInput(
            f"config.mlm.held_out = {held_out} leaves none of {len(order)} texts for training: "
            "lower it."
        )
    texts = Concat(views)
    return texts.subset(order[held_out:]), texts.subset(order[:held_out])


def _prompts(config: ConfigDict, model_folder: Path) -> Shingles:
    """Hashes all prompts that the encoder will have read."""
    rows, before = read_split(config).rows, pretraining(model_folder)
    mine = Shingles.of(e.prompt for side in ("labelled", "unlabelled") for e in rows[side])
    return mine if before is None else before + mine


def pretrain(config: ConfigDict, workdir: str | Path) -> dict:
    """Pre-trains an encoder, or resumes from the last checkpoint, and returns the report.

    A finished run returns at once. Raises BadInput for the workdir of another config and for
    anything else that the user can correct, Preempted when a signal has stopped the training.
    """
    workdir = Path(workdir)
    config_module.check(config)
    config_module.refuse_other(workdir, config)
    if (report := finished(workdir)) is not None:
        return report
    check_folder(workdir, "--workdir")

    mesh = sharding.make_mesh(**{axis: config.mesh[axis] for axis in sharding.AXES})
    sharding.check_batch_sizes(mesh, **{"mlm.batch": config.mlm.batch})
    prepared = processes.first_process_first(lambda: prepare(config, views=("weak",)))
    prompts = _prompts(config, prepared.model_folder)
    tokenizer = prepared.tokenizer
    if tokenizer.mask_id is None:
        raise BadInput(
            f"the tokenizer of {config.model.name} has no mask token: choose another model."
        )
    learned, held_out = texts_of(prepared, held_out=config.mlm.held_out, seed=config.seed)
    batching: dict[str, Any] = {
        "buckets": tuple(config.data.buckets),
        "pad_id": tokenizer.pad_id,
        "pack_groups": sharding.row_shards(mesh) if config.data.packing else 0,
    }
    batches = pipeline.train_batches(
        learned,
        None,
        None,
        seed=config.seed,
        steps=config.train.steps,
        labelled_batch=config.mlm.batch,
        unlabelled_batch=0,
        window_steps=config.data.window_steps,
        sort_by_length=config.data.sort_by_length,
        num_shapes=config.data.num_shapes,
        **(batching | sharding.own_slice(mesh)),
    )

    model = models.build_masked_lm(
        prepared.model_folder,
        num_layers=config.model.num_layers,
        dropout=config.model.dropout,
        dtype=config.model.dtype,
    )
    token = jnp.zeros((1, 1), jnp.int32)
    row = {"input_ids": token, "attention_mask": token, "token_type_ids": token, "row": token[0]}
    key = jax.random.key(config.seed)
    params = model.init(jax.random.fold_in(key, 1), row)
    settings = optim.Settings(**config.optim)
    tx, schedule = optim.from_settings(
        settings,
        params,
        total_steps=config.train.steps,
        num_layers=model.config.num_hidden_layers,
    )
    vocabulary = masked_lm.Vocabulary(
        tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids
    )
    words = {
        "apply": sharding.gather_fsdp_params(model.apply, mesh),
        "vocabulary": vocabulary,
        "rate": config.mlm.rate,
    }

    def init(params):
        return masked_lm.State(jnp.zeros((), jnp.int32), params, tx.init(params), key)

    def train_step(state, batch):
        return masked_lm.train_step(
            state, batch["labelled"], tx=tx, freeze=settings.freeze, **words
        )

    compiled = loop.compile_step(train_step, init, params, mesh)
    loss_fn = jax.jit(
        functools.partial(masked_lm.loss_fn, train=False, **words),
        out_shardings=sharding.replicated(mesh),
    )

    def evaluate(state, step, row):
        """Scores the held-out texts; every evaluation masks the same words."""
        parts = []
        for number, (batch, _) in enumerate(
            pipeline.eval_batches(held_out, batch_size=config.mlm.batch, **batching)
        ):
            preemption.check()
            batch = sharding.put_global_batch(batch, mesh)
            _, part = loss_fn(state.params, batch, jax.random.fold_in(key, number))
            parts.append(jax.device_get(part))
        found = merge(parts)
        scores = {"loss": found["loss/mlm"], "accuracy": found["mlm/accuracy"]}
        added = {f"held_out/{name}": value for name, value in scores.items()}
        return added, {"held_out": scores}, -scores["loss"]

    with opened(workdir, config, prepared) as (files, checkpoints):
        best, state, meta = loop.fit(
            compiled,
            batches,
            evaluate,
            schedule=schedule,
            records=(learned, None),
            mesh=mesh,
            plan=loop.Plan(**{key: config.train[key] for key in loop.Plan._fields}),
            name="mlm",
            files=files,
            checkpoints=checkpoints,
        )
        encoder = sharding.gather(state.params["encoder"], mesh)
        convert.save_pretrained(files / "encoder", encoder, model.config, prepared.model_folder)
        prompts.save(files / "encoder" / PRETRAINING)
        rows = read_jsonl(files / "metrics.jsonl")
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
