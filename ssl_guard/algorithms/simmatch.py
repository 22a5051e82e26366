"""SimMatch (Zheng et al., arXiv 2203.06915, section 3): predictions, and similarities to the
labelled rows, correct each other.

    p = N(softmax(z(weak)) / p~)                    p~: its mean over the last `window` steps
    g_i = N_i(exp(f(weak) . b_i / T))               b_i: the bank's feature of labelled row i
    p^_c = alpha p_c + (1 - alpha) sum_{i of class c} g_i
    g^_i = N_i(g_i p_{class of i})
    L = mean_b CE(y_b, p(x_b)) + lambda_u mean_u 1[max p^ >= tau] CE(p^, p(strong))
        + lambda_i mean_u CE(g^, N_i(exp(f(strong) . b_i / T)))
    b_i <- unit(m b_i + (1 - m) f_i)                0 before the row's first visit

N(x) = x / sum x; f: pooled features of unit length. p^, g^ and the bank are without gradient. p~ is
updated before it is used, the bank after, as in the authors' code. While there are labelled rows
that have never been visited the bank is not read: p^ = p, and no similarity loss (the authors leave
out the whole first epoch). A row that occurs twice in a batch enters the bank by its mean.

The features are those of the encoder. The paper projects them to 128 numbers with a head of its
own; a method has no parameters here, and the pooled states of a sentence encoder are made to be
compared by cosine. The teacher is the student with another dropout mask, with the averaging bank
that the paper has for this case (m = 0.7); the EMA teacher of its ImageNet runs is left out. With
several heads the mean of their p corrects the similarities, which are one for all.

State: per labelled row 4 width + 4 bytes, and window C floats; nothing per pool example.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ssl_guard.algorithms.base import (
    Algorithm,
    Target,
    batch_mean,
    dropout_key,
    weak_to_strong_terms,
)
from ssl_guard.algorithms.losses import Term
from ssl_guard.errors import BadInput


def make(
    *,
    threshold: float = 0.95,
    temperature: float = 0.1,
    alpha: float = 0.9,
    momentum: float = 0.7,
    window: int = 32,
    unlabelled_weight: float = 1.0,
    similarity_weight: float = 1.0,
) -> Algorithm:
    """Builds the method.

    threshold: tau in [0, 1]; temperature: T > 0 of the similarities; alpha: share of the
    prediction in its correction, in [0, 1]; momentum: m of the bank, in [0, 1); window: steps that
    p~ is averaged over; unlabelled_weight, similarity_weight: lambda_u, lambda_i >= 0."""

    def forward(stages, params, batch, clock, across):
        out = {}
        for view in ("labelled", "weak", "strong"):
            rows, key = batch[view], dropout_key(clock.rng, view)
            features = stages.features(params, rows, key, True)
            out[view] = stages.classify(params, features, rows["row"], key, True)
            out[f"{view}_features"] = unit(features)
        return out

    def target(state, logits, batch, clock, across):
        p = jax.nn.softmax(logits["weak"])
        mean, count = batch_mean(p.mean(axis=1), batch["weight"], across)
        place = clock.step % window
        mean = jnp.where(count > 0, mean, state["unlabelled"][place])
        unlabelled = state["unlabelled"].at[place].set(mean)
        p = p / (unlabelled.sum(axis=0) + 1e-6)[None, None]  # a sum: N drops the factor
        p = p / p.sum(axis=-1, keepdims=True)

        bank, classes = state["bank"], jax.nn.one_hot(state["labels"], p.shape[-1])
        ready = (state["labels"] >= 0).all()
        similarities = jax.nn.softmax(logits["weak_features"] @ bank.T / temperature)
        corrected = alpha * p + (1 - alpha) * (similarities @ classes)[:, None]
        corrected = jnp.where(ready, corrected, p)
        similarities = similarities * (p.mean(axis=1) @ classes.T)
        total = similarities.sum(axis=-1, keepdims=True)
        similarities = similarities / jnp.where(total > 0, total, 1.0)

        keep = (corrected.max(axis=-1) >= threshold).astype(jnp.float32)
        state = update_bank(state, logits["labelled_features"], batch, across, momentum)
        extra = {"similarities": similarities, "bank": bank, "ready": ready}
        return state | {"unlabelled": unlabelled}, Target(corrected, keep, extra)

    def loss(logits, target, batch, clock):
        similar = logits["strong_features"] @ target.extra["bank"].T / temperature
        similar = optax.softmax_cross_entropy(similar, target.extra["similarities"])
        weight = batch["weight"]
        return weak_to_strong_terms(logits, target, batch, unlabelled_weight) | {
            "similarity": Term(similar, weight * target.extra["ready"], weight, similarity_weight)
        }

    def init_state(pool_size, num_classes, num_heads, *, labelled_size=0, width=0):
        """bank: float32 [labelled, width]; labels: int32 [labelled], -1 before the first visit;
        unlabelled: float32 [window, classes], mean predictions of the last steps."""
        if labelled_size < 1 or width < 1:
            raise BadInput(
                "SimMatch keeps a feature of every labelled row: give init_state labelled_size, "
                "their number, and width, that of the features."
            )
        return {
            "bank": jnp.zeros((labelled_size, width), jnp.float32),
            "labels": jnp.full(labelled_size, -1, jnp.int32),
            "unlabelled": jnp.zeros((window, num_classes), jnp.float32),
        }

    return Algorithm(("weak", "strong"), init_state, target, loss, forward=forward)


def update_bank(state: dict, features, batch: dict, across, momentum: float) -> dict:
    """Updates the bank by the labelled rows of this batch; ignores rows of weight 0."""
    if "index" not in batch["labelled"]:
        raise BadInput(
            'SimMatch remembers every labelled row: give the batch its batch["labelled"]["index"].'
        )
    rows = {name: batch["labelled"][name] for name in ("index", "label", "weight")}
    rows, features = across.gather((rows, features))
    bank, labels = state["bank"], state["labels"]
    place = jnp.where(rows["weight"] > 0, rows["index"], len(bank))  # out of range: dropped
    count = jnp.zeros(len(bank)).at[place].add(1.0, mode="drop")[:, None]
    new = jnp.zeros_like(bank).at[place].add(features, mode="drop") / jnp.maximum(count, 1.0)
    return state | {
        "bank": jnp.where(count > 0, unit(momentum * bank + (1 - momentum) * new), bank),
        "labels": labels.at[place].set(rows["label"], mode="drop"),
    }


def unit(x: Float[Array, "batch width"]) -> Float[Array, "batch width"]:
    """Computes x / |x|; 0 for 0, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.square(x).sum(axis=-1, keepdims=True) + 1e-12)
