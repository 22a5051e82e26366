"""MarginMatch (Sosea and Caragea, CVPR 2023, arXiv 2308.09037): FlexMatch whose pseudo-labels must
also have a good average pseudo-margin over the example's visits.

    PM(z)_c = z_c - max_{c' != c} z_c'              pseudo-margin of the logits z of the weak view
    A_i <- s PM(z) + (1 - s) A_i, t_i <- t_i + 1    s = delta / (1 + t_i), all 0 at first
    m_u = 1[max q > T(y)] 1[A_i[y] >= gamma[y]]     y = argmax q, T as in `flexmatch`
    L = mean_b CE(y_b, p(x_b)) + lambda_u mean_u m_u CE(y, p(strong))

A and t are updated first, then used. With delta = 1, A_i is the arithmetic mean over all visits.
`threshold` selects the source of gamma:

fixed: gamma = `cutoff`. With 0, the default, a first visit always passes, as A_i[y] is y's own
    margin: this is FlexMatch but for examples whose predicted class flips from visit to visit.
agreement: gamma[c] = quantile of {A_i[c] : at i's last visit, c was the prediction on the weak and
    on the strong view}, taken at the end of each epoch of the pool. Never below 0; 0 for an empty
    set and in the first epoch. It is MultiMatch's rule with the two views as the two teachers.
virtual: the paper's. The classifier has one more output, a class that no text belongs to. A random
    set E, `virtual_share` of the pool (at most 1 / C), is taught that class, with the share of the
    other rows that pass both masks as its weight. It can only be memorised, so gamma is a
    high quantile, over E, of the class's margins averaged since E was drawn: a margin that wrong
    labels reach too. Taken at each epoch's end, 0 until then. Before progress `warmup` there is no
    E and no margin mask; E is drawn anew every `redraw_epochs`; from progress 0.9 on it is empty
    and gamma stays. Margins are over all C + 1 outputs, q and the prediction over C. A row of E
    leaves its A and t, and FlexMatch's memory, as they are.

The authors' code divides the 95th percentile by 100 twice, which makes it nearly the maximum; takes
a negative second-largest logit for 0; counts unvisited examples of E as margin 0; and draws exactly
|E| examples where here each one is drawn with that probability. The reimplementation in a fork of
USB (gamma = 0) uses s = delta / (1 + epoch) and overwrites A_i[y] with 1 for accepted rows.

State per pool example, H heads: 4 H (C + 1) + 4 bytes; agreement: 4 H more; virtual: 4 H + 8 more.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ssl_guard.algorithms import flexmatch
from ssl_guard.algorithms.base import (
    Algorithm,
    Target,
    batch_mean,
    consistency_term,
    hard_labels,
    weak_to_strong_terms,
)
from ssl_guard.errors import BadInput

THRESHOLDS = ("fixed", "agreement", "virtual")


def make(
    *,
    threshold: str = "fixed",
    cutoff: float = 0.0,
    agreement_quantile: float = 0.05,
    virtual_quantile: float = 0.95,
    virtual_share: float = 0.01,
    redraw_epochs: int = 10,
    warmup: float = 0.08,
    smoothness: float = 0.997,
    confidence: float = 0.95,
    thresh_warmup: bool = True,
    unlabelled_weight: float = 1.0,
) -> Algorithm:
    """Builds the method.

    threshold: fixed (reads cutoff), agreement (reads agreement_quantile) or virtual (reads the
    virtual_ ones, redraw_epochs >= 1 and warmup, a progress); quantiles and shares in [0, 1];
    smoothness: delta in (0, 1]; confidence: tau of FlexMatch, thresh_warmup: also its;
    unlabelled_weight: lambda_u >= 0.

    Raises ValueError for another threshold.
    """
    if threshold not in THRESHOLDS:
        raise ValueError(f"unknown threshold {threshold!r}; use one of {', '.join(THRESHOLDS)}")
    virtual = threshold == "virtual"

    def init_state(pool_size, num_classes, num_heads):
        gamma = cutoff if threshold == "fixed" else 0.0
        state = {
            "flexmatch": flexmatch.init_state(pool_size, num_classes, num_heads),
            "margins": jnp.zeros((pool_size, num_heads, num_classes)),
            "visits": jnp.zeros(pool_size, jnp.int32),
            "cutoff": jnp.full((num_heads, num_classes), gamma),
        }
        if threshold == "agreement":
            state["agreed"] = jnp.full((pool_size, num_heads), -1, jnp.int32)
        if virtual:
            state["virtual_margin"] = jnp.zeros((pool_size, num_heads))
            state["virtual_visits"] = jnp.zeros(pool_size, jnp.int32)
            state["virtual_draw"] = jnp.full(pool_size, -1, jnp.int32)
            state["draw"] = {"number": jnp.int32(-1), "seed": jnp.int32(0)}
        return state

    def target(state, logits, batch, clock, across):
        weak, index = logits["weak"], batch["index"]
        num_classes = state["margins"].shape[-1]
        if weak.shape[-1] != num_classes + virtual:
            raise BadInput(
                f"marginmatch with threshold {threshold!r} needs {num_classes + virtual} outputs a "
                f"head but the model has {weak.shape[-1]}: build it with algorithm.extra_classes."
            )
        q = jax.nn.softmax(weak[..., :num_classes])
        labels = hard_labels(q)
        curve = flexmatch.class_thresholds(
            state["flexmatch"], threshold=confidence, thresh_warmup=thresh_warmup
        )
        confident = q.max(axis=-1) > (labels * curve[None]).sum(axis=-1)

        # Rows that are taught the virtual class are excluded from everything else.
        erroneous = jnp.zeros(index.shape, bool)
        if virtual:
            state = state | {"draw": draw_again(state["draw"], clock)}
            drawn = is_drawn(index, state["draw"]["seed"], min(virtual_share, 1 / num_classes))
            erroneous = drawn & estimates(clock)
        ordinary = batch | {"weight": jnp.where(erroneous, 0.0, batch["weight"])}

        memory = flexmatch.remember(state["flexmatch"], q, ordinary, across, threshold=confidence)
        state = remember_margins(state, weak, ordinary, across) | {"flexmatch": memory}
        gamma = (labels * state["cutoff"][None]).sum(axis=-1)
        passes = (labels * state["margins"][index]).sum(axis=-1) >= gamma
        if threshold == "agreement":
            state = remember_agreement(state, logits, batch, clock, across)
        if virtual:
            passes |= clock.progress < warmup
            rows = batch | {"weight": jnp.where(erroneous, batch["weight"], 0.0)}
            state = remember_virtual(state, weak, rows, clock, across)
        keep = (confident & passes).astype(jnp.float32)
        share, _ = batch_mean(keep, ordinary["weight"], across)
        erroneous = erroneous[:, None].astype(jnp.float32)
        return state, Target(labels, keep * (1 - erroneous), erroneous * share[None])

    def remember_margins(state, weak, batch, across):
        index, weight, weak = across.gather((batch["index"], batch["weight"], weak))
        margins, visits = state["margins"], state["visits"]
        before = visits[index]
        new = pseudo_margins(weak)[..., : margins.shape[-1]]
        new = running_mean(margins[index], new, before, smoothness)
        # A row of weight 0 may be an example's second copy: it is sent out of range and dropped.
        place = jnp.where(weight > 0, index, visits.shape[0])
        return state | {
            "margins": margins.at[place].set(new, mode="drop"),
            "visits": visits.at[place].set(before + 1, mode="drop"),
        }

    def remember_agreement(state, logits, batch, clock, across):
        label = jnp.argmax(logits["weak"], axis=-1)
        agreed = jnp.where(label == jnp.argmax(logits["strong"], axis=-1), label, -1)
        index, weight, agreed = across.gather((batch["index"], batch["weight"], agreed))
        place = jnp.where(weight > 0, index, state["visits"].shape[0])
        agreed = state["agreed"].at[place].set(agreed, mode="drop")

        def recalibrate():
            cutoffs = [
                agreement_cutoffs(state["margins"][:, [h]], agreed[:, h], agreement_quantile)
                for h in range(agreed.shape[1])
            ]
            return jnp.maximum(jnp.stack(cutoffs), 0.0)

        cutoff = jax.lax.cond(clock.epoch_ends, recalibrate, lambda: state["cutoff"])
        return state | {"agreed": agreed, "cutoff": cutoff}

    def estimates(clock):
        return (clock.progress >= warmup) & (clock.progress < 0.9)

    def draw_again(draw, clock):
        number = clock.epoch // redraw_epochs
        seed = jax.random.randint(jax.random.fold_in(clock.rng, 3), (), 0, 2**31 - 1)
        seed = jnp.where(number == draw["number"], draw["seed"], seed)
        return {"number": number, "seed": seed}

    def remember_virtual(state, weak, batch, clock, across):
        draw = state["draw"]["number"]
        index, weight, weak = across.gather((batch["index"], batch["weight"], weak))
        # Values of an earlier draw of E are reset.
        fresh = state["virtual_draw"][index] != draw
        visits = jnp.where(fresh, 0, state["virtual_visits"][index])
        old = jnp.where(fresh[:, None], 0.0, state["virtual_margin"][index])
        new = running_mean(old, pseudo_margins(weak)[..., -1], visits, smoothness)
        place = jnp.where(weight > 0, index, state["visits"].shape[0])
        margin = state["virtual_margin"].at[place].set(new, mode="drop")
        draws = state["virtual_draw"].at[place].set(draw, mode="drop")

        def recalibrate():
            of_draw = draws == draw
            quantiles = [masked_quantile(m, of_draw, virtual_quantile) for m in margin.T]
            gamma = jnp.broadcast_to(jnp.stack(quantiles)[:, None], state["cutoff"].shape)
            return jnp.where(of_draw.any(), gamma, state["cutoff"])

        due = clock.epoch_ends & estimates(clock)
        return state | {
            "virtual_margin": margin,
            "virtual_visits": state["virtual_visits"].at[place].set(visits + 1, mode="drop"),
            "virtual_draw": draws,
            "cutoff": jax.lax.cond(due, recalibrate, lambda: state["cutoff"]),
        }

    def loss(logits, target, batch, clock):
        strong = logits["strong"]
        probs = jnp.pad(target.probs, ((0, 0), (0, 0), (0, int(virtual))))
        padded = target._replace(probs=probs)
        terms = weak_to_strong_terms(logits, padded, batch, unlabelled_weight)
        if virtual:
            losses = -jax.nn.log_softmax(strong)[..., -1]
            taught = target._replace(weight=target.extra)
            terms["virtual"] = consistency_term(losses, taught, batch, unlabelled_weight)
        return terms

    return Algorithm(("weak", "strong"), init_state, target, loss, extra_classes=int(virtual))


def pseudo_margins(logits: Float[Array, "*batch classes"]) -> Float[Array, "*batch classes"]:
    """Computes PM of every class: its logit minus the largest of the others."""
    top = jax.lax.top_k(logits.astype(jnp.float32), 2)[0]
    best = hard_labels(logits) > 0
    return jnp.where(best, top[..., :1] - top[..., 1:], logits - top[..., :1])


def running_mean(
    old: Float[Array, "batch *shape"],
    new: Float[Array, "batch *shape"],
    visits: Int[Array, " batch"],
    smoothness: float,
) -> Float[Array, "batch *shape"]:
    """Computes s new + (1 - s) old with s = smoothness / (1 + visits) and the earlier visits."""
    step = (smoothness / (1 + visits)).reshape(-1, *[1] * (old.ndim - 1))
    return step * new + (1 - step) * old


def masked_quantile(
    values: Float[Array, " n"], mask: Bool[Array, " n"], quantile: float | Float[Array, ""]
) -> Float[Array, ""]:
    """Computes np.quantile(values[mask], quantile, method="linear"); 0 for an empty set."""
    last = jnp.maximum(mask.sum() - 1, 0)
    position = quantile * last.astype(jnp.float32)
    low = position.astype(jnp.int32)
    below = order_statistic(values, mask, low)
    above = order_statistic(values, mask, jnp.minimum(low + 1, last))
    return jnp.where(mask.any(), below + (above - below) * (position - low), 0.0)


def order_statistic(
    values: Float[Array, " n"], mask: Bool[Array, " n"], rank: Int[Array, ""]
) -> Float[Array, ""]:
    """Computes np.sort(values[mask])[rank] bit by bit.

    It takes 32 counts. A sort would gather values that are split over devices on each of them.
    """
    bits = jax.lax.bitcast_convert_type(values, jnp.uint32)
    sign = np.uint32(1 << 31)
    ordered = jnp.where(bits < sign, bits | sign, ~bits)  # unsigned numbers in the values' order

    def narrow(place, found):
        trial = found | (sign >> place.astype(jnp.uint32))
        smaller = (mask & (ordered < trial)).sum()
        return jnp.where(smaller <= rank, trial, found)

    found = jax.lax.fori_loop(0, 32, narrow, jnp.uint32(0))
    bits = jnp.where(found < sign, ~found, found ^ sign)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def agreement_cutoffs(
    margins: Float[Array, "pool teachers classes"],
    agreed: Int[Array, " pool"],
    quantile: float | Float[Array, ""],
) -> Float[Array, " classes"]:
    """Computes the quantile of margins[i, :, c] over the examples with agreed[i] == c, for each c.

    The margins of all teachers are pooled; a class without examples has 0. Call it once an epoch.
    """

    def of_class(c):
        mask = jnp.broadcast_to((agreed == c)[:, None], margins.shape[:2])
        return masked_quantile(margins[:, :, c].ravel(), mask.ravel(), quantile)

    return jax.lax.map(of_class, jnp.arange(margins.shape[-1]))


def is_drawn(
    index: Int[Array, " batch"], seed: Int[Array, ""], share: float | Float[Array, ""]
) -> Bool[Array, " batch"]:
    """Draws the pool examples of this seed's random set, each with probability `share`."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), index)
    return jax.vmap(jax.random.uniform)(keys) < share
