"""The optax chain: AdamW, layer-wise learning-rate decay, frozen parameters."""

import re

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ssl_guard.runtime.sharding import leaf_name


def path_names(params) -> list[str]:
    """Returns the '/'-joined names of the leaves, in the order of jax.tree.leaves."""
    return [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def trainable_mask(params, freeze: tuple[str, ...]):
    """True for parameters that learn: no regex of `freeze` matches at the start of their name."""
    mask = [not any(re.match(pattern, name) for pattern in freeze) for name in path_names(params)]
    return jax.tree.unflatten(jax.tree.structure(params), mask)


def stop_frozen(params, freeze: tuple[str, ...]):
    """The same values, with frozen leaves cut off from differentiation.

    The compiler then drops the backward pass below the lowest parameter that learns.
    """
    return jax.tree.map(
        lambda leaf, learns: leaf if learns else jax.lax.stop_gradient(leaf),
        params,
        trainable_mask(params, freeze),
    )


def layer_factors(params, layer_decay: float, num_layers: int):
    """Factor on the learning rate of every parameter: layer_decay ** (num_layers + 1 - depth).

    depth is 0 for embeddings, i + 1 for encoder layer i and num_layers + 1 for the rest (heads),
    as in ELECTRA and the safety paper's code (0.75 for 12 layers: embeddings 0.024, head 1).
    """

    def factor(name):
        layer = re.match(r"encoder/layer_(\d+)/", name)
        if layer:
            depth = int(layer[1]) + 1
        else:
            depth = 0 if name.startswith("encoder/embeddings") else num_layers + 1
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
    """AdamW (decoupled decay, none on biases and norms) under `schedule(step) -> learning rate`.

    clip_norm: global gradient norm, 0 for no clipping. Frozen parameters have no optimiser state.
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


def _is_matrix(leaf) -> bool:
    return jnp.ndim(leaf) > 1


def update_average(average, params, decay: float):
    """Updates the exponential moving average of the weights; None stays None."""
    return None if average is None else optax.incremental_update(params, average, 1 - decay)


def warmup_cosine(step, *, peak: float, warmup_steps: int, total_steps: int) -> Float[Array, ""]:
    """Learning rate after `step` updates: linear warm-up, then peak * cos(7/16 pi progress).

    The cosine of FixMatch (arXiv 2001.07685, section 2.4) ends at cos(7 pi / 16) = 0.195 peak.
    The first update already moves: warm-up gives (step + 1) / warmup_steps.
    """
    step = jnp.asarray(step, jnp.float32)
    warmup = (step + 1) / max(warmup_steps, 1)
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    cosine = jnp.cos(7 / 16 * jnp.pi * jnp.clip(progress, 0.0, 1.0))
    return peak * jnp.where(step < warmup_steps, warmup, cosine)
