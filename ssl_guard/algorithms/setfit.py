"""SetFit's contrastive phase (Tunstall et al., arXiv 2209.11055, section 3): few-shot learning
without unlabelled rows, a strong baseline for the semi-supervised methods.

    L = 1/2 mean_{ij: y_i = y_j} (f_i . f_j - 1)^2 + 1/2 mean_{ij: y_i != y_j} (f_i . f_j)^2

f: pooled features of unit length, with dropout. Both means are over pairs of different labelled
rows of the batch; a row that occurs twice is no pair. The steps fine-tune the encoder alone; the
head is a logistic regression on the labelled rows' features, see `baselines`.

The authors draw R = 20 pairs of each kind for every row ahead of time, in equal numbers, and train
the whole encoder with a learning rate of 2e-5 for one epoch of batches of 16 pairs, which is 2.5
steps a row. Here a step takes all pairs of its batch, so that one pass of the encoder compares a
row with batch - 1 others, and the two means weigh the kinds equally. Batches have to be random:
sorted by length (`config.data.sort_by_length`) they hold only pairs of like length.

State: nothing, and no unlabelled rows.
"""

import jax.numpy as jnp

from ssl_guard.algorithms.base import Algorithm, dropout_key, no_state
from ssl_guard.algorithms.losses import Term
from ssl_guard.algorithms.simmatch import unit


def make(*, C: float = 1.0) -> Algorithm:
    """Builds the method.

    C: inverse of the logistic regression's L2 penalty, as in scikit-learn.

    Raises ValueError for a C that is not positive.
    """
    if not C > 0:
        raise ValueError(f"C = {C} must be positive")

    def forward(stages, params, batch, clock, across):
        rows = batch["labelled"]
        features = stages.features(params, rows, dropout_key(clock.rng, "labelled"), True)
        features = unit(features)
        others = {name: rows[name] for name in ("index", "label", "weight")}
        others, columns = across.gather((others, features))
        pairs = rows["weight"][:, None] * others["weight"][None]
        return {
            "cosine": features @ columns.T,
            "same": (rows["label"][:, None] == others["label"][None]).astype(jnp.float32),
            "pairs": pairs * (rows["index"][:, None] != others["index"][None]),
        }

    def target(state, logits, batch, clock, across):
        return state, None

    def loss(logits, target, batch, clock):
        cosine, same, pairs = logits["cosine"], logits["same"], logits["pairs"]
        error = jnp.square(cosine - same)

        def mean_over(kind):
            return Term((error * kind).sum(axis=1), jnp.ones(len(error)), kind.sum(axis=1), 0.5)

        return {"positive": mean_over(pairs * same), "negative": mean_over(pairs * (1 - same))}

    return Algorithm((), no_state, target, loss, forward=forward, logistic_head=C)
