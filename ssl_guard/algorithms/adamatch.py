"""AdaMatch for semi-supervised learning (Berthelot et al., arXiv 2106.04732, section 3).

    p = softmax(z(labelled)), q = softmax(z(weak)), both without gradient
    p~ = m p~ + (1 - m) mean_b p, q~ = m q~ + (1 - m) mean_u q            both start at 1/C
    a = N(q p~ / q~), N(x) = x / sum x              distribution alignment, y = argmax a
    c = tau * mean_b max p                          relative confidence threshold, of this batch
    mu(t) = 1/2 - cos(min(pi, 2 pi t / T)) / 2      ramp of the unlabelled loss, 1 from T/2 on
    L = mean_b CE(y_b, p(x_b)) + lambda_u mu(t) mean_u 1[max a >= c] CE(y, p(strong))

The averages are updated first and used in the same step, with 1e-6 added to both.

Left out of the paper: (1) Random logit interpolation, z = r z' + (1 - r) z'' with random r, where
z' is from a forward pass of labelled and unlabelled rows together and z'' from one of the labelled
rows alone. The two differ by the batch statistics of BatchNorm only: an encoder with LayerNorm has
z' = z'', and a second pass would interpolate between dropout masks. (2) The strong view of labelled
rows: labelled texts are not augmented.

The authors' code averages q over the last 128 batches; here q has the moving average of p, so that
both sides of the ratio cover the same steps. (The reimplementation in USB has tau = 0.95, no ramp,
and starts q~ at the first batch's mean but p~ at 1/C: its first steps align to uniform shares.)

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
    *, threshold: float = 0.9, momentum: float = 0.999, unlabelled_weight: float = 1.0
) -> Algorithm:
    """Builds the method.

    threshold: tau in [0, 1], relative to the mean confidence on labelled rows; momentum: m in
    [0, 1); unlabelled_weight: lambda_u >= 0."""

    def target(state, logits, batch, clock, across):
        p, q = jax.nn.softmax(logits["labelled"]), jax.nn.softmax(logits["weak"])
        weight = batch["labelled"]["weight"]
        labelled = moving_average(
            state["labelled"], *batch_mean(p, weight, across), momentum=momentum
        )
        unlabelled = moving_average(
            state["unlabelled"], *batch_mean(q, batch["weight"], across), momentum=momentum
        )
        aligned = q * ((labelled + 1e-6) / (unlabelled + 1e-6))[None]
        aligned = aligned / aligned.sum(axis=-1, keepdims=True)
        confidence, _ = batch_mean(p.max(axis=-1), weight, across)
        keep = aligned.max(axis=-1) >= threshold * confidence[None]
        state = {"labelled": labelled, "unlabelled": unlabelled}
        return state, Target(hard_labels(aligned), keep.astype(jnp.float32))

    def loss(logits, target, batch, clock):
        ramp = 0.5 - jnp.cos(jnp.minimum(jnp.pi, 2 * jnp.pi * clock.progress)) / 2
        return weak_to_strong_terms(logits, target, batch, unlabelled_weight * ramp)

    return Algorithm(("weak", "strong"), init_state, target, loss)


def init_state(pool_size: int, num_classes: int, num_heads: int) -> dict:
    """labelled, unlabelled: float32 [heads, classes], p~ and q~."""
    del pool_size
    return {
        name: jnp.full((num_heads, num_classes), 1 / num_classes, jnp.float32)
        for name in ("labelled", "unlabelled")
    }
