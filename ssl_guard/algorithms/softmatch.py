"""SoftMatch: a Gaussian of the confidence as weight (Chen et al., arXiv 2301.10921, section 3).

    q = softmax(z(weak)), without gradient          pseudo-label y = argmax q
    p~ = m p~ + (1 - m) mean_u q                    starts at the first batch's mean
    a = N(q / (C p~)), N(x) = x / sum x             uniform alignment, for the weight only
    mu = m mu + (1 - m) mean_u max a                starts at 1/C
    v = m v + (1 - m) var_u max a                   unbiased variance, starts at 1
    w = exp(-min(max a - mu, 0)^2 / (2 v / n^2))    1 from mu upwards, n standard deviations steep
    L = mean_b CE(y_b, p(x_b)) + lambda_u mean_u w CE(y, p(strong))

All statistics are updated first and used in the same step. n = n_sigma = 2 is from the authors'
code; the paper's formula is n_sigma = 1, and its largest weight lambda_max is unlabelled_weight
here. The 1e-6 in the alignment is theirs too. A batch of one row has no variance and leaves v as it
is.

State: nothing per pool example.
"""

import jax
import jax.numpy as jnp

from ssl_guard.algorithms.base import (
    Algorithm,
    Target,
    batch_mean,
    hard_labels,
    moving_average,
    weak_to_strong_terms,
)


def make(
    *, momentum: float = 0.999, n_sigma: float = 2.0, unlabelled_weight: float = 1.0
) -> Algorithm:
    """Builds the method.

    momentum: m in [0, 1); n_sigma: n >= 0, 0 weighs all rows alike; unlabelled_weight:
    lambda_u >= 0."""

    def target(state, logits, batch, clock, across):
        q = jax.nn.softmax(logits["weak"])
        mean, count = batch_mean(q, batch["weight"], across)
        probs = jnp.where(
            state["probs"].sum() > 0, moving_average(state["probs"], mean, count, momentum), mean
        )
        aligned = q * ((1 / q.shape[-1] + 1e-6) / (probs + 1e-6))[None]
        confidence = (aligned / aligned.sum(axis=-1, keepdims=True)).max(axis=-1)

        mean, count = batch_mean(confidence, batch["weight"], across)
        mu = moving_average(state["mean"], mean, count, momentum)
        squares, _ = batch_mean((confidence - mean[None]) ** 2, batch["weight"], across)
        unbiased = squares * count / jnp.maximum(count - 1, 1.0)
        variance = moving_average(state["variance"], unbiased, count - 1, momentum)

        below = jnp.minimum(confidence - mu[None], 0.0)
        weight = jnp.exp(-(below**2) * n_sigma**2 / (2 * jnp.maximum(variance, 1e-12)[None]))
        state = {"mean": mu, "variance": variance, "probs": probs}
        return state, Target(hard_labels(q), weight)

    def loss(logits, target, batch, clock):
        return weak_to_strong_terms(logits, target, batch, unlabelled_weight)

    return Algorithm(("weak", "strong"), init_state, target, loss)


def init_state(pool_size: int, num_classes: int, num_heads: int) -> dict:
    """mean, variance: float32 [heads], mu and v; probs: float32 [heads, classes], p~, 0 before the
    first batch."""
    del pool_size
    return {
        "mean": jnp.full(num_heads, 1 / num_classes, jnp.float32),
        "variance": jnp.ones(num_heads, jnp.float32),
        "probs": jnp.zeros((num_heads, num_classes), jnp.float32),
    }
