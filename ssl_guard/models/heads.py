"""Pooling over the real tokens and classification heads."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from ssl_guard.errors import BadInput
from ssl_guard.models.dropout import dropout
from ssl_guard.models.layers import ACTIVATIONS, dense, layer_norm

POOLINGS = ("cls", "mean")
HEADS = ("linear", "mlp", "hf")


def pool(
    hidden: Float[Array, "batch length width"],
    attention_mask: Int[Array, "batch length"],
    pooling: str,
) -> Float[Array, "batch width"]:
    """Returns the first token's state ("cls") or the mean over real tokens ("mean"), float32.

    The mean of a row without real tokens is 0.
    """
    hidden = hidden.astype(jnp.float32)
    if pooling == "cls":
        return hidden[:, 0]
    mask = (attention_mask > 0).astype(jnp.float32)[:, :, None]
    return (hidden * mask).sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)


def pool_packed(
    hidden: Float[Array, "rows length width"],
    text: Int[Array, "rows length"],
    position: Int[Array, "rows length"],
    row: Int[Array, " batch"],
    pooling: str,
) -> Float[Array, "batch width"]:
    """Pools every text of packed rows, in the order of `row`, float32.

    text: `row` of each token's text, -1 for padding; position: of each token in its text.
    """
    mine = text[None] == row[:, None, None]
    if pooling == "cls":
        mine = mine & (position == 0)[None]
    mine = mine.astype(jnp.float32)
    # A matrix product: segment_sum would be a scatter, with a gather as its gradient.
    total = jnp.einsum("brl,rlw->bw", mine, hidden.astype(jnp.float32))
    return total / jnp.maximum(mine.sum(axis=(1, 2)), 1)[:, None]


def of_task(
    logits: Float[Array, "batch all classes"], task: Int[Array, " batch"], num_tasks: int
) -> Float[Array, "batch heads classes"]:
    """Selects the logits of each row's task; the heads of a task are adjacent in `logits`."""
    by_task = logits.reshape(len(logits), num_tasks, -1, logits.shape[-1])
    return jnp.take_along_axis(by_task, task[:, None, None, None], axis=1)[:, 0]


class Hidden(NamedTuple):
    """The hidden layer of a head: dense, activation, and a LayerNorm if `norm`."""

    activation: str = "gelu"
    use_bias: bool = True
    norm: bool = False
    norm_bias: bool = True
    epsilon: float = 0.0


_ROBERTA = {"dense_{}": "classifier.dense", "output_{}": "classifier.out_proj"}
# The heads of AutoModelForSequenceClassification by model_type: HF names of their modules, the key
# of config.json with the activation ("" for none) and the default activation.
HF_HEADS = {
    "bert": ({"dense_{}": "bert.pooler.dense", "output_{}": "classifier"}, "", "tanh"),
    "roberta": (_ROBERTA, "", "tanh"),
    "xlm-roberta": (_ROBERTA, "", "tanh"),
    "camembert": (_ROBERTA, "", "tanh"),
    "distilbert": ({"dense_{}": "pre_classifier", "output_{}": "classifier"}, "", "relu"),
    "electra": (_ROBERTA, "", "gelu"),
    "mpnet": (_ROBERTA, "", "tanh"),
    "deberta-v2": (
        {"dense_{}": "pooler.dense", "output_{}": "classifier"},
        "pooler_hidden_act",
        "gelu",
    ),
    "modernbert": (
        {"dense_{}": "head.dense", "norm_{}": "head.norm", "output_{}": "classifier"},
        "classifier_activation",
        "gelu",
    ),
}


def hf_hidden(values: dict[str, Any], config) -> Hidden:
    """Returns the hidden layer of the head that transformers gives a model.

    values: its parsed config.json; config: the encoder's. Raises BadInput for an activation that is
    not supported.
    """
    names, key, default = HF_HEADS[values["model_type"]]
    modern = values["model_type"] == "modernbert"
    activation = values.get(key) or default
    if activation not in ACTIVATIONS:
        raise BadInput(
            f"{key}={activation!r} is not supported; supported are {', '.join(ACTIVATIONS)}"
        )
    return Hidden(
        activation=activation,
        use_bias=values.get("classifier_bias", False) if modern else True,
        norm="norm_{}" in names,
        norm_bias=config.norm_bias,
        epsilon=config.layer_norm_eps,
    )


class Heads(nn.Module):
    """Independent classification heads on one pooled vector, in float32.

    kind: "linear" is dropout and a dense layer; "mlp" is dropout, a dense layer of the same width,
        GELU and a dense layer; "hf" is the head of the encoder's family in transformers: a dense
        layer, activation, for ModernBERT a norm, dropout and a dense layer. (RoBERTa, ELECTRA and
        MPNet have a second dropout there, before the first layer.) All heads share one dropout mask
        (site 0).
    hidden: the hidden layer of "hf", see `hf_hidden`.
    """

    num_heads: int
    num_classes: int
    kind: str
    dropout: float
    hidden: Hidden = Hidden()

    @nn.compact
    def __call__(
        self,
        pooled: Float[Array, "batch width"],
        dropout_seeds: UInt32[Array, "batch 2"] | None = None,
    ) -> Float[Array, "batch heads classes"]:
        logits, hidden = [], self.hidden
        if self.kind != "hf":
            pooled = dropout(pooled, self.dropout, dropout_seeds, 0)
        for number in range(self.num_heads):
            x = pooled
            if self.kind != "linear":
                x = dense(x.shape[-1], "float32", f"dense_{number}", hidden.use_bias)(x)
                x = ACTIVATIONS[hidden.activation](x)
            if hidden.norm:
                x = layer_norm(hidden.epsilon, f"norm_{number}", hidden.norm_bias)(x)
            if self.kind == "hf":
                x = dropout(x, self.dropout, dropout_seeds, 0)
            logits.append(dense(self.num_classes, "float32", f"output_{number}")(x))
        return jnp.stack(logits, axis=1)


def rescaled(head: dict, count: int, slope: float, intercept: float) -> dict:
    """Returns the parameters of Heads whose mean logits are calibrated: the margin of class 1 over
    class 0 is slope * margin + intercept.

    count: of the classes to keep, from the first.
    """
    found = dict(head)
    for name, leaves in head.items():
        if name.startswith("output"):
            bias = slope * leaves["bias"][:count]
            bias = bias + intercept * (jnp.arange(count) == 1)
            found[name] = {"kernel": slope * leaves["kernel"][:, :count], "bias": bias}
    return found


def last_inputs(
    head: dict, pooled: Float[Array, "batch width"], number: int, hidden: Hidden
) -> Float[Array, "batch width"]:
    """Returns the input of the last layer of one of the `Heads`, float32, dropout off.

    head: the parameters of all; hidden: theirs.
    """
    if f"dense_{number}" not in head:
        return pooled
    layer = head[f"dense_{number}"]
    x = ACTIVATIONS[hidden.activation](pooled @ layer["kernel"] + layer.get("bias", 0))
    if not hidden.norm:
        return x
    norm = layer_norm(hidden.epsilon, "norm", hidden.norm_bias)
    return jnp.asarray(norm.apply({"params": head[f"norm_{number}"]}, x))
