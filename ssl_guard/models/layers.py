"""Layers shared by the encoders: products in `dtype`, softmax and LayerNorm in float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssl_guard.models.dropout import Seeds, dropout

INIT = nn.initializers.normal(0.02)  # of every matrix and table, as BERT does


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Exact GELU. Through erf, since the erfc of jax.nn.gelu is slower on CPU."""
    return x * 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))


def dense(features: int, dtype: str, name: str) -> nn.Dense:
    """A dense layer whose product runs in `dtype`."""
    return nn.Dense(features, dtype=dtype, kernel_init=INIT, name=name)


def embed(rows: int, width: int, name: str) -> nn.Embed:
    """A table of `rows` embeddings."""
    return nn.Embed(rows, width, embedding_init=INIT, name=name)


def layer_norm(epsilon: float, name: str) -> nn.LayerNorm:
    """LayerNorm over the last axis, in float32."""
    return nn.LayerNorm(epsilon=epsilon, dtype="float32", name=name)


def attention_bias(
    mask: Int[Array, "batch length"], segments: Int[Array, "batch length"] | None = None
) -> Float[Array, "batch 1 queries length"]:
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


class SelfAttention(nn.Module):
    """Scaled dot-product attention of `attn` heads (Vaswani et al. 2017, section 3.2)."""

    attn: int
    dropout: float
    dtype: str
    site: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length width"],
        bias: Float[Array, "batch 1 queries length"],
        seeds: Seeds | None,
    ) -> Float[Array, "batch length width"]:
        width = x.shape[-1]
        query, key, value = (
            dense(width, self.dtype, name)(x).reshape(*x.shape[:2], self.attn, width // self.attn)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) * (width // self.attn) ** -0.5
        weights = jax.nn.softmax(scores.astype(jnp.float32) + bias).astype(self.dtype)
        weights = dropout(weights, self.dropout, seeds, self.site)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(x.shape)
        return dense(width, self.dtype, "output")(mixed)


class FeedForward(nn.Module):
    """Two dense layers with a GELU between them."""

    mlp: int
    dtype: str

    @nn.compact
    def __call__(self, x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
        hidden = gelu(dense(self.mlp, self.dtype, "up")(x))
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

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length width"],
        bias: Float[Array, "batch 1 queries length"],
        seeds: Seeds | None,
    ) -> Float[Array, "batch length width"]:
        attention = SelfAttention(
            self.attn, self.attention_dropout, self.dtype, self.site, name="attention"
        )
        mixed = dropout(attention(x, bias, seeds), self.dropout, seeds, self.site + 1)
        x = layer_norm(self.epsilon, "attention_norm")(x + mixed).astype(self.dtype)
        hidden = FeedForward(self.mlp, self.dtype, name="feed_forward")(x)
        hidden = dropout(hidden, self.dropout, seeds, self.site + 2)
        return layer_norm(self.epsilon, "feed_forward_norm")(x + hidden).astype(self.dtype)
