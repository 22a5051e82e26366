"""Loads fine-tuned text classifiers (AutoModelForSequenceClassification) for inference.

Examples are unitary/toxic-bert, Prompt Guard and HarmAug. The head is "hf" of heads.py, with one
output per label.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssl_guard.errors import BadInput
from ssl_guard.models import convert
from ssl_guard.models.architectures import read_config
from ssl_guard.models.classifier import build
from ssl_guard.models.encoder_config import EncoderConfig
from ssl_guard.models.heads import POOLINGS
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


PROBLEMS = (None, "single_label_classification", "multi_label_classification")


def load_sequence_classifier(
    name_or_folder: str | Path, *, dtype: str = "float32"
) -> SequenceClassifier:
    """Loads a classifier from safetensors files; dtype: of the encoder's matrix products.

    Raises BadInput if the folder, the weights or the head are missing, and for unsupported options.
    """
    folder = resolve(name_or_folder)
    config, _ = read_config(folder)
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    modern = values["model_type"] == "modernbert"
    pooling = values.get("classifier_pooling", "cls") if modern else "cls"
    problem = values.get("problem_type")
    for option, value, known in (
        ("classifier_pooling", pooling, POOLINGS),
        ("problem_type", problem, PROBLEMS),
    ):
        if value not in known:
            raise BadInput(
                f"{folder / 'config.json'}: {option}={value!r} is not supported; supported are "
                f"{', '.join(str(choice) for choice in known)}"
            )
    labels = labels_of(values)
    model = build(
        folder, num_classes=len(labels), pooling=pooling, head="hf", dropout=0.0, dtype=dtype
    )
    token = jnp.zeros((1, 1), jnp.int32)
    batch = {name: token for name in ("input_ids", "attention_mask", "token_type_ids")}
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    params = {
        "encoder": convert.load(folder, shapes["encoder"], config.hf_names),
        "head": convert.load_classification_head(folder, shapes["head"], model.hf_head),
    }

    def apply(params, batch):
        pooled = model.stages.features(params, batch, None, False)
        return model.stages.classify(params, pooled, None, None, False)[:, 0]

    return SequenceClassifier(
        apply=apply,
        params=jax.tree.map(jnp.array, params),
        labels=labels,
        # As in transformers' pipeline, a single output is a sigmoid too.
        multi_label=problem == "multi_label_classification" or len(labels) == 1,
        config=config,
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
