"""Pooling over the real tokens and classification heads."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt32

from ssl_guard.models.dropout import dropout
from ssl_guard.models.layers import dense, gelu

POOLINGS = ("cls", "mean")
HEADS = ("linear", "mlp")


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


def last_inputs(
    head: dict, pooled: Float[Array, "batch width"], number: int
) -> Float[Array, "batch width"]:
    """Returns the input of the last layer of one of the `Heads`, float32, dropout off.

    head: the parameters of all.
    """
    if f"dense_{number}" not in head:
        return pooled
    dense = head[f"dense_{number}"]
    return gelu(pooled @ dense["kernel"] + dense["bias"])


class Heads(nn.Module):
    """Independent classification heads on one pooled vector, in float32.

    kind: "linear" is dropout and a dense layer; "mlp" is dropout, a dense layer of the same width,
        GELU and a dense layer. All heads share one dropout mask (site 0).
    """

    num_heads: int
    num_classes: int
    kind: str
    dropout: float

    @nn.compact
    def __call__(
        self,
        pooled: Float[Array, "batch width"],
        dropout_seeds: UInt32[Array, "batch 2"] | None = None,
    ) -> Float[Array, "batch heads classes"]:
        pooled = dropout(pooled, self.dropout, dropout_seeds, 0)
        logits = []
        for number in range(self.num_heads):
            x = pooled
            if self.kind == "mlp":
                x = gelu(dense(x.shape[-1], "float32", f"dense_{number}")(x))
            logits.append(dense(self.num_classes, "float32", f"output_{number}")(x))
        return jnp.stack(logits, axis=1)
