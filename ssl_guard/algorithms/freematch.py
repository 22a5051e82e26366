"""FreeMatch: self-adaptive thresholds and fairness (Wang et al., arXiv 2205.07246, section 3).

    q = softmax(z(weak)), without gradient, y = argmax q; Q = softmax(z(strong)), Y = argmax Q
    tau = m tau + (1 - m) mean_u max q              equation 5, starts at 1/C
    p~ = m p~ + (1 - m) mean_u q                    equation 6, starts at 1/C
    T(c) = tau * p~(c) / max_c p~(c)                equation 7
    h~ = m h~ + (1 - m) histogram_u(y)              equation 11, starts at 1/C
    keep_u = 1[max q >= T(y)]
    p_ = mean_u keep_u Q, h_ = histogram_u(keep_u Y)           equations 9 and 10
    L_f = sum_c N(p~ / h~)_c log N(p_ / h_)_c, N(x) = x / sum x           equation 12
    L = mean_b CE(y_b, p(x_b)) + lambda_u mean_u keep_u CE(y, p(strong)) + w_f L_f

Statistics are updated first and used in the same step. L_f is minus a cross-entropy: minimising it
drives the strong predictions away from the shares p~ / h~ the classes have, against collapse. Its
gradient flows through p_ alone. As in the authors' code a class with h_ = 0 gets ratio 0, and the
logarithm is of N + 1e-12, so that such a class adds a constant; L_f is 0 when nothing is kept.

w_f = 0.001 is that of USB on text; the authors' code has 0.01 as its default.

The optional quantile and the clipping of tau in the authors' code are left out: the paper's
equations have neither.

State: nothing per pool example.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssl_guard.algorithms.base import (
    Algorithm,
    Collectives,
    Target,
    batch_mean,
    hard_labels,
    moving_average,
    weak_to_strong_terms,
)
from ssl_guard.algorithms.losses import Term


def make(
    *, momentum: float = 0.999, fairness_weight: float = 0.001, unlabelled_weight: float = 1.0
) -> Algorithm:
    """Builds the method.

    momentum: m in [0, 1); fairness_weight: w_f >= 0; unlabelled_weight: lambda_u >= 0.
    """

    def target(state, logits, batch, clock, across):
        q = jax.nn.softmax(logits["weak"])
        labels = hard_labels(q)
        state = update(state, q, batch["weight"], across, momentum=momentum)
        threshold = (labels * class_thresholds(state)[None]).sum(axis=-1)
        keep = (q.max(axis=-1) >= threshold).astype(jnp.float32)

        # The fairness loss is a function of the whole batch, so its value and its slope in p_ are
        # found here, over all devices.
        strong = jax.nn.softmax(logits["strong"])
        kept = keep[..., None]
        probs, _ = batch_mean(kept * strong, batch["weight"], across)
        histogram, _ = batch_mean(kept * hard_labels(strong), batch["weight"], across)
        fairness = jax.vmap(jax.value_and_grad(fairness_loss))
        value, slope = fairness(probs, histogram, state["probs"], state["histogram"])
        counted = keep * (batch["weight"] > 0)[:, None]
        return state, Target(labels, keep, {"fairness": value, "slope": slope, "keep": counted})

    def loss(logits, target, batch, clock):
        terms = weak_to_strong_terms(logits, target, batch, unlabelled_weight)
        return terms | {"fairness": fairness_term(logits["strong"], target, batch)}

    def fairness_term(strong, target, batch):
        # Every row carries the batch's value plus the first-order part of its own share of p_: the
        # mean over rows then has exactly the value and the gradient of L_f.
        probs = jax.nn.softmax(strong)
        own = (target.extra["slope"][None] * (probs - jax.lax.stop_gradient(probs))).sum(axis=-1)
        losses = target.extra["fairness"][None] + target.extra["keep"] * own
        return Term(losses.mean(axis=1), batch["weight"], batch["weight"], fairness_weight)

    return Algorithm(("weak", "strong"), init_state, target, loss)


def init_state(pool_size: int, num_classes: int, num_heads: int) -> dict:
    """confidence: float32 [heads], tau; probs, histogram: float32 [heads, classes], p~ and h~."""
    del pool_size
    per_class = jnp.full((num_heads, num_classes), 1 / num_classes, jnp.float32)
    return {"confidence": per_class[:, 0], "probs": per_class, "histogram": per_class}


def update(
    state: dict,
    q: Float[Array, "batch heads classes"],
    weight: Float[Array, " batch"],
    across: Collectives,
    *,
    momentum: float,
) -> dict:
    """Updates the moving averages by a batch; ignores rows of weight 0."""
    rows = {"confidence": q.max(axis=-1), "probs": q, "histogram": hard_labels(q)}
    means = {name: batch_mean(values, weight, across) for name, values in rows.items()}
    return {
        name: moving_average(state[name], *mean, momentum=momentum) for name, mean in means.items()
    }


def class_thresholds(state: dict) -> Float[Array, "heads classes"]:
    """Computes T(c) of every head."""
    probs = state["probs"]
    return state["confidence"][:, None] * probs / probs.max(axis=-1, keepdims=True)


def fairness_loss(
    kept_probs: Float[Array, " classes"],
    kept_histogram: Float[Array, " classes"],
    probs: Float[Array, " classes"],
    histogram: Float[Array, " classes"],
) -> Float[Array, ""]:
    """Computes L_f of p_, h_, p~ and h~; 0 where h_ is empty."""
    log_ratio = jnp.log(_normalised_ratio(kept_probs, kept_histogram) + 1e-12)
    value = (_normalised_ratio(probs, histogram) * log_ratio).sum()
    return jnp.where(kept_histogram.sum() > 0, value, 0.0)


def _normalised_ratio(probs, histogram):
    """Computes N(probs / histogram) with 0 for the classes that do not occur."""
    ratio = jnp.where(histogram > 0, probs / jnp.where(histogram > 0, histogram, 1.0), 0.0)
    total = ratio.sum()
    return ratio / jnp.where(total > 0, total, 1.0)
