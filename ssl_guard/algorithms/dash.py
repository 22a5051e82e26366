"""Dash, dynamic thresholding of the loss (Xu et al., ICML 2021, arXiv 2109.00650).

    Steps 0 .. W - 1: labelled rows alone.
    rho^ = mean CE(y_b, p(x_b)) over the labelled rows of the last E of these steps
    k = floor((step - W) / n), rho = max(C gamma^-k rho^, rho_min)
    q = softmax(z(weak)), without gradient
    y = softmax(z(weak) / T) while rho > rho_min, the one-hot argmax q from then on
    L = mean_b CE(y_b, p(x_b)) + lambda_u mean_u 1[CE(y, q) <= rho] CE(y, p(strong))

The paper's theory lowers rho at every step, decay_every_steps = 1; its experiments every so many
epochs of 1024 steps, the default here being 10 of them. At the floor, CE(y, q) = -log max q, so
that rho_min = 0.05 is FixMatch with tau = exp(-0.05) = 0.951.

rho^ is the loss of the labelled training rows at the end of the warm-up. It is gathered inside the
step, so dropout is on and the weights move a little from the first to the last of the E batches.
(The reimplementation in USB takes the loss on the evaluation set, which is not the method's.)

State: nothing per pool example.
"""

import jax
import jax.numpy as jnp
import optax

from ssl_guard.algorithms.base import (
    Algorithm,
    Target,
    batch_mean,
    hard_labels,
    weak_to_strong_terms,
)


def make(
    *,
    warmup_steps: int = 2048,
    estimate_steps: int = 128,
    decay_every_steps: int = 10240,
    gamma: float = 1.27,
    scale: float = 1.0001,
    rho_min: float = 0.05,
    temperature: float = 0.5,
    unlabelled_weight: float = 1.0,
) -> Algorithm:
    """Builds the method.

    warmup_steps: W >= 1; estimate_steps: E in [1, W], best one pass over the labelled rows;
    decay_every_steps: n >= 1; gamma: > 1; scale: C >= 1; rho_min: > 0; temperature: T in (0, 1];
    unlabelled_weight: lambda_u >= 0.

    Raises ValueError for a warm-up that gives no rho^ and for a rho that does not fall.
    """
    if not 1 <= estimate_steps <= warmup_steps:
        raise ValueError(
            f"estimate_steps = {estimate_steps} must be from 1 to warmup_steps = {warmup_steps}"
        )
    if decay_every_steps < 1 or gamma <= 1:
        raise ValueError(
            f"decay_every_steps = {decay_every_steps} must be at least 1 and gamma = {gamma} more "
            "than 1"
        )

    def target(state, logits, batch, clock, across):
        state = estimate(state, logits["labelled"], batch["labelled"], clock, across)
        first = state["loss"] / jnp.maximum(state["rows"], 1.0)
        decays = jnp.maximum(clock.step - warmup_steps, 0) // decay_every_steps
        rho = jnp.maximum(scale * gamma ** -decays.astype(jnp.float32) * first, rho_min)[None]

        hard = hard_labels(logits["weak"])
        soft = jax.nn.softmax(logits["weak"] / temperature)
        probs = jnp.where((rho > rho_min)[..., None], soft, hard)
        easy = optax.softmax_cross_entropy(logits["weak"], probs) <= rho
        keep = easy & (clock.step >= warmup_steps)
        return state, Target(probs, keep.astype(jnp.float32))

    def estimate(state, logits, labelled, clock, across):
        """Adds the labelled rows of this step to rho^ if it is one of the last of the warm-up."""
        labels = jax.nn.one_hot(labelled["label"], logits.shape[-1])
        losses = optax.softmax_cross_entropy(logits, labels[:, None])
        mean, rows = batch_mean(losses, labelled["weight"], across)
        counts = (clock.step >= warmup_steps - estimate_steps) & (clock.step < warmup_steps)
        return {
            "loss": state["loss"] + jnp.where(counts, mean * rows, 0.0),
            "rows": state["rows"] + jnp.where(counts, rows, 0.0),
        }

    def loss(logits, target, batch, clock):
        return weak_to_strong_terms(logits, target, batch, unlabelled_weight)

    return Algorithm(("weak", "strong"), init_state, target, loss)


def init_state(pool_size: int, num_classes: int, num_heads: int) -> dict:
    """loss: float32 [heads], sum of the labelled losses behind rho^; rows: float32 [], how many."""
    del pool_size, num_classes
    return {"loss": jnp.zeros(num_heads, jnp.float32), "rows": jnp.zeros((), jnp.float32)}
