"""The contract between an algorithm and the train step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from ssl_guard.algorithms.losses import Term, weighted


class Target(NamedTuple):
    """The target of the strong view. No gradient flows through it.

    probs: float32 [batch, heads, classes], a one-hot row for a hard pseudo-label.
    weight: float32 [batch, heads] >= 0; 0 means the row is not used (masked).
    extra: arrays of the method's own that its loss needs, such as statistics of the global batch.
    """

    probs: Float[Array, "batch heads classes"]
    weight: Float[Array, "batch heads"]
    extra: Any = None


class StepInfo(NamedTuple):
    """The position of a step in the run, less its supervised start.

    step: int32 [], updates done so far
    progress: float32 [], step / total steps
    epoch: int32 [], completed passes over the unlabelled pool
    epoch_ends: bool [], whether this step is the last of a pass
    rng: the step's key, the same on all devices. fold_in(rng, n) with n < 3 is the dropout key of a
        view, see `dropout_key`; a method's own draws use n >= 3.
    """

    step: Int[Array, ""]
    progress: Float[Array, ""]
    epoch: Int[Array, ""]
    epoch_ends: Bool[Array, ""]
    rng: Any = None


class Collectives(NamedTuple):
    """Reductions over the devices of the caller's axis; identities outside pmap and shard_map,
    where an array is the global one already.

    sum(x): the sum over devices; gather(x): all devices' rows, in order, [global batch, ...].
    """

    sum: Callable[[Any], Any]
    gather: Callable[[Any], Any]


NO_COLLECTIVES = Collectives(lambda x: x, lambda x: x)


class Algorithm(NamedTuple):
    """A semi-supervised method as pure functions; see `algorithms/fixmatch.py` for a short one.

    views: the views of the unlabelled rows that it needs: "weak" runs without gradient, "strong"
        with; () for none.
    init_state(pool_size, num_classes, num_heads) -> state: a pytree of fixed-shape arrays. Arrays
        of per-example state are indexed by the example's position in the unlabelled pool.
    target(state, logits, batch, clock, across) -> (state, Target): runs under stop_gradient.
        `logits` has "labelled" and the views, float32 [batch, heads, classes]; `batch` has "index"
        (int32 [batch], position in the pool) and "weight" (float32 [batch], 0 for padding and for
        the second copy of an example).
    loss(logits, target, batch, clock) -> {"supervised": Term, "unlabelled": Term, ...}: `logits`
        has "labelled" and, if asked for, "strong".
    extra_classes: outputs of a head beyond num_classes, last in `logits`. They are in no label, no
        Target and no prediction; only the method's loss uses them.
    teacher: whose weights run the weak view: "student", the current ones, or "ema", their average.
    view_per_head: whether the strong view runs once for every head, with dropout of its own.
    forward(stages, params, batch, clock, across) -> logits: for a method that needs more than one
        pass per view (noise on the words, mixed rows, features). It replaces the train step's
        passes and runs with gradient; its result is the `logits` of target and loss, and `views`
        only names the views that a batch holds. stages: the model in parts, see
        `models.Stages`. Such a method's init_state also gets, by keyword, labelled_size, the number
        of labelled rows, and width, of the features.
    logistic_head: 0 if the steps train the head; else the head is not trained by them but fitted
        on the labelled rows' features, by logistic regression with this C, at every evaluation.
    """

    views: tuple[str, ...]
    init_state: Callable[..., Any]
    target: Callable[..., tuple[Any, Target | None]]
    loss: Callable[..., dict[str, Term]]
    extra_classes: int = 0
    teacher: str = "student"
    view_per_head: bool = False
    forward: Callable[..., dict] | None = None
    logistic_head: float = 0.0


def no_state(pool_size: int, num_classes: int, num_heads: int, **sizes: int) -> dict:
    """Returns the empty state of a method without state."""
    del pool_size, num_classes, num_heads, sizes
    return {}


def dropout_key(rng: jax.Array, view: str) -> jax.Array:
    """Returns the dropout key of a view in the step whose key is `rng`."""
    return jax.random.fold_in(rng, ("labelled", "weak", "strong").index(view))


def supervised_term(labelled_logits: Float[Array, "batch heads classes"], labelled: dict) -> Term:
    """Returns the cross-entropy of the labelled rows, summed over heads, mean over rows."""
    labels = jax.nn.one_hot(labelled["label"], labelled_logits.shape[-1])[:, None]
    losses = optax.softmax_cross_entropy(labelled_logits, labels).sum(axis=1)
    return Term(losses, labelled["weight"], labelled["weight"])


def hard_labels(probs: Float[Array, "*batch classes"]) -> Float[Array, "*batch classes"]:
    """Returns the one-hot argmax; the lower class wins a tie."""
    return jax.nn.one_hot(jnp.argmax(probs, axis=-1), probs.shape[-1])


def batch_mean(
    rows: Float[Array, "batch *shape"], weights: Float[Array, " batch"], across: Collectives
) -> tuple[Float[Array, "*shape"], Float[Array, ""]]:
    """Returns the mean over the global batch's rows of weight 1 (the others have 0), and their
    number."""
    counts = weights.reshape(-1, *[1] * (rows.ndim - 1)) > 0
    total, count = across.sum((jnp.where(counts, rows, 0.0).sum(axis=0), weights.sum()))
    return total / jnp.maximum(count, 1.0), count


def moving_average(
    average: Float[Array, "*shape"],
    mean: Float[Array, "*shape"],
    count: Float[Array, ""],
    momentum: float,
) -> Float[Array, "*shape"]:
    """Returns momentum * average + (1 - momentum) * mean, or `average` if the mean has no rows."""
    return jnp.where(count > 0, momentum * average + (1 - momentum) * mean, average)


def consistency_term(
    losses: Float[Array, "batch heads"],
    target: Target,
    batch: dict,
    coefficient: Float[Array, ""] | float,
) -> Term:
    """Returns weighted losses, mean over heads and all unlabelled rows, masked ones included."""
    per_row = weighted(losses, target.weight).mean(axis=1)
    return Term(per_row, batch["weight"], batch["weight"], coefficient)


def weak_to_strong_terms(
    logits: dict[str, Any],
    target: Target,
    batch: dict,
    coefficient: Float[Array, ""] | float,
    loss_fn: Callable[[Any, Any], Any] = optax.softmax_cross_entropy,
) -> dict[str, Term]:
    """Returns the supervised term, and the term of loss_fn(strong logits, target probabilities)."""
    losses = loss_fn(logits["strong"], target.probs)
    return {
        "supervised": supervised_term(logits["labelled"], batch["labelled"]),
        "unlabelled": consistency_term(losses, target, batch, coefficient),
    }
