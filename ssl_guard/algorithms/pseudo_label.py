"""Pseudo-label (Lee, ICML 2013 workshop), with a confidence threshold.

    p = softmax(z(u)), y = argmax p                 label and gradient come from the same pass
    L = mean_b CE(y_b, p(x_b)) + lambda_u r(t) mean_u 1[max p >= tau] CE(y, p(u))
    r(t) = min(1, t / (ramp T))                     linear over the first `ramp` of the run

The mean is over all unlabelled rows, masked ones included. The paper has no threshold (tau = 0) and
a ramp between two steps; tau = 0.95 and this ramp are those of the comparisons that followed it
(google-research/mixmatch, USB).

The text is the strong view, the one that runs with gradient: `config.augment.ops = ("identity",)`
makes it the original text, and any other op gives pseudo-labels of the augmented one.
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
from ssl_guard.algorithms.ramps import linear_ramp


def make(
    *, threshold: float = 0.95, unlabelled_weight: float = 1.0, ramp: float = 0.4
) -> Algorithm:
    """Builds the method.

    threshold: tau in [0, 1]; unlabelled_weight: lambda_u >= 0; ramp: share of the run in [0, 1]
    over which lambda_u grows from 0, 0 for none."""

    def target(state, logits, batch, clock, across):
        p = jax.nn.softmax(logits["strong"])
        keep = (p.max(axis=-1) >= threshold).astype(jnp.float32)
        return state, Target(hard_labels(p), keep)

    def loss(logits, target, batch, clock):
        coefficient = unlabelled_weight * linear_ramp(clock.progress, until=ramp)
        return weak_to_strong_terms(logits, target, batch, coefficient)

    return Algorithm(("strong",), no_state, target, loss)
