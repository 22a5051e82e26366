"""Mixup (Zhang et al., arXiv 1710.09412) over the rows of several views and over all devices, for
MixMatch, ReMixMatch, TMix and MixText."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from scipy.special import betaincinv

from ssl_guard.algorithms.base import Collectives, Target, consistency_term
from ssl_guard.algorithms.losses import Term

EXPONENTIAL = np.linspace(0, 17, 1025)  # float32 draws end at 16


class Mixture(NamedTuple):
    """Partners and shares of the rows of a batch: x <- share x + (1 - share) x[partner].

    row: int32 [rows], the rows' places in the global batch of all their views.
    partner: int32 [rows], a place among the rows of all devices.
    share: float32 [rows] in [1/2, 1].
    """

    row: Int[Array, " rows"]
    partner: Int[Array, " rows"]
    share: Float[Array, " rows"]


def draw_mixture(
    rng: jax.Array, batch: dict, views: tuple[str, ...], alpha: float, across: Collectives
) -> Mixture:
    """Draws a mixture of the views' rows, one view after the other.

    The partners are a random permutation of all rows of all devices, the shares are drawn for every
    row: max(b, 1 - b) with b ~ Beta(alpha, alpha). Both depend on rng and the row's place, not on
    the devices. A row whose partner has weight 0 is not mixed: its share is 1.
    """
    rows, weights, before = [], [], 0
    for view in views:
        rows.append(before + batch[view]["row"])
        weights.append(batch["labelled"]["weight"] if view == "labelled" else batch["weight"])
        before += across.gather(batch[view]["row"]).shape[0]
    row = jnp.concatenate(rows)
    places, weights = across.gather((row, jnp.concatenate(weights)))
    # The position of each row among the rows of all devices.
    position = jnp.zeros(before, jnp.int32).at[places].set(jnp.arange(before, dtype=jnp.int32))
    order, draw = jax.random.split(rng)
    partner = position[jax.random.permutation(order, before)[row]]
    share = larger_share(draw, alpha, before)[row]
    return Mixture(row, partner, jnp.where(weights[partner] > 0, share, 1.0))


def larger_share(rng: jax.Array, alpha: float, count: int) -> Float[Array, " count"]:
    """Computes max(b, 1 - b) with b ~ Beta(alpha, alpha), by its quantile function.

    That function of an exponential draw is smooth, so a table of it is exact to 4e-4.
    jax.random.beta takes seconds to compile, and a step is compiled for every bucket.
    """
    quantiles = 1 - betaincinv(alpha, alpha, np.exp(-EXPONENTIAL) / 2)
    return jnp.interp(jax.random.exponential(rng, (count,)), EXPONENTIAL, quantiles)


def mix(
    x: Float[Array, "rows ..."], mixture: Mixture, across: Collectives
) -> Float[Array, "rows ..."]:
    """Mixes the rows of x."""
    share = mixture.share.reshape(-1, *[1] * (x.ndim - 1))
    return (share * x + (1 - share) * across.gather(x)[mixture.partner]).astype(x.dtype)


def sharpen(
    probs: Float[Array, "*batch classes"], temperature: float
) -> Float[Array, "*batch classes"]:
    """Computes probs^(1 / temperature), normalised."""
    return jax.nn.softmax(jnp.log(probs) / temperature)


def mix_targets(
    label: Int[Array, " labelled"],
    guess: Float[Array, "unlabelled heads classes"],
    copies: int,
    mixture: Mixture,
    across: Collectives,
) -> Float[Array, "rows heads classes"]:
    """Mixes the targets of the labelled rows and of `copies` views of the unlabelled rows."""
    labels = jax.nn.one_hot(label, guess.shape[-1])[:, None]
    labels = jnp.broadcast_to(labels, (len(label), *guess.shape[1:]))
    return mix(jnp.concatenate([labels, *[guess] * copies]), mixture, across)


def mixed_terms(
    logits: Float[Array, "rows heads classes"],
    targets: Float[Array, "rows heads classes"],
    batch: dict,
    target: Target,
    unlabelled_loss: Callable,
    coefficient: Float[Array, ""] | float,
) -> dict[str, Term]:
    """Returns the two terms of a mixed batch: cross-entropy summed over heads on the labelled rows,
    and `unlabelled_loss` on the others, averaged over the views of a row."""
    labelled, size = batch["labelled"], len(batch["labelled"]["label"])
    supervised = optax.softmax_cross_entropy(logits[:size], targets[:size]).sum(axis=1)
    unlabelled = unlabelled_loss(logits[size:], targets[size:])
    unlabelled = unlabelled.reshape(-1, *target.weight.shape).mean(axis=0)
    return {
        "supervised": Term(supervised, labelled["weight"], labelled["weight"]),
        "unlabelled": consistency_term(unlabelled, target, batch, coefficient),
    }
