"""Per-example losses and their reduction to terms of the objective.

No function here averages over a batch: a method names the rows of its sum (`weights`) and of its
denominator (`counts`), because "mean over all unlabelled rows" and "mean over kept rows" are
different methods.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


class Term(NamedTuple):
    """One summand of the objective: `coefficient * sum(losses * weights) / max(sum(counts), 1)`.

    losses: float32 [batch]; weights: float32 [batch], 0 for rows without a gradient;
    counts: float32 [batch], the rows of the denominator; coefficient: scalar.
    """

    losses: Float[Array, " batch"]
    weights: Float[Array, " batch"]
    counts: Float[Array, " batch"]
    coefficient: Float[Array, ""] | float = 1.0


def weighted(losses: Float[Array, "*s"], weights: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Computes losses * weights with an exact zero (value and gradient) where the weight is zero.

    A plain product turns an infinite loss of a masked row into NaN.
    """
    return jnp.where(weights > 0, losses, 0.0) * weights


def kl_divergence(
    logits: Float[Array, "*batch classes"], probs: Float[Array, "*batch classes"]
) -> Float[Array, "*batch"]:
    """Computes KL(probs || softmax(logits)) in nats, float32; 0 log 0 = 0."""
    return optax.softmax_cross_entropy(logits, probs) - entropy(probs)


def squared_error(
    logits: Float[Array, "*batch classes"], probs: Float[Array, "*batch classes"]
) -> Float[Array, "*batch"]:
    """Computes mean_c (softmax(logits)_c - probs_c)^2, float32; a mean over classes, not a sum."""
    return jnp.square(jax.nn.softmax(logits.astype(jnp.float32)) - probs).mean(axis=-1)


def entropy(probs: Float[Array, "*batch classes"]) -> Float[Array, "*batch"]:
    """Computes -sum_c p_c log p_c in nats, with 0 log 0 = 0 (value and gradient)."""
    safe = jnp.where(probs > 0, probs, 1.0)
    return -jnp.sum(probs * jnp.log(safe), axis=-1)
