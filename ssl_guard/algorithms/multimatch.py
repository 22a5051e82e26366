"""MultiMatch (Sirbu et al., EMNLP 2025, arXiv 2506.07801), for any number of heads >= 2.

Multi-head co-training whose pseudo-labels are selected and weighted by three criteria: agreement of
the teachers, their average pseudo-margin (MarginMatch) and their confidence (FreeMatch).
Each head h is taught by all other heads k. Per step, for head k and example i of the batch:

    A_k,i <- s PM(z_k(weak)) + (1 - s) A_k,i        s = delta / (1 + t_i), see `marginmatch`
    y_k = argmax z_k(weak)                          remembered per example
    pass_k = 1[A_k,i[y_k] >= cut_h[y_k]]
    w = 1     where all teachers agree and pass                     useful and easy
    w = w_d   where the teachers that pass, at least one, agree     useful and difficult
    w = 0     elsewhere, and in the first epoch, which has no cut-offs yet
    sat_k = 1[max q_k >= tau_k p_k[y_k] / max p_k]  self-adaptive threshold, see `freematch`
    W_h = w * (sat of any teacher)                  `aux` "or"; "and": of all; "none": no such mask
    L = sum_h mean_b CE(y_b, p_h(x_b)) + lambda_u mean_h mean_u W_h CE(y, p_h(strong))

y is the label of the teachers that pass. Margins, counts, tau and p are updated first, then used.
At the end of each epoch of the pool, over all examples seen so far, with each one's last y_k:

    cut_h[c] = quantile of {A_k,i[c] : k teaches h, y_k = c for all teachers of i}

linearly interpolated, at least 0 unless `no_low`, 0 for an empty set.

With three heads this is the published rule case by case: two teachers that pass and agree weigh 1,
one that passes weighs w_d whether the other agrees or not, none or two that contradict each other
weigh 0. With more heads the same holds: a pseudo-label needs a passing teacher and no passing
teacher against it, and is easy if all teachers pass and agree. With two heads a row weighs 1 where
its one teacher passes; none is difficult.

The authors' code differs: it moves tau and p twice a step, as each head teaches two others; an
empty class stops the update of the classes after it; A moves by delta / (1 + epoch), so that an
example first seen late has a small margin and fails the cut-off: `step_rule` "global_epoch" does
that, "per_example" counts visits as MarginMatch does. lambda_u = 3 and no_low are those of its text
runs. In the safety paper's code an epoch is a pass over the labelled rows, lambda_u is 1 and
cut-offs are never negative.

State per example: 4 (heads * classes + heads + 1) bytes, 40 for 3 heads and 2 classes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ssl_guard.algorithms import freematch
from ssl_guard.algorithms.base import (
    Algorithm,
    Target,
    hard_labels,
    weak_to_strong_terms,
)
from ssl_guard.algorithms.marginmatch import agreement_cutoffs, pseudo_margins, running_mean
from ssl_guard.algorithms.multihead_cotraining import teachers

STEP_RULES = ("per_example", "global_epoch")
AUX_MASKS = {"or": jnp.any, "and": jnp.all, "none": None}


def make(
    *,
    quantile: float = 0.05,
    difficult_weight: float = 3.0,
    smoothness: float = 0.997,
    step_rule: str = "per_example",
    no_low: bool = True,
    aux: str = "or",
    momentum: float = 0.999,
    unlabelled_weight: float = 3.0,
) -> Algorithm:
    """Builds the method.

    quantile: of the agreement set, in [0, 1]; difficult_weight: w_d >= 0; smoothness: delta in
    (0, 1]; no_low: cut-offs may be negative; momentum: m of FreeMatch; unlabelled_weight: lambda_u.

    Raises ValueError for a step_rule or an aux that does not exist.
    """
    for name, value, known in (("step_rule", step_rule, STEP_RULES), ("aux", aux, AUX_MASKS)):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}; use one of {', '.join(known)}")

    def init_state(pool_size, num_classes, num_heads):
        teachers(num_heads)
        return {
            "margins": jnp.zeros((pool_size, num_heads, num_classes)),
            "label": jnp.full((pool_size, num_heads), -1, jnp.int32),
            "visits": jnp.zeros(pool_size, jnp.int32),
            "cutoff": jnp.zeros((num_heads, num_classes)),
            "freematch": freematch.init_state(pool_size, num_classes, num_heads),
        }

    def target(state, logits, batch, clock, across):
        weak = logits["weak"]
        others = teachers(weak.shape[1])
        state = remember(state, weak, batch, clock, across)
        labels, margins = jnp.argmax(weak, axis=-1), state["margins"][batch["index"]]
        probs, weight = judge(labels, margins, state["cutoff"], difficult_weight)
        if aux != "none":
            q = jax.nn.softmax(weak)
            thresholds = freematch.class_thresholds(state["freematch"])
            sure = q.max(axis=-1) >= (hard_labels(q) * thresholds[None]).sum(axis=-1)
            weight *= AUX_MASKS[aux](sure[:, others], axis=-1)
        weight = jnp.where(clock.epoch > 0, weight, 0.0)
        cutoff = jax.lax.cond(
            clock.epoch_ends,
            lambda: cutoffs(state["margins"], state["label"], quantile, no_low),
            lambda: state["cutoff"],
        )
        return state | {"cutoff": cutoff}, Target(probs, weight)

    def remember(state, weak, batch, clock, across):
        confidence = freematch.update(
            state["freematch"], jax.nn.softmax(weak), batch["weight"], across, momentum=momentum
        )
        index, weight, weak = across.gather((batch["index"], batch["weight"], weak))
        margins, visits = state["margins"], state["visits"]
        before = visits[index]
        count = before if step_rule == "per_example" else jnp.full_like(before, clock.epoch)
        new = running_mean(margins[index], pseudo_margins(weak), count, smoothness)
        # A row of weight 0 may be an example's second copy: it is sent out of range and dropped.
        place = jnp.where(weight > 0, index, visits.shape[0])
        return state | {
            "margins": margins.at[place].set(new, mode="drop"),
            "label": state["label"].at[place].set(jnp.argmax(weak, axis=-1), mode="drop"),
            "visits": visits.at[place].set(before + 1, mode="drop"),
            "freematch": confidence,
        }

    def loss(logits, target, batch, clock):
        return weak_to_strong_terms(logits, target, batch, unlabelled_weight)

    return Algorithm(("weak", "strong"), init_state, target, loss)


def judge(
    labels: Int[Array, "batch heads"],
    margins: Float[Array, "batch heads classes"],
    cutoff: Float[Array, "heads classes"],
    difficult_weight: float | Float[Array, ""],
) -> tuple[Float[Array, "batch heads classes"], Float[Array, "batch heads"]]:
    """Returns the one-hot pseudo-label of each row and taught head, and its weight 0, 1 or w_d.

    labels: the heads' predictions; margins: their average pseudo-margins A; cutoff: cut_h[c].
    """
    num_heads, num_classes = cutoff.shape
    others = teachers(num_heads)
    own = jnp.take_along_axis(margins, labels[..., None], axis=-1)[..., 0]  # A_k[y_k]
    taught = np.arange(num_heads)[None, :, None]
    passes = own[:, others] >= cutoff[taught, labels[:, others]]  # [batch, heads, teachers]
    votes = jax.nn.one_hot(labels[:, others], num_classes) * passes[..., None]
    votes = votes.sum(axis=2)
    most, passing = votes.max(axis=-1), passes.sum(axis=-1)
    useful = (passing > 0) & (most == passing)  # no passing teacher against another
    easy = most == others.shape[1]
    return hard_labels(votes), jnp.where(easy, 1.0, jnp.where(useful, difficult_weight, 0.0))


def cutoffs(
    margins: Float[Array, "pool heads classes"],
    label: Int[Array, "pool heads"],
    quantile: float,
    no_low: bool,
) -> Float[Array, "heads classes"]:
    """Computes cut_h[c] of every head; label is -1 where an example has not been seen."""

    def of_head(others):
        theirs = label[:, others]
        agreed = jnp.where((theirs == theirs[:, :1]).all(axis=1), theirs[:, 0], -1)
        return agreement_cutoffs(margins[:, others], agreed, quantile)

    cutoff = jax.lax.map(of_head, jnp.asarray(teachers(label.shape[1])))
    return cutoff if no_low else jnp.maximum(cutoff, 0.0)
