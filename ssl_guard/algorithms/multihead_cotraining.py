"""Multi-head co-training (Chen et al., AAAI 2022, arXiv 2107.04795), for any number of heads >= 2.

Each head is taught by the other heads, its teachers, where they agree on the weak view:

    y_k = argmax z_k(weak)                          head k's label, without gradient
    m_h = 1[all y_k, k != h, are one label y]       no confidence threshold
    L = sum_h mean_b CE(y_b, p_h(x_b)) + lambda_u sum_h mean_u m_h CE(y, p_h(strong))

With the paper's three heads the two others must agree. With more, `agreement` asks for all of them
or for more than half; with two heads, each is taught by the other on every row. The prediction is
the mean of the heads' logits.

Both sums over heads and the mean over all unlabelled rows, masked ones included, are those of the
authors' code. (A later reimplementation for text averages over the kept rows and over the heads: a
larger, noisier unlabelled loss where the heads rarely agree.) There each head sees an augmentation
of its own, which keeps the heads apart; here it sees the row's strong copy with dropout of its own.
"""

import jax.numpy as jnp
import numpy as np

from ssl_guard.algorithms.base import (
    Algorithm,
    Target,
    hard_labels,
    no_state,
    weak_to_strong_terms,
)
from ssl_guard.errors import BadInput

AGREEMENTS = ("all", "majority")


def make(*, agreement: str = "all", unlabelled_weight: float = 1.0) -> Algorithm:
    """Builds the method.

    agreement: "all" or "majority" of the teachers; unlabelled_weight: lambda_u >= 0.

    Raises ValueError for another agreement.
    """
    if agreement not in AGREEMENTS:
        raise ValueError(f"unknown agreement {agreement!r}; use one of {', '.join(AGREEMENTS)}")

    def init_state(pool_size, num_classes, num_heads):
        teachers(num_heads)
        return no_state(pool_size, num_classes, num_heads)

    def target(state, logits, batch, clock, across):
        others = teachers(logits["weak"].shape[1])
        votes = hard_labels(logits["weak"])[:, others].sum(axis=2)
        needed = others.shape[1] if agreement == "all" else others.shape[1] // 2 + 1
        agree = (votes.max(axis=-1) >= needed).astype(jnp.float32)
        return state, Target(hard_labels(votes), agree)

    def loss(logits, target, batch, clock):
        # The shared term is a mean over heads; the paper's loss is their sum.
        coefficient = unlabelled_weight * target.weight.shape[1]
        return weak_to_strong_terms(logits, target, batch, coefficient)

    return Algorithm(("weak", "strong"), init_state, target, loss, view_per_head=True)


def teachers(num_heads: int) -> np.ndarray:
    """Computes int [heads, heads - 1]: row h lists the heads that teach head h, all but itself.

    Raises BadInput for fewer than two heads.
    """
    if num_heads < 2:
        raise BadInput(
            f"config.model.num_heads = {num_heads}: heads that teach each other must be at least 2."
        )
    return np.array([[k for k in range(num_heads) if k != h] for h in range(num_heads)])
