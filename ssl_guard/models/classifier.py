"""An encoder and its heads as two pure functions over a nested dict of parameters."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_guard.errors import BadInput
from ssl_guard.models import convert, heads
from ssl_guard.models.architectures import read_config
from ssl_guard.models.dropout import row_seeds, token_seeds
from ssl_guard.models.layers import positions
from ssl_guard.models.pretrained import resolve


class Stages(NamedTuple):
    """The classifier in three parts, for methods that change what passes between them. `apply` is
    the features of a batch and then their classification, with the same `rng`.

    words(params, batch) -> float32 [batch, length, width]: the word embeddings, before positions
        and token types are added.
    features(params, batch, rng, train, *, words=None, mix=None, depth=1.0) -> float32
        [batch, width]: the pooled hidden states. words: read in place of the batch's word
        embeddings. mix: a function that mixes the rows of an array [batch, ...]; it is applied to
        the hidden states once, above the share `depth` of the layers (rounded up; it may be
        traced). Pads are mixed as zeros, and a token of either text is a token of the mixture.
    classify(params, features, row, rng, train) -> logits, float32 [batch, heads, classes]; row:
        int32 [batch], as in a batch.
    """

    words: Callable[..., jax.Array]
    features: Callable[..., jax.Array]
    classify: Callable[..., jax.Array]


class Classifier(NamedTuple):
    """A text classifier. A batch holds input_ids, attention_mask and token_type_ids, int32
    [batch, length], and row, int32 [batch]: the rows' places in the global batch. A packed batch
    (data/packing.py) also holds text, int32 [rows, length], and its first three are [rows, length];
    what comes out is the same, one row per text.

    init(rng, batch) -> params: {"encoder": ..., "head": ...}, float32, all random.
    apply(params, batch, rng, train) -> logits, float32 [batch, heads, classes]. `train` is static;
    `rng` is read, for dropout, only if it is True.
    config: the encoder's config, hashable; config.hf_names are the names for models.convert.
    stages: `apply` in parts.
    encoder: the Flax module itself.
    for_scoring(params) -> params that give the same logits, for many calls of apply: the matrices
        that every call would cast to bfloat16 are cast once. Not for training.
    """

    init: Callable[..., Any]
    apply: Callable[..., jax.Array]
    config: Any
    stages: Stages
    encoder: Any
    for_scoring: Callable[[Any], Any]


def build(
    name_or_folder: str | Path,
    *,
    num_classes: int = 2,
    num_heads: int = 1,
    num_tasks: int = 1,
    num_layers: int = 0,
    pooling: str = "mean",
    head: str = "mlp",
    dropout: float = 0.1,
    dtype: str = "float32",
    remat: bool = False,
) -> Classifier:
    """A classifier shaped by the config.json of a model; its weights are not read.

    With several tasks each has `num_heads` heads of its own, and a row gets the logits of its task,
    which the batch then holds as task, int32 [batch]; `stages` do not know of tasks. `num_layers`
    keeps the lowest encoder layers only, 0 keeps all. `pooling` is "cls" or "mean", `head` "linear"
    or "mlp". `dropout` is the rate everywhere: in the encoder, in place of the rates of
    config.json, and before the head. `dtype`, "float32" or "bfloat16", is that of the encoder's
    matrix products. `remat` computes the insides of every layer again in the backward pass: less
    memory, more time, the same numbers. Raises BadInput on what cannot be built.
    """
    for key, value, known in (
        ("pooling", pooling, heads.POOLINGS),
        ("head", head, heads.HEADS),
        ("dtype", dtype, ("float32", "bfloat16")),
    ):
        if value not in known:
            raise BadInput(f"{key}={value!r} is unknown; use one of {', '.join(known)}")
    if not 0 <= dropout < 1 or num_classes < 1 or num_heads < 1:
        raise BadInput(
            f"dropout={dropout}, num_classes={num_classes}, num_heads={num_heads} cannot be built; "
            "dropout must be in [0, 1) and the two numbers at least 1"
        )
    # A local folder may hold config.json alone: a random start needs no weights.
    folder = Path(name_or_folder)
    config, encoder = read_config(folder if folder.is_dir() else resolve(name_or_folder))
    if not 0 <= num_layers <= config.num_hidden_layers:
        raise BadInput(
            f"num_layers={num_layers} is not between 0 (all) and the encoder's "
            f"{config.num_hidden_layers}"
        )
    config = dataclasses.replace(
        config,
        num_hidden_layers=num_layers or config.num_hidden_layers,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    encoder = encoder(config, dtype, remat)
    classifiers = heads.Heads(num_tasks * num_heads, num_classes, head, dropout)

    def init(rng, batch):
        encoder_rng, head_rng = jax.random.split(rng)
        inputs = batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]
        pooled = jnp.zeros((1, config.hidden_size))
        return {
            "encoder": encoder.init(encoder_rng, *inputs)["params"],
            "head": classifiers.init(head_rng, pooled)["params"],
        }

    def words(params, batch):
        return params["encoder"]["embeddings"]["word"]["embedding"][batch["input_ids"]]

    def features(params, batch, rng, train, *, words=None, mix=None, depth=1.0):
        if "text" in batch:
            if words is not None or mix is not None:
                raise BadInput(
                    "the words or states of packed rows cannot be replaced or mixed: set "
                    "config.data.packing = False"
                )
            hidden = hidden_states(encoder, params["encoder"], batch, rng, train)
            place = positions(batch["attention_mask"], segments_of(batch))
            return heads.pool_packed(hidden, batch["text"], place, batch["row"], pooling)
        seeds = row_seeds(rng, batch["row"]) if train else None
        mask = batch["attention_mask"]
        inputs = batch["input_ids"], mask, batch["token_type_ids"]
        options = {"words": words}
        if mix is not None:
            mask = (mix((mask > 0).astype(jnp.float32)) > 0).astype(jnp.int32)
            # 7 / 12 of 12 layers is 7 in spite of rounding errors.
            layer = jnp.ceil(depth * config.num_hidden_layers - 1e-3).astype(jnp.int32)
            options |= {"mix": mix, "mix_layer": layer, "mixed_mask": mask}
        hidden = encoder.apply({"params": params["encoder"]}, *inputs, seeds, **options)
        return heads.pool(hidden, mask, pooling)

    def classify(params, features, row, rng, train):
        seeds = row_seeds(rng, row) if train else None
        return classifiers.apply({"params": params["head"]}, features, seeds)

    def apply(params, batch, rng, train):
        pooled = features(params, batch, rng, train)
        logits = classify(params, pooled, batch["row"], rng, train)
        return logits if num_tasks == 1 else heads.of_task(logits, batch["task"], num_tasks)

    def for_scoring(params):
        if dtype == "float32":
            return params

        def cast(path, leaf):
            name = "/".join(key.key for key in path)
            return leaf.astype(dtype) if re.match(r"layer_\d+/.*kernel$", name) else leaf

        return params | {"encoder": jax.tree_util.tree_map_with_path(cast, params["encoder"])}

    stages = Stages(words, features, classify)
    return Classifier(init, apply, config, stages, encoder, for_scoring)


def segments_of(batch: dict):
    """int32 [rows, length]: each packed token's text, counted from 1 in its row; 0 for pads."""
    starts = jnp.diff(batch["text"], axis=1, prepend=-1) != 0
    return jnp.where(batch["attention_mask"] > 0, jnp.cumsum(starts, axis=1), 0)


def seeds_of(batch: dict, rng):
    """The dropout seeds of a batch: of its rows, or of its tokens if it is packed."""
    if "text" not in batch:
        return row_seeds(rng, batch["row"])
    return token_seeds(rng, batch["text"], positions(batch["attention_mask"], segments_of(batch)))


def hidden_states(encoder, params, batch: dict, rng, train: bool):
    """The encoder's states of a batch, packed or not: [rows, length, width]."""
    seeds = seeds_of(batch, rng) if train else None
    segments = segments_of(batch) if "text" in batch else None
    inputs = batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]
    return encoder.apply({"params": params}, *inputs, seeds, segments=segments)


def init_from_pretrained(classifier: Classifier, name_or_folder: str | Path, rng, batch):
    """Parameters with the encoder of the model's safetensors files and a random head.

    Raises BadInput naming the tensor if the weights do not fit the classifier.
    """
    folder = resolve(name_or_folder)
    stored, _ = read_config(folder)
    encoder = convert.load(
        folder,
        jax.eval_shape(classifier.init, rng, batch)["encoder"],
        classifier.config.hf_names,
        unused_layers=range(classifier.config.num_hidden_layers, stored.num_hidden_layers),
    )
    # Under jit the random encoder, which nobody asks for, is never computed.
    head = jax.jit(lambda rng, batch: classifier.init(rng, batch)["head"])(rng, batch)
    return {"encoder": jax.tree.map(jnp.array, encoder), "head": head}
