"""Loads fine-tuned text classifiers (AutoModelForSequenceClassification) for inference.

Examples are unitary/toxic-bert, Prompt Guard and HarmAug. Every head is pooling, a dense layer, an
activation, for ModernBERT a norm, and a dense layer with one output per label.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssl_guard.errors import BadInput
from ssl_guard.models import convert
from ssl_guard.models.classifier import build, hidden_states
from ssl_guard.models.encoder_config import EncoderConfig
from ssl_guard.models.heads import POOLINGS, pool
from ssl_guard.models.layers import ACTIVATIONS, dense, layer_norm
from ssl_guard.models.pretrained import resolve


class SequenceClassifier(NamedTuple):
    """A fine-tuned classifier; batches are those of `models.Classifier`, not packed.

    apply(params, batch) -> logits, float32 [batch, labels].
    params: {"encoder": ..., "head": ...}, float32.
    labels: names of the outputs, in order.
    multi_label: whether probabilities are a sigmoid of each logit; otherwise a softmax.
    config: of the encoder.
    """

    apply: Callable[..., jax.Array]
    params: Any
    labels: tuple[str, ...]
    multi_label: bool
    config: EncoderConfig


_ROBERTA = {"dense": "classifier.dense", "output": "classifier.out_proj"}
# By model_type: HF names of the head's modules, the key of config.json with its activation ("" for
# none) and the default activation.
HEADS = {
    "bert": ({"dense": "bert.pooler.dense", "output": "classifier"}, "", "tanh"),
    "roberta": (_ROBERTA, "", "tanh"),
    "xlm-roberta": (_ROBERTA, "", "tanh"),
    "camembert": (_ROBERTA, "", "tanh"),
    "distilbert": ({"dense": "pre_classifier", "output": "classifier"}, "", "relu"),
    "electra": (_ROBERTA, "", "gelu"),
    "mpnet": (_ROBERTA, "", "tanh"),
    "deberta-v2": (
        {"dense": "pooler.dense", "output": "classifier"},
        "pooler_hidden_act",
        "gelu",
    ),
    "modernbert": (
        {"dense": "head.dense", "norm": "head.norm", "output": "classifier"},
        "classifier_activation",
        "gelu",
    ),
}

PROBLEMS = (None, "single_label_classification", "multi_label_classification")


class Head(nn.Module):
    """Classification head on pooled states, in float32."""

    labels: int
    activation: str
    dense_bias: bool = True
    norm: bool = False
    norm_bias: bool = True
    epsilon: float = 0.0

    @nn.compact
    def __call__(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch labels"]:
        x = dense(pooled.shape[-1], "float32", "dense", self.dense_bias)(pooled)
        x = ACTIVATIONS[self.activation](x)
        if self.norm:
            x = layer_norm(self.epsilon, "norm", self.norm_bias)(x)
        return dense(self.labels, "float32", "output")(x)


def load_sequence_classifier(
    name_or_folder: str | Path, *, dtype: str = "float32"
) -> SequenceClassifier:
    """Loads a classifier from safetensors files; dtype: of the encoder's matrix products.

    Raises BadInput if the folder, the weights or the head are missing, and for unsupported options.
    """
    folder = resolve(name_or_folder)
    model = build(folder, dropout=0.0, dtype=dtype)
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names, key, activation = HEADS[values["model_type"]]
    modern = values["model_type"] == "modernbert"
    activation = values.get(key) or activation
    pooling = values.get("classifier_pooling", "cls") if modern else "cls"
    problem = values.get("problem_type")
    for option, value, known in (
        (key, activation, ACTIVATIONS),
        ("classifier_pooling", pooling, POOLINGS),
        ("problem_type", problem, PROBLEMS),
    ):
        if value not in known:
            raise BadInput(
                f"{folder / 'config.json'}: {option}={value!r} is not supported; supported are "
                f"{', '.join(str(choice) for choice in known)}"
            )
    labels = labels_of(values)
    head = Head(
        labels=len(labels),
        activation=activation,
        dense_bias=values.get("classifier_bias", False) if modern else True,
        norm="norm" in names,
        norm_bias=model.config.norm_bias,
        epsilon=model.config.layer_norm_eps,
    )

    token = jnp.zeros((1, 1), jnp.int32)
    rng, pooled = jax.random.key(0), jnp.zeros((1, model.config.hidden_size))
    encoder_shapes = jax.eval_shape(model.encoder.init, rng, token, token, token)["params"]
    head_shapes = jax.eval_shape(head.init, rng, pooled)["params"]
    params = {
        "encoder": convert.load(folder, encoder_shapes, model.config.hf_names),
        "head": convert.load_classification_head(folder, head_shapes, names),
    }

    def apply(params, batch):
        hidden = hidden_states(model.encoder, params["encoder"], batch, None, False)
        pooled = pool(hidden, batch["attention_mask"], pooling)
        return head.apply({"params": params["head"]}, pooled)

    return SequenceClassifier(
        apply=apply,
        params=jax.tree.map(jnp.array, params),
        labels=labels,
        # As in transformers' pipeline, a single output is a sigmoid too.
        multi_label=problem == "multi_label_classification" or len(labels) == 1,
        config=model.config,
    )


def labels_of(values: dict) -> tuple[str, ...]:
    """Returns the names of a classifier's outputs, in order, from its parsed config.json.

    Raises BadInput if id2label does not name the outputs 0, 1, 2, ...
    """
    named = values.get("id2label")
    if named is None:
        return tuple(f"LABEL_{i}" for i in range(values.get("num_labels") or 2))
    try:
        by_number = {int(number): str(name) for number, name in named.items()}
        return tuple(by_number[i] for i in range(max(1, len(by_number))))
    except (ValueError, KeyError, AttributeError):
        raise BadInput(
            f"id2label={named!r} of config.json does not name the outputs 0, 1, 2, ...; correct it"
        ) from None


def probabilities(classifier: SequenceClassifier, params, batch) -> Float[Array, "batch labels"]:
    """Returns the probability of each label, float32."""
    logits = classifier.apply(params, batch)
    return jax.nn.sigmoid(logits) if classifier.multi_label else jax.nn.softmax(logits)
