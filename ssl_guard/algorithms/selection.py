"""Selection of pseudo-labels by rank instead of a threshold on the confidence.

    s_c = z_c - max_{c' != c} z_c'                  margins of the pseudo-labelled view, per head
    p_c = share of class c among the labelled rows of all steps so far
    k_c = m k_c + (1 - m) quantile_u(s_c; 1 - r p_c)            m = min(0.9, t / (t + 1)), step t
    y = argmax_c (s_c - k_c), used if s_y >= k_y and no other class is as far above its cut-off

So the most confident share r of the pool is used, with the classes in the shares of the labelled
rows, however over-confident or one-sided the model is. Class-balanced self-training (Zou et al.,
ECCV 2018, arXiv 1810.07911) ranks the rows of every predicted class in the same way, over the whole
pool. A batch is too small for that, so the quantiles are averaged over the last ten or so; a share
r p_c of less than a row of a batch is not resolved. Cut-offs are updated first, then used.

State: heads (2 classes) + 1 floats; nothing per pool example.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ssl_guard.algorithms.base import Algorithm, Collectives, hard_labels
from ssl_guard.algorithms.marginmatch import masked_quantile, pseudo_margins
from ssl_guard.errors import BadInput

MOMENTUM = 0.9  # of the averaged quantiles
CONFIDENCE = (
    "pseudo_label", "uda", "fixmatch", "flexmatch", "freematch", "softmatch", "adamatch", "dash",
    "simmatch",
)  # fmt: skip
# These also select by margins of earlier visits, or by agreement of heads.
FURTHER = ("marginmatch", "multihead_cotraining", "multimatch")


def by_rank(name: str, algorithm: Algorithm, share: float) -> Algorithm:
    """Returns the algorithm `name` with its use of pseudo-labels decided by rank.

    A hard pseudo-label becomes the class whose end the row is in; a soft one stays. Methods of
    FURTHER use a row only if their own rule does too, and keep its label; set their confidence to 0
    to be rid of it. share: r in (0, 1].

    Raises BadInput for a method that selects no pseudo-labels.
    """
    if name not in CONFIDENCE + FURTHER:
        raise BadInput(
            f"{name} selects no pseudo-labels: set config.train.selection = 'threshold'."
        )
    view = "weak" if "weak" in algorithm.views else "strong"

    def init_state(pool_size, num_classes, num_heads, **sizes):
        return {
            "method": algorithm.init_state(pool_size, num_classes, num_heads, **sizes),
            "rank": {
                "cutoff": jnp.zeros((num_heads, num_classes)),
                "labelled": jnp.zeros(num_classes),
                "steps": jnp.zeros(()),
            },
        }

    def target(state, logits, batch, clock, across):
        method, target = algorithm.target(state["method"], logits, batch, clock, across)
        margins = pseudo_margins(logits[view][..., : target.probs.shape[-1]])
        rank = update(state["rank"], margins, batch, across, share)
        labels, keep = select(margins, rank["cutoff"])
        weight = keep.astype(jnp.float32)
        if name in FURTHER:
            return {"method": method, "rank": rank}, target._replace(weight=weight * target.weight)
        hard = target.probs.max(axis=-1, keepdims=True) == 1
        probs = jnp.where(hard, labels, target.probs)
        return {"method": method, "rank": rank}, target._replace(probs=probs, weight=weight)

    return algorithm._replace(init_state=init_state, target=target)


def update(
    state: dict,
    margins: Float[Array, "batch heads classes"],
    batch: dict,
    across: Collectives,
    share: float,
) -> dict:
    """Updates the labelled shares and the cut-offs; ignores rows of weight 0."""
    labelled, classes = batch["labelled"], margins.shape[-1]
    counts = jax.nn.one_hot(labelled["label"], classes) * labelled["weight"][:, None]
    counts = state["labelled"] + across.sum(counts.sum(axis=0))
    quantile = 1 - share * counts / jnp.maximum(counts.sum(), 1.0)
    margins, weight = across.gather((margins, batch["weight"]))

    def of_class(values, quantile):
        return masked_quantile(values, weight > 0, quantile)

    of_head = jax.vmap(of_class, in_axes=(1, 0))
    found = jax.vmap(of_head, in_axes=(1, None))(margins, quantile)
    steps = state["steps"] + (weight > 0).any()
    momentum = jnp.minimum(MOMENTUM, state["steps"] / jnp.maximum(steps, 1.0))
    momentum = jnp.where(steps > state["steps"], momentum, 1.0)
    cutoff = momentum * state["cutoff"] + (1 - momentum) * found
    return {"cutoff": cutoff, "labelled": counts, "steps": steps}


def select(
    margins: Float[Array, "batch heads classes"], cutoff: Float[Array, "heads classes"]
) -> tuple[Float[Array, "batch heads classes"], Bool[Array, "batch heads"]]:
    """Returns the one-hot class whose cut-off a row exceeds most, and whether the row is used."""
    above = margins - cutoff[None]
    top = jax.lax.top_k(above, 2)[0]
    return hard_labels(above), (top[..., 0] >= 0) & (top[..., 0] > top[..., 1])
