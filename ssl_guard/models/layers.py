"""Layers shared by the encoders: products in `dtype`, softmax and LayerNorm in float32."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssl_guard.models.dropout import Seeds, dropout

INIT = nn.initializers.normal(0.02)  # of every matrix and table, as BERT does


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Exact GELU. Through erf, since the erfc of jax.nn.gelu is slower on CPU."""
    return x * 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


_gelu_tanh = functools.partial(jax.nn.gelu, approximate=True)
ACTIVATIONS = {  # by their names in config.json
    "gelu": gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "tanh": jnp.tanh,
}


def dense(features: int, dtype: str, name: str, use_bias: bool = True) -> nn.Dense:
    """A dense layer whose product runs in `dtype`."""
    return nn.Dense(features, use_bias=use_bias, dtype=dtype, kernel_init=INIT, name=name)


def embed(rows: int, width: int, name: str) -> nn.Embed:
    """A table of `rows` embeddings."""
    return nn.Embed(rows, width, embedding_init=INIT, name=name)


def layer_norm(epsilon: float, name: str, use_bias: bool = True) -> nn.LayerNorm:
    """LayerNorm over the last axis, in float32."""
    return nn.LayerNorm(epsilon=epsilon, use_bias=use_bias, dtype="float32", name=name)


def attention_bias(
    mask: Int[Array, "batch length"], segments: Int[Array, "batch length"] | None = None
) -> Float[Array, "batch 1 #length length"]:
    """What the attention scores get added: 0 where a token may look, -1e9 elsewhere.

    Without segments, every real token of the row is seen and there is one query axis for all. With
    segments, a token sees the real tokens of its own text: segments number the texts of a row from
    1, and pads are 0.
    """
    seen = mask[:, None, None, :] > 0
    if segments is not None:
        seen = seen & (segments[:, None, :, None] == segments[:, None, None, :])
    return jnp.where(seen, 0.0, -1e9)


def positions(
    mask: Int[Array, "batch length"], segments: Int[Array, "batch length"] | None = None
) -> Int[Array, "batch length"]:
    """How many tokens of `mask` stand before each one, in its row or in its segment of the row."""
    before = jnp.cumsum(mask, axis=1) - mask
    if segments is None:
        return before
    starts = jnp.diff(segments, axis=1, prepend=-1) != 0
    return before - jax.lax.cummax(jnp.where(starts, before, 0), axis=1)


def shift(scores: Float[Array, "*rest length distances"]) -> Float[Array, "*rest length length"]:
    """out[i, j] = scores[i, length - 1 - i + j], from 2 length - 1 distances to length places.

    A slice and a reshape, where a gather would scatter in the backward pass (the relative shift of
    Dai et al. 2019, appendix B).
    """
    *rest, length, distances = scores.shape
    if length == 1:
        return scores
    flat = scores.reshape(*rest, length * distances)[..., length - 1 : -1]
    return flat.reshape(*rest, length, distances - 1)[..., :length]


def on_accelerator() -> bool:
    """Whether jax computes on something other than a CPU by default."""
    return jax.default_backend() != "cpu"


def attend(
    query: Float[Array, "batch length attn head"],
    key: Float[Array, "batch length attn head"],
    value: Float[Array, "batch length attn head"],
    bias: Float[Array, "batch #attn #length length"],
    dropout_rate: float,
    seeds: Seeds | None,
    site: int,
    *,
    scale: float | None = None,
) -> Float[Array, "batch length width"]:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2), heads side by side.

    `bias` is added to the scores, which `scale` (by default head ** -0.5) multiplies. On an
    accelerator and without dropout, XLA may fuse it through jax.nn.dot_product_attention.
    """
    batch, length, attn, head = query.shape
    scale = head**-0.5 if scale is None else scale
    if on_accelerator() and (seeds is None or dropout_rate == 0):
        mixed = jax.nn.dot_product_attention(query, key, value, bias, scale=scale)
    else:
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * scale
        weights = jax.nn.softmax(scores.astype(jnp.float32) + bias).astype(value.dtype)
        weights = dropout(weights, dropout_rate, seeds, site)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
    return mixed.reshape(batch, length, attn * head)


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalised, in float32.

    Without token types (types=0) there is no such table; a single one (types=1) is every token's,
    since nn.Embed reads no numbers then.
    """

    vocab: int
    positions: int
    types: int
    width: int
    epsilon: float

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch length"],
        places: Int[Array, "rows length"],
        token_type_ids: Int[Array, "batch length"],
        words: Float[Array, "batch length width"] | None = None,
    ) -> Float[Array, "batch length width"]:
        """`words`, if given, stand in for the word embeddings of input_ids."""
        x = embed(self.vocab, self.width, "word")(input_ids) if words is None else words
        x = x + embed(self.positions, self.width, "position")(places)
        if self.types:
            x = x + embed(self.types, self.width, "token_type")(token_type_ids)
        return layer_norm(self.epsilon, "norm")(x)


class SelfAttention(nn.Module):
    """Attention of `attn` heads, a token's width shared out among them."""

    attn: int
    dropout: float
    dtype: str
    site: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length width"],
        bias: Float[Array, "batch #attn #length length"],
        seeds: Seeds | None,
    ) -> Float[Array, "batch length width"]:
        width = x.shape[-1]
        query, key, value = (
            dense(width, self.dtype, name)(x).reshape(*x.shape[:2], self.attn, width // self.attn)
            for name in ("query", "key", "value")
        )
        mixed = attend(query, key, value, bias, self.dropout, seeds, self.site)
        return dense(width, self.dtype, "output")(mixed)


class FeedForward(nn.Module):
    """Two dense layers with an activation between them."""

    mlp: int
    dtype: str
    activation: str = "gelu"

    @nn.compact
    def __call__(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
        hidden = ACTIVATIONS[self.activation](dense(self.mlp, self.dtype, "up")(x))
        return dense(x.shape[-1], self.dtype, "down")(hidden)


class PostNormLayer(nn.Module):
    """A Transformer layer that normalises after each residual sum (BERT and its family).

    It uses the dropout sites `site`, `site + 1` and `site + 2`.
    """

    attn: int
    mlp: int
    epsilon: float
    dropout: float
    attention_dropout: float
    dtype: str
    site: int
    activation: str = "gelu"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length width"],
        bias: Float[Array, "batch #attn #length length"],
        seeds: Seeds | None,
    ) -> Float[Array, "batch length width"]:
        attention = SelfAttention(
            self.attn, self.attention_dropout, self.dtype, self.site, name="attention"
        )
        mixed = dropout(attention(x, bias, seeds), self.dropout, seeds, self.site + 1)
        x = layer_norm(self.epsilon, "attention_norm")(x + mixed).astype(self.dtype)
        hidden = FeedForward(self.mlp, self.dtype, self.activation, name="feed_forward")(x)
        hidden = dropout(hidden, self.dropout, seeds, self.site + 2)
        return layer_norm(self.epsilon, "feed_forward_norm")(x + hidden).astype(self.dtype)


def remat(layer: type[nn.Module], on: bool) -> type[nn.Module]:
    """The same kind of layer; if `on`, its insides are computed again in the backward pass rather
    than kept."""
    return nn.remat(layer) if on else layer
