"""TMix (Chen et al., ACL 2020, arXiv 2004.12239, section 3): MixText on the labelled rows alone.

    h_m = s h_m(x) + (1 - s) h_m(x')                s = max(s', 1 - s'), s' ~ Beta(a, a)
    L = mean_b CE(s onehot y_b + (1 - s) onehot y_pi(b), p(mixture of x_b and x_pi(b)))

Layers, shares, permutation, padding and where this differs from the authors' code: see `mixtext`.

State: nothing, and no unlabelled rows.
"""

import optax

from ssl_guard.algorithms.base import Algorithm, no_state
from ssl_guard.algorithms.losses import Term
from ssl_guard.algorithms.mixtext import DEPTHS, check_depths, mix_hidden
from ssl_guard.algorithms.mixup import mix_targets


def make(*, alpha: float = 16.0, depths: tuple[float, ...] = DEPTHS) -> Algorithm:
    """Builds the method.

    alpha: a > 0, large for shares near one half; depths: shares of the layers, in (0, 1].

    Raises ValueError for a depth outside (0, 1].
    """
    check_depths(depths)

    def forward(stages, params, batch, clock, across):
        logits, mixture = mix_hidden(
            stages, params, batch, ("labelled",), clock, across, alpha, depths
        )
        labels = mix_targets(batch["labelled"]["label"], logits, 0, mixture, across)
        return {"mixed": logits, "labels": labels, "mixture": mixture}

    def target(state, logits, batch, clock, across):
        return state, None

    def loss(logits, target, batch, clock):
        losses = optax.softmax_cross_entropy(logits["mixed"], logits["labels"]).sum(axis=1)
        weight = batch["labelled"]["weight"]
        return {"supervised": Term(losses, weight, weight)}

    return Algorithm((), no_state, target, loss, forward=forward)
