"""The train step of masked language modelling (Devlin et al. 2019, section 3.1): pure functions.

    15% of the words of a text are chosen; 80% of these are replaced by [MASK], 10% by a random
    word, 10% stay; the loss is the mean of -log p(word) over all chosen words of the batch.

The choice is a hash of (key of the step, row of the text, position in the text): new in every step,
and the same on any number of devices, padded or packed. Special tokens are never chosen.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ssl_guard.models.classifier import seeds_of
from ssl_guard.models.dropout import keep_mask, random_bits
from ssl_guard.runtime.metrics import Metrics
from ssl_guard.steps import optim
from ssl_guard.steps.state import skip_unless

MASKED, RANDOM = 0.8, 0.1  # of the chosen words; the others stay


class State(NamedTuple):
    """step: int32 [], updates done so far; params: of models.MaskedLM; opt_state: optax's; rng: a
    typed key, never advanced."""

    step: Int[Array, ""]
    params: Any
    opt_state: Any
    rng: jax.Array


class Vocabulary(NamedTuple):
    """The number of words of a tokenizer, the id of [MASK], and the ids of all special tokens."""

    size: int
    mask_id: int
    special_ids: tuple[int, ...]


class Masked(NamedTuple):
    """A masked batch.

    input_ids: int32 [rows, length]; places, words: int32 [rows, chosen], positions and ids of the
    chosen words; weight: float32 [rows, chosen], 0 for unused places.
    """

    input_ids: Int[Array, "rows length"]
    places: Int[Array, "rows chosen"]
    words: Int[Array, "rows chosen"]
    weight: Float[Array, "rows chosen"]


def capacity(length: int, rate: float) -> int:
    """Returns the places per row: the mean number of chosen words plus six standard deviations. A
    row with more chosen words would lose the last ones."""
    return min(length, int(np.ceil(length * rate + 6 * (length * rate * (1 - rate)) ** 0.5)))


def mask_words(batch: dict, key: jax.Array, vocabulary: Vocabulary, rate: float) -> Masked:
    """Chooses words of the batch and masks them. key: the step's."""
    ids, seeds = batch["input_ids"], seeds_of(batch, key)
    shape = (*ids.shape, 1)  # what keep_mask takes for hidden states
    special = jnp.isin(ids, jnp.array(vocabulary.special_ids, jnp.int32))
    eligible = (batch["attention_mask"] > 0) & ~special
    chosen = eligible & ~keep_mask(shape, rate, seeds, 0)[..., 0]
    # The chosen places, in their order, first; top_k keeps the order of equal numbers.
    weight, places = jax.lax.top_k(chosen.astype(jnp.float32), capacity(ids.shape[1], rate))

    masked = keep_mask(shape, 1 - MASKED, seeds, 1)[..., 0]
    stays = keep_mask(shape, RANDOM / (1 - MASKED), seeds, 2)[..., 0]
    drawn = (random_bits(shape, seeds, 3)[..., 0] % np.uint32(vocabulary.size)).astype(jnp.int32)
    read = jnp.where(masked, vocabulary.mask_id, jnp.where(stays, ids, drawn))
    rows = jnp.arange(ids.shape[0])[:, None]
    used = jnp.zeros(ids.shape, bool).at[rows, places].set(weight > 0)
    words = jnp.take_along_axis(ids, places, axis=1)
    return Masked(jnp.where(used, read, ids), places, words, weight)


def loss_fn(params, batch: dict, key, *, apply, vocabulary, rate: float, train: bool):
    """Returns (loss, metrics) of a batch. apply: of models.MaskedLM. metrics: loss/mlm and
    mlm/accuracy over the chosen words, as (sum, weight)."""
    masked = mask_words(batch, jax.random.fold_in(key, 0), vocabulary, rate)
    hidden = batch | {"input_ids": masked.input_ids}
    logits = apply(params, hidden, masked.places, jax.random.fold_in(key, 1), train)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, masked.words)
    right = logits.argmax(axis=-1) == masked.words
    text_weight = _per_place(batch, masked.places)
    weight = masked.weight * text_weight
    count = weight.sum()
    metrics = {
        "loss/mlm": ((losses * weight).sum(), count),
        "mlm/accuracy": ((right * weight).sum(), count),
    }
    return metrics["loss/mlm"][0] / jnp.maximum(count, 1), metrics


def _per_place(batch: dict, places):
    """Returns the weight of the text of each place; 0 for padding rows."""
    if "text" not in batch:
        return batch["weight"][:, None]
    text = jnp.take_along_axis(batch["text"], places, axis=1)
    mine = text[:, :, None] == batch["row"][None, None]
    return mine.astype(jnp.float32) @ batch["weight"]


def train_step(
    state: State,
    batch: dict,
    *,
    apply: Any,
    tx: optax.GradientTransformation,
    vocabulary: Vocabulary,
    rate: float,
    freeze: tuple[str, ...] = (),
) -> tuple[State, Metrics]:
    """Runs one update on a batch like the "labelled" view of steps.training, without labels."""
    key = jax.random.fold_in(state.rng, state.step)

    def objective(params):
        params = optim.stop_frozen(params, freeze)
        return loss_fn(
            params, batch, key, apply=apply, vocabulary=vocabulary, rate=rate, train=True
        )

    (loss, metrics), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    grad_norm = optax.tree.norm(grads)
    metrics |= {"loss/total": (loss, jnp.ones(())), "grad_norm": (grad_norm, jnp.ones(()))}
    next_state = state._replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
    )
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    return skip_unless(finite, state, next_state, metrics)
