"""Layers shared by the encoders: matrix products in `dtype`, softmax and LayerNorm in float32."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssl_guard.models.dropout import Seeds, dropout

INIT = nn.initializers.normal(0.02)  # of every matrix and table, as BERT does


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes the exact GELU through erf; the erfc of jax.nn.gelu is slower on CPU."""
    return x * 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


_gelu_tanh = functools.partial(jax.nn.gelu, approximate=True)
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {  # keyed by the names in config.json
    "gelu": gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def dense(features: int, dtype: str, name: str, use_bias: bool = True) -> nn.Dense:
    """Creates a dense layer that computes in `dtype`."""
    return nn.Dense(features, use_bias=use_bias, dtype=dtype, kernel_init=INIT, name=name)


def embed(rows: int, width: int, name: str) -> nn.Embed:
    """Creates an embedding table."""
    return nn.Embed(rows, width, embedding_init=INIT, name=name)


def layer_norm(epsilon: float, name: str, use_bias: bool = True) -> nn.LayerNorm:
    """Creates a LayerNorm over the last axis, in float32."""
    return nn.LayerNorm(epsilon=epsilon, use_bias=use_bias, dtype="float32", name=name)


def attention_bias(
    mask: Int[Array, "batch length"], segments: Int[Array, "batch length"] | None = None
) -> Float[Array, "batch 1 #length length"]:
    """Returns the mask added to attention scores: 0 where a query may attend, -1e9 elsewhere.

    Without segments, every query attends to all real tokens of the row (query axis of size 1). With
    segments (1, 2, ... for the texts of a row, 0 for padding), to those of its own text.
    """
    seen = mask[:, None, None, :] > 0
    if segments is not None:
        seen = seen & (segments[:, None, :, None] == segments[:, None, None, :])
    return jnp.where(seen, 0.0, -1e9)


def positions(
    mask: Int[Array, "batch length"], segments: Int[Array, "batch length"] | None = None
) -> Int[Array, "batch length"]:
    """Counts the tokens of `mask` before each token, in its row or in its segment of the row."""
    before = jnp.cumsum(mask, axis=1) - mask
    if segments is None:
        return before
    starts = jnp.diff(segments, axis=1, prepend=-1) != 0
    return before - jax.lax.cummax(jnp.where(starts, before, 0), axis=1)


def shift(scores: Float[Array, "*rest length distances"]) -> Float[Array, "*rest length length"]:
    """Maps scores by distance to scores by key: out[i, j] = scores[i, length - 1 - i + j].

    distances is 2 length - 1. Uses slice + reshape (the relative shift of Dai et al. 2019, appendix
    B): the gradient of a gather would be a scatter, which is slow.
    """
    *rest, length, distances = scores.shape
    if length == 1:
        return scores
    flat = scores.reshape(*rest, length * distances)[..., length - 1 : -1]
    return flat.reshape(*rest, length, distances - 1)[..., :length]


def on_accelerator() -> bool:
    """Returns whether the default backend is not the CPU."""
    return jax.default_backend() != "cpu"


def dot_product_attention(
    query: Float[Array, "batch length attn head"],
    key: Float[Array, "batch length attn head"],
    value: Float[Array, "batch length attn head"],
    bias: Float[Array, "batch #attn #length length"],
    dropout_rate: float,
    dropout_seeds: Seeds | None,
    site: int,
    *,
    scale: float | None = None,
) -> Float[Array, "batch length width"]:
    """Computes multi-head attention (Vaswani et al. 2017, section 3.2), heads concatenated.

    scale: factor on the scores, by default head ** -0.5; `bias` is added after it. On an
    accelerator without dropout it uses jax.nn.dot_product_attention, which XLA may fuse.
    """
    batch, length, attn, head = query.shape
    scale = head**-0.5 if scale is None else scale
    if on_accelerator() and (dropout_seeds is None or dropout_rate == 0):
        mixed = jax.nn.dot_product_attention(query, key, value, bias, scale=scale)
    else:
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * scale
        weights = jax.nn.softmax(scores.astype(jnp.float32) + bias).astype(value.dtype)
        weights = dropout(weights, dropout_rate, dropout_seeds, site)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
    return mixed.reshape(batch, length, attn * head)


class FeedForward(nn.Module):
    """Dense layer, activation, dense layer."""

    mlp: int
    dtype: str
    activation: str = "gelu"

    @nn.compact
    def __call__(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
        hidden = ACTIVATIONS[self.activation](dense(self.mlp, self.dtype, "up")(x))
        return dense(x.shape[-1], self.dtype, "down")(hidden)


def remat(layer: type[nn.Module], on: bool) -> type[nn.Module]:
    """Wraps a layer class in nn.remat if `on`: activations are recomputed in the backward pass."""
    return nn.remat(layer) if on else layer
