"""An encoder with classification heads, as pure functions over a nested dict of parameters."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssl_guard.errors import BadInput, given_as
from ssl_guard.models import convert, heads
from ssl_guard.models.architectures import read_config
from ssl_guard.models.dropout import row_seeds, token_seeds
from ssl_guard.models.layers import positions
from ssl_guard.models.pretrained import resolve


class Stages(NamedTuple):
    """The classifier in three functions, for methods that change intermediate values.

    `Classifier.apply` is `classify` of `features` with the same rng.

    word_embeddings(params, batch) -> float32 [batch, length, embedding width], before positions and
        token types are added.
    features(params, batch, rng, train, *, word_embeddings=None, mixup_fn=None, depth=1.0)
        -> pooled hidden states, float32 [batch, width]. word_embeddings: replaces the lookup.
        mixup_fn: mixes the rows of an array [batch, ...]; applied once to the hidden states, after
        the fraction `depth` of the layers (rounded up; may be traced). Padding is mixed as zeros,
        and positions with a token in either text are tokens of the mixture.
    classify(params, features, row, rng, train) -> logits, float32 [batch, heads, classes]; row:
        int32 [batch], as in a batch.
    """

    word_embeddings: Callable[..., jax.Array]
    features: Callable[..., jax.Array]
    classify: Callable[..., jax.Array]


class Classifier(NamedTuple):
    """A text classifier.

    A batch holds input_ids, attention_mask and token_type_ids, int32 [batch, length], and row,
    int32 [batch]: indices of the rows in the global batch. A packed batch (data/packing.py) also
    holds text, int32 [rows, length], and its first three are [rows, length]; outputs have one row
    per text. A batch may hold states, float32 [rows, length, width]: the output of the lowest
    `cached_layers` layers, which are then not computed.

    init(rng, batch) -> random params {"encoder": ..., "head": ...}, float32.
    apply(params, batch, rng, train) -> logits, float32 [batch, heads, classes]. `train` is static
        and enables dropout; `rng` is used only with it.
    config: of the encoder, hashable.
    stages: the parts of `apply`.
    encoder: the Flax module.
    for_scoring(params) -> params for repeated inference with the same logits: matrices that each
        call would cast to bfloat16 are cast once. Not for training.
    hidden: the hidden layer of the heads. hf_head: HF names of the modules of an "hf" head, or {}.
    pooling: as given to `build`.
    """

    init: Callable[..., Any]
    apply: Callable[..., jax.Array]
    config: Any
    stages: Stages
    encoder: Any
    for_scoring: Callable[[Any], Any]
    hidden: heads.Hidden
    hf_head: dict[str, str]
    pooling: str


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
    cached_layers: int = 0,
) -> Classifier:
    """Builds a classifier from the config.json of a model, without reading its weights.

    num_tasks: each task has its own `num_heads` heads; with several, the batch holds task, int32
        [batch], and `apply` returns the logits of each row's task. `stages` return all heads.
    num_layers: keeps the lowest encoder layers only; 0 keeps all.
    pooling: "cls" or "mean"; head: "linear", "mlp" or "hf", see heads.Heads. "hf" needs "cls", but
        for ModernBERT.
    dropout: rate in the encoder, instead of those of config.json, and before the head.
    dtype: of the encoder's matrix products, "float32" or "bfloat16".
    remat: recomputes activations in the backward pass: less memory, more time, same numbers.
    cached_layers: number of lowest layers whose output a batch with states holds.

    Raises BadInput for unknown options and unsupported or unreadable configs.
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
    # A local folder may hold config.json alone: random initialisation needs no weights.
    folder = Path(name_or_folder)
    folder = folder if folder.is_dir() else resolve(name_or_folder)
    config, encoder_class = read_config(folder)
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
    encoder = encoder_class(config, dtype, remat)
    hidden, hf_head = heads.Hidden(), {}
    if head == "hf":
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        hf_head = heads.HF_HEADS[values["model_type"]][0]
        if pooling == "mean" and values["model_type"] != "modernbert":
            raise BadInput(
                f"head='hf' of {values['model_type']} reads the first token, not the mean: use "
                "pooling='cls'"
            )
        with given_as(f"{folder / 'config.json'}"):
            hidden = heads.hf_hidden(values, config)
    classifiers = heads.Heads(num_tasks * num_heads, num_classes, head, dropout, hidden)

    def init(rng, batch):
        encoder_rng, head_rng = jax.random.split(rng)
        inputs = batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]
        pooled = jnp.zeros((1, config.hidden_size))
        return {
            "encoder": encoder.init(encoder_rng, *inputs)["params"],
            "head": classifiers.init(head_rng, pooled)["params"],
        }

    def word_embeddings(params, batch):
        return params["encoder"]["embeddings"]["word"]["embedding"][batch["input_ids"]]

    def features(params, batch, rng, train, *, word_embeddings=None, mixup_fn=None, depth=1.0):
        if "text" in batch:
            if word_embeddings is not None or mixup_fn is not None:
                raise BadInput(
                    "the words or states of packed rows cannot be replaced or mixed: set "
                    "config.data.packing = False"
                )
            hidden = hidden_states(
                encoder, params["encoder"], batch, rng, train, first_layer=cached_layers
            )
            position = positions(batch["attention_mask"], segments_of(batch))
            return heads.pool_packed(hidden, batch["text"], position, batch["row"], pooling)
        dropout_seeds = row_seeds(rng, batch["row"]) if train else None
        mask = batch["attention_mask"]
        inputs = batch["input_ids"], mask, batch["token_type_ids"]
        options = {"word_embeddings": word_embeddings} | _states(batch, cached_layers)
        if mixup_fn is not None:
            mask = (mixup_fn((mask > 0).astype(jnp.float32)) > 0).astype(jnp.int32)
            # 7 / 12 of 12 layers is 7 in spite of rounding errors.
            layer = jnp.ceil(depth * config.num_hidden_layers - 1e-3).astype(jnp.int32)
            options |= {"mixup_fn": mixup_fn, "mixup_layer": layer, "mixed_mask": mask}
        hidden = encoder.apply({"params": params["encoder"]}, *inputs, dropout_seeds, **options)
        return heads.pool(hidden, mask, pooling)

    def classify(params, features, row, rng, train):
        dropout_seeds = row_seeds(rng, row) if train else None
        return classifiers.apply({"params": params["head"]}, features, dropout_seeds)

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

    stages = Stages(word_embeddings, features, classify)
    return Classifier(
        init,
        apply,
        config,
        stages,
        encoder,
        for_scoring,
        hidden=hidden,
        hf_head=hf_head,
        pooling=pooling,
    )


def segments_of(batch: dict):
    """Returns each packed token's text, counted from 1 in its row, 0 for padding: int32 [rows,
    length]."""
    starts = jnp.diff(batch["text"], axis=1, prepend=-1) != 0
    return jnp.where(batch["attention_mask"] > 0, jnp.cumsum(starts, axis=1), 0)


def seeds_of(batch: dict, rng):
    """Returns the dropout seeds of a batch: per row, or per token if it is packed."""
    if "text" not in batch:
        return row_seeds(rng, batch["row"])
    return token_seeds(rng, batch["text"], positions(batch["attention_mask"], segments_of(batch)))


def hidden_states(
    encoder, params, batch: dict, rng, train: bool, *, first_layer=0, stop_layer=None
):
    """Applies the encoder to a batch, packed or not; returns [rows, length, width].

    first_layer: the layer that states of the batch, if there are any, enter; stop_layer: see
    models/encoder.py.
    """
    dropout_seeds = seeds_of(batch, rng) if train else None
    segments = segments_of(batch) if "text" in batch else None
    inputs = batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]
    options = {"segments": segments, "stop_layer": stop_layer} | _states(batch, first_layer)
    return encoder.apply({"params": params}, *inputs, dropout_seeds, **options)


def _states(batch: dict, first_layer: int) -> dict:
    return {"states": batch["states"], "first_layer": first_layer} if "states" in batch else {}


def init_from_pretrained(classifier: Classifier, name_or_folder: str | Path, rng, batch):
    """Returns parameters with the encoder from a model's safetensors files and a random head.

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
    # Under jit the unused random encoder is never computed.
    head = jax.jit(lambda rng, batch: classifier.init(rng, batch)["head"])(rng, batch)
    head = head | convert.load_hidden(folder, head, classifier.hf_head)
    return jax.tree.map(jnp.array, {"encoder": encoder, "head": head})
