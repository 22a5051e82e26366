"""Builds the optimiser: AdamW, layer-wise learning-rate decay, frozen parameters."""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from ssl_guard.runtime.sharding import leaf_name


class Settings(NamedTuple):
    """The keys of config.optim."""

    lr: float
    layer_lr_decay: float
    weight_decay: float
    warmup_steps: int
    clip_norm: float
    ema_decay: float
    freeze: tuple[str, ...]


def path_names(params) -> list[str]:
    """Returns the '/'-joined names of the leaves, in the order of jax.tree.leaves."""
    return [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def trainable_mask(params, freeze: tuple[str, ...]):
    """Returns False for parameters whose name starts with a match of a regex in `freeze`.

    A match may not end inside a number (encoder/layer_1 does not freeze layer_10) or before
    _relative: encoder/embeddings freezes ELECTRA's projection of the embeddings, but not the
    relative positions of DeBERTa and MPNet, which all layers share.
    """
    freeze = tuple(rf"(?:{pattern})(?!(?<=\d)\d|_relative)" for pattern in freeze)
    mask = [not any(re.match(pattern, name) for pattern in freeze) for name in path_names(params)]
    return jax.tree.unflatten(jax.tree.structure(params), mask)


def stop_frozen(params, freeze: tuple[str, ...]):
    """Returns the same values and stops the gradient of frozen leaves.

    The compiler then drops the backward pass below the lowest trainable parameter.
    """
    return jax.tree.map(
        lambda leaf, learns: leaf if learns else jax.lax.stop_gradient(leaf),
        params,
        trainable_mask(params, freeze),
    )


def layer_factors(params, layer_decay: float, num_layers: int):
    """Returns the learning-rate factor of every parameter: layer_decay ** (num_layers + 1 - depth).

    depth is 0 for embeddings and their projection, i + 1 for encoder layer i and num_layers + 1 for
    the rest: heads, final norms and the relative positions that all layers share. Depths are those
    of ELECTRA and the safety paper's code (0.75 for 12 layers: embeddings 0.024, head 1), for
    relative positions those of BEiT (Bao et al. 2022).
    """

    def factor(name):
        layer = re.match(r"encoder/layer_(\d+)/", name)
        if layer:
            depth = int(layer[1]) + 1
        else:
            inputs = re.match("encoder/embeddings(_projection)?/", name)
            depth = 0 if inputs else num_layers + 1
        return layer_decay ** (num_layers + 1 - depth)

    factors = [factor(name) for name in path_names(params)]
    return jax.tree.unflatten(jax.tree.structure(params), factors)


def adamw(
    params,
    *,
    schedule,
    weight_decay: float,
    layer_decay: float,
    num_layers: int,
    clip_norm: float,
    freeze: tuple[str, ...],
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformation:
    """Returns AdamW (decoupled decay, none on biases and norms) with layer-wise learning rates.

    schedule(step) -> learning rate; freeze: as for `trainable_mask`, frozen parameters have no
    optimiser state; clip_norm: global gradient norm, 0 for no clipping.
    `params` may be shapes (jax.eval_shape).
    """
    factors = layer_factors(params, layer_decay, num_layers)
    scale_layers = optax.stateless(
        lambda updates, params: jax.tree.map(lambda u, f: u * f, updates, factors)
    )
    chain = optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm > 0 else optax.identity(),
        optax.scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.add_decayed_weights(weight_decay, mask=lambda p: jax.tree.map(_is_matrix, p)),
    )
    return optax.chain(
        optax.masked(chain, trainable_mask(params, freeze)),
        scale_layers,
        optax.scale_by_learning_rate(schedule),
    )


def from_settings(
    settings: Settings, params, *, total_steps: int, num_layers: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Returns AdamW and its schedule, warm-up and cosine decay. num_layers: of the encoder."""
    schedule = functools.partial(
        warmup_cosine,
        peak=settings.lr,
        warmup_steps=settings.warmup_steps,
        total_steps=total_steps,
    )
    tx = adamw(
        params,
        schedule=schedule,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_lr_decay,
        num_layers=num_layers,
        clip_norm=settings.clip_norm,
        freeze=settings.freeze,
    )
    return tx, schedule


def _is_matrix(leaf) -> bool:
    return jnp.ndim(leaf) > 1


def update_average(average, params, decay: float, step: Int[Array, ""]):
    """Updates the exponential moving average of the weights by those after update `step`, from 0.

    The decay is min(decay, (1 + step) / (10 + step)), as with num_updates in TensorFlow's
    tf.train.ExponentialMovingAverage: a constant one would leave the average near the initial
    weights for the first 1 / (1 - decay) steps. None stays None.
    """
    if average is None:
        return None
    now = jnp.minimum(decay, (1 + step) / (10 + step)).astype(jnp.float32)
    return optax.incremental_update(params, average, 1 - now)


def warmup_cosine(step, *, peak: float, warmup_steps: int, total_steps: int) -> Float[Array, ""]:
    """Returns the learning rate after `step` updates: linear warm-up, then cosine decay.

    Warm-up is peak * (step + 1) / warmup_steps, so that the first update is not 0. The cosine of
    FixMatch (arXiv 2001.07685, section 2.4), peak * cos(7/16 pi progress), ends at 0.195 peak.
    """
    step = jnp.asarray(step, jnp.float32)
    warmup = (step + 1) / max(warmup_steps, 1)
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    cosine = jnp.cos(7 / 16 * jnp.pi * jnp.clip(progress, 0.0, 1.0))
    return peak * jnp.where(step < warmup_steps, warmup, cosine)
