"""UDA, unsupervised data augmentation (Xie et al., arXiv 1904.12848, sections 2.2 and 2.3).

    q = softmax(z(weak)), q' = softmax(z(weak) / T), both without gradient
    m_u = 1[max q > beta]                           confidence mask, on the unsharpened q
    m_b = 1[p(y_b | x_b) <= eta_t]                  training signal annealing, see `tsa_threshold`
    L = sum_b m_b CE(y_b, p(x_b)) / max(sum_b m_b, 1) + lambda_u mean_u m_u KL(q' || p(strong))

The unlabelled mean is over all unlabelled rows, the supervised one over the rows TSA keeps, as in
the authors' code. (The reimplementation in USB divides by the whole batch, compares TSA with the
largest probability instead of the true class's, and never sharpens: it is not this method.)
"""

import jax
import jax.numpy as jnp

from ssl_guard.algorithms.base import Algorithm, Target, no_state, weak_to_strong_terms
from ssl_guard.algorithms.losses import kl_divergence
from ssl_guard.algorithms.ramps import TSA_SCHEDULES, tsa_threshold


def make(
    *,
    temperature: float = 0.85,
    confidence: float = 0.8,
    tsa: str = "linear",
    unlabelled_weight: float = 1.0,
) -> Algorithm:
    """Builds the method.

    temperature: T in (0, 1], 1 for no sharpening; confidence: beta, 0 keeps every row;
    tsa: one of none, linear, log, exp; unlabelled_weight: lambda_u >= 0.

    Raises ValueError for a TSA schedule that does not exist.
    """
    if tsa not in TSA_SCHEDULES:
        raise ValueError(f"unknown TSA schedule {tsa!r}; use one of {', '.join(TSA_SCHEDULES)}")

    def target(state, logits, batch, clock, across):
        keep = jax.nn.softmax(logits["weak"]).max(axis=-1) > confidence
        return state, Target(jax.nn.softmax(logits["weak"] / temperature), keep.astype(jnp.float32))

    def loss(logits, target, batch, clock):
        terms = weak_to_strong_terms(logits, target, batch, unlabelled_weight, kl_divergence)
        # p(y_b | x_b) of the mean over heads; one head is the ordinary case.
        probs = jax.nn.softmax(logits["labelled"]).mean(axis=1)
        correct = jnp.take_along_axis(probs, batch["labelled"]["label"][:, None], axis=1)[:, 0]
        threshold = tsa_threshold(clock.progress, schedule=tsa, num_classes=probs.shape[-1])
        keep = jax.lax.stop_gradient((correct <= threshold).astype(jnp.float32))
        weights = terms["supervised"].weights * keep
        return terms | {"supervised": terms["supervised"]._replace(weights=weights, counts=weights)}

    return Algorithm(("weak", "strong"), no_state, target, loss)
