"""FixMatch (Sohn et al., arXiv 2001.07685, equations 3 and 4).

    q = softmax(z(weak)), without gradient          pseudo-label argmax q, kept if max q >= tau
    L = mean_b CE(y_b, p(x_b)) + lambda_u mean_u 1[max q >= tau] CE(argmax q, p(strong))

The mean is over all unlabelled rows, masked ones included.
"""

import jax
import jax.numpy as jnp

from ssl_guard.algorithms.base import (
    Algorithm,
    Target,
    hard_labels,
    no_state,
    weak_to_strong_terms,
)


def make(*, threshold: float = 0.95, unlabelled_weight: float = 1.0) -> Algorithm:
    """Builds the method.

    threshold: tau in [0, 1]; unlabelled_weight: lambda_u >= 0.
    """

    def target(state, logits, batch, clock, across):
        q = jax.nn.softmax(logits["weak"])
        keep = (q.max(axis=-1) >= threshold).astype(jnp.float32)
        return state, Target(hard_labels(q), keep)

    def loss(logits, target, batch, clock):
        return weak_to_strong_terms(logits, target, batch, unlabelled_weight)

    return Algorithm(("weak", "strong"), no_state, target, loss)
