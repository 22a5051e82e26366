"""Supervised training on the labelled rows alone: the baseline of every semi-supervised run.

L = mean_b CE(y_b, p(x_b))
"""

from ssl_guard.algorithms.base import Algorithm, no_state, supervised_term


def make() -> Algorithm:
    """Builds the method.

    No hyper-parameters, no unlabelled views, no state.
    """

    def target(state, logits, batch, clock, across):
        return state, None

    def loss(logits, target, batch, clock):
        return {"supervised": supervised_term(logits["labelled"], batch["labelled"])}

    return Algorithm((), no_state, target, loss)
