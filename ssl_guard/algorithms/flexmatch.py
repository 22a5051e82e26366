"""FlexMatch: FixMatch with curriculum pseudo-labelling (Zhang et al., arXiv 2110.08263, section 3).

    q = softmax(z(weak)), without gradient          pseudo-label y = argmax q
    s_i = y whenever max q > tau, else as it was    last confident prediction of pool example i
    sigma(c) = #{i: s_i = c}, n = #{i: no s_i yet}
    beta(c) = sigma(c) / max_c sigma(c)             section 3.1
    beta(c) = sigma(c) / max(max_c sigma(c), n)     section 3.2, with thresh_warmup
    T(c) = tau * beta(c) / (2 - beta(c))            section 3.3
    L = mean_b CE(y_b, p(x_b)) + lambda_u mean_u 1[max q > T(y)] CE(y, p(strong))

A step takes T from the sigma of earlier steps and updates s and sigma afterwards, as in the paper's
algorithm 1. Both comparisons are strict as in the paper (the authors' code has >=). The code counts
s over the pool in every step; here sigma is kept and changed by the rows of the batch alone.

In a binary task max q >= 1/2, so that class c masks nothing while beta(c) < 0.69 (at tau = 0.95).
With thresh_warmup that is most of the first pass over the pool: a run has to be longer than that
for the curriculum to act.

State per pool example: 4 bytes a head.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssl_guard.algorithms.base import (
    Algorithm,
    Collectives,
    Target,
    hard_labels,
    weak_to_strong_terms,
)


def make(
    *, threshold: float = 0.95, thresh_warmup: bool = True, unlabelled_weight: float = 1.0
) -> Algorithm:
    """Builds the method.

    threshold: tau in [0, 1]; thresh_warmup: low thresholds while most of the pool has no
    confident prediction yet; unlabelled_weight: lambda_u >= 0.
    """

    def target(state, logits, batch, clock, across):
        q = jax.nn.softmax(logits["weak"])
        labels = hard_labels(q)
        thresholds = class_thresholds(state, threshold=threshold, thresh_warmup=thresh_warmup)
        keep = q.max(axis=-1) > (labels * thresholds[None]).sum(axis=-1)
        state = remember(state, q, batch, across, threshold=threshold)
        return state, Target(labels, keep.astype(jnp.float32))

    def loss(logits, target, batch, clock):
        return weak_to_strong_terms(logits, target, batch, unlabelled_weight)

    return Algorithm(("weak", "strong"), init_state, target, loss)


def init_state(pool_size: int, num_classes: int, num_heads: int) -> dict:
    """selected: int32 [pool, heads], the class of the last confident prediction, -1 for none yet;
    count: int32 [heads, classes], how often each class occurs in `selected`; examples: int32 [], in
    the pool, since `selected` may be padded."""
    return {
        "selected": jnp.full((pool_size, num_heads), -1, jnp.int32),
        "count": jnp.zeros((num_heads, num_classes), jnp.int32),
        "examples": jnp.int32(pool_size),
    }


def class_thresholds(
    state: dict, *, threshold: float, thresh_warmup: bool
) -> Float[Array, "heads classes"]:
    """Computes T(c) of every head; 0 while no prediction has been confident."""
    count = state["count"]
    most = count.max(axis=-1, keepdims=True)
    if thresh_warmup:
        unused = state["examples"] - count.sum(axis=-1, keepdims=True)
        most = jnp.maximum(most, unused)
    beta = count / jnp.maximum(most, 1)
    return threshold * beta / (2 - beta)


def remember(
    state: dict,
    q: Float[Array, "batch heads classes"],
    batch: dict,
    across: Collectives,
    *,
    threshold: float,
) -> dict:
    """Updates the state by the confident rows of the global batch; ignores rows of weight 0."""
    pool_size, num_classes = state["selected"].shape[0], q.shape[-1]
    label = jnp.where(q.max(axis=-1) > threshold, q.argmax(axis=-1), -1)
    index, weight, label = across.gather((batch["index"], batch["weight"], label))
    old = state["selected"][index]
    new = jnp.where((label >= 0) & (weight > 0)[:, None], label, old)
    # A row of weight 0 may be the second copy of an example: it is sent out of range and dropped.
    place = jnp.where(weight > 0, index, pool_size)
    one_hot = jax.nn.one_hot(jnp.stack([old, new]), num_classes, dtype=jnp.int32)  # -1: all zeros
    return state | {
        "selected": state["selected"].at[place].set(new, mode="drop"),
        "count": state["count"] + (one_hot[1] - one_hot[0]).sum(axis=0),
    }
