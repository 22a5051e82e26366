"""Self-training on soft labels that teachers have written before the run (evaluation/teach.py).

    q(u), w(u)                                      soft label and weight of each pool row, fixed
    L = lambda_l mean_b CE(y_b, p(x_b)) + mean_u w(u) CE(q(u), p(u))

The student is new: it starts from the pretrained encoder, and its teachers may have other features
than it (distillation, Hinton et al., arXiv 1503.02531; self-training with a new student each round,
Xie et al., Self-training with Noisy Student, arXiv 1911.04252). The mean is over all unlabelled
rows, those of weight 0 included.

The text is the strong view, the one that runs with gradient: `config.augment.ops = ("identity",)`
makes it the original text; any other op adds the noise of Noisy Student.
"""

import jax.numpy as jnp

from ssl_guard.algorithms.base import Algorithm, Target, no_state, weak_to_strong_terms


def make(*, supervised_weight: float = 0.5) -> Algorithm:
    """Builds the method.

    supervised_weight: lambda_l >= 0; the soft labels weigh 1. A batch holds soft_label, float32
    [batch], the harmful probability of each row, and soft_weight, float32 [batch].
    """

    def target(state, logits, batch, clock, across):
        heads = logits["strong"].shape[1]
        harmful = jnp.repeat(batch["soft_label"][:, None], heads, axis=1)
        weight = jnp.repeat(batch["soft_weight"][:, None], heads, axis=1)
        return state, Target(jnp.stack([1 - harmful, harmful], axis=-1), weight)

    def loss(logits, target, batch, clock):
        terms = weak_to_strong_terms(logits, target, batch, 1.0)
        return terms | {"supervised": terms["supervised"]._replace(coefficient=supervised_weight)}

    return Algorithm(("strong",), no_state, target, loss)
