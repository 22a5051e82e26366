"""Pi-model (Laine and Aila, arXiv 1610.02242, section 2.1): two noisy passes must agree.

    q = softmax(z(u; noise 1)), without gradient
    L = mean_b CE(y_b, p(x_b)) + lambda_u r(t) mean_u mean_c (p_c(u; noise 2) - q_c)^2
    r(t) = min(1, t / (ramp T))                     linear over the first `ramp` of the run

The noise is dropout, drawn anew for the weak and the strong view, and whatever
`config.augment.ops` does to the text ("identity": nothing).

The paper differentiates both passes, which doubles the expected gradient of this loss, includes the
labelled rows, and ramps by exp(-5 (1 - t / ramp)^2). The one-sided form on unlabelled rows, the
linear ramp and lambda_u = 10 are those of google-research/mixmatch and USB.
"""

import jax
import jax.numpy as jnp

from ssl_guard.algorithms.base import Algorithm, Target, no_state, weak_to_strong_terms
from ssl_guard.algorithms.losses import squared_error
from ssl_guard.algorithms.ramps import linear_ramp


def make(*, unlabelled_weight: float = 10.0, ramp: float = 0.4) -> Algorithm:
    """Builds the method.

    unlabelled_weight: lambda_u >= 0; ramp: share of the run in [0, 1] over which it grows from
    0, 0 for none."""

    def target(state, logits, batch, clock, across):
        q = jax.nn.softmax(logits["weak"])
        return state, Target(q, jnp.ones(q.shape[:2]))

    def loss(logits, target, batch, clock):
        coefficient = unlabelled_weight * linear_ramp(clock.progress, until=ramp)
        return weak_to_strong_terms(logits, target, batch, coefficient, squared_error)

    return Algorithm(("weak", "strong"), no_state, target, loss)
