"""The encoder of BERT and its family; subclasses replace the layers or the final norm.

All encoders share one signature and return hidden states [batch, length, width], float32 or
bfloat16:

    encoder.apply({"params": p}, input_ids, attention_mask, token_type_ids, dropout_seeds, *,
                  word_embeddings=None, segments=None, states=None, first_layer=0, stop_layer=None,
                  mixup_fn=None, mixup_layer=0, mixed_mask=None)

input_ids, attention_mask (1 for real tokens, 0 for the padding after them), token_type_ids (ignored
    by architectures without token types): int32 [batch, length].
dropout_seeds: from dropout.row_seeds, or from dropout.token_seeds with segments; None disables
    dropout. Encoders use the dropout sites from 1.
word_embeddings: float32 [batch, length, embedding width], replaces the lookup of input_ids.
segments: int32 [batch, length], for rows that hold several texts: 1, 2, ... for the tokens of each
    text, which must be contiguous, and 0 for padding. A text's states equal those it has in a row
    of its own. The caller checks that no text exceeds `config.max_tokens`. Not with mixup_fn.
states: [batch, length, width], the input of layer `first_layer`, in place of the embeddings and the
    layers below; not with mixup_fn.
stop_layer: returns the input of this layer instead of the last layer's output.
mixup_fn, mixup_layer, mixed_mask: see `run_layers`.

States of rows without a real token are finite.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssl_guard.errors import BadInput
from ssl_guard.models.dropout import Seeds, dropout
from ssl_guard.models.encoder_config import EncoderConfig
from ssl_guard.models.layers import (
    FeedForward,
    attention_bias,
    dense,
    dot_product_attention,
    embed,
    layer_norm,
    positions,
    remat,
)

Layer = Callable[..., jax.Array]  # layer(x, bias, dropout_seeds) -> x


class Embeddings(nn.Module):
    """Normalised sum of word, position and token-type embeddings, float32.

    If `projected`, tables narrower than the hidden size are projected before the norm (DeBERTa).
    """

    config: EncoderConfig
    projected: bool = False

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch length"],
        position_ids: Int[Array, "rows length"],
        token_type_ids: Int[Array, "batch length"],
        word_embeddings: Float[Array, "batch length embedding"] | None = None,
    ) -> Float[Array, "batch length width"]:
        config = self.config
        width = config.embedding_width
        x = word_embeddings
        if x is None:
            x = embed(config.vocab_size, width, "word")(input_ids)
        if config.has_position_table:
            x = x + embed(config.max_position_embeddings, width, "position")(position_ids)
        if config.type_vocab_size:
            x = x + embed(config.type_vocab_size, width, "token_type")(token_type_ids)
        if self.projected and width != config.hidden_size:
            x = dense(config.hidden_size, "float32", "projection", use_bias=False)(x)
        return layer_norm(config.layer_norm_eps, "norm", config.norm_bias)(x)


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017)."""

    config: EncoderConfig
    dtype: str
    site: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length width"],
        bias: Float[Array, "batch #attn #length length"],
        dropout_seeds: Seeds | None,
    ) -> Float[Array, "batch length width"]:
        width, attn = x.shape[-1], self.config.num_attention_heads
        query, key, value = (
            dense(width, self.dtype, name)(x).reshape(*x.shape[:2], attn, width // attn)
            for name in ("query", "key", "value")
        )
        rate = self.config.attention_probs_dropout_prob
        mixed = dot_product_attention(query, key, value, bias, rate, dropout_seeds, self.site)
        return dense(width, self.dtype, "output")(mixed)


class PostNormLayer(nn.Module):
    """Transformer layer with a LayerNorm after each residual sum (BERT and its family).

    It uses the dropout sites `site`, `site + 1` and `site + 2`.
    """

    config: EncoderConfig
    dtype: str
    site: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length width"],
        bias: Float[Array, "batch #attn #length length"],
        dropout_seeds: Seeds | None,
    ) -> Float[Array, "batch length width"]:
        config = self.config
        rate, epsilon = config.hidden_dropout_prob, config.layer_norm_eps
        attention = SelfAttention(config, self.dtype, self.site, name="attention")
        mixed = dropout(attention(x, bias, dropout_seeds), rate, dropout_seeds, self.site + 1)
        x = layer_norm(epsilon, "attention_norm")(x + mixed).astype(self.dtype)
        feed_forward = FeedForward(
            config.intermediate_size, self.dtype, config.hidden_act, name="feed_forward"
        )
        hidden = dropout(feed_forward(x), rate, dropout_seeds, self.site + 2)
        return layer_norm(epsilon, "feed_forward_norm")(x + hidden).astype(self.dtype)


class Encoder(nn.Module):
    """Embeddings, dropout, an optional projection, and the layers; see the module's docstring."""

    config: EncoderConfig
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        input_ids,
        attention_mask,
        token_type_ids,
        dropout_seeds=None,
        *,
        word_embeddings=None,
        segments=None,
        states=None,
        first_layer=0,
        stop_layer=None,
        **mixup,
    ):
        config = self.config
        position = position_ids(config, input_ids, segments)
        if states is None:
            first_layer = 0
            x = self.embed(input_ids, position, token_type_ids, word_embeddings)
            x = dropout(x.astype(self.dtype), config.hidden_dropout_prob, dropout_seeds, 1)
            if x.shape[-1] != config.hidden_size:
                x = dense(config.hidden_size, self.dtype, "embeddings_projection")(x)
        else:
            x = states.astype(self.dtype)
        layers = self.layers(attention_mask, segments, position)[first_layer:stop_layer]
        x = run_layers(layers, x, attention_mask, dropout_seeds, segments, **mixup)
        return self.output(x) if stop_layer is None else x

    def embed(self, *inputs):
        return Embeddings(self.config, name="embeddings")(*inputs)

    def layers(self, attention_mask, segments, position_ids) -> list[Layer]:
        """Creates the layers, layer_0 first."""
        return [
            self.layer(PostNormLayer, number) for number in range(self.config.num_hidden_layers)
        ]

    def layer(self, kind: type[nn.Module], number: int, **fields):
        """Creates layer `number`, which owns three dropout sites."""
        return remat(kind, self.remat)(
            self.config, self.dtype, site=2 + 3 * number, name=f"layer_{number}", **fields
        )

    def output(self, x):
        return x


def position_ids(
    config: EncoderConfig,
    input_ids: Int[Array, "batch length"],
    segments: Int[Array, "batch length"] | None,
) -> Int[Array, "rows length"]:
    """Returns each token's position in its text; raises BadInput if the batch is too long.

    Positions count from 0. With a `position_padding_id` they count from that id + 1 and skip its
    tokens, whose position is the id itself, as in fairseq.
    """
    length, longest, padding = input_ids.shape[1], config.max_tokens, config.position_padding_id
    if segments is None and longest is not None and length > longest:
        raise BadInput(
            f"a batch is {length} tokens long but the encoder has only {longest} positions; lower "
            "the maximum length"
        )
    if segments is None and padding is None:
        return jnp.arange(length)[None]
    real = jnp.ones_like(input_ids) if padding is None else (input_ids != padding)
    real = real.astype(jnp.int32)
    if segments is not None:
        real = real * (segments > 0)
    found = positions(real, segments)
    return found if padding is None else (found + 1) * real + padding


def run_layers(
    layers: Sequence[Layer],
    x: Float[Array, "batch length width"],
    attention_mask: Int[Array, "batch length"],
    dropout_seeds: Seeds | None,
    segments: Int[Array, "batch length"] | None = None,
    *,
    mixup_fn: Callable | None = None,
    mixup_layer: Int[Array, ""] | int = 0,
    mixed_mask: Int[Array, "batch length"] | None = None,
) -> Float[Array, "batch length width"]:
    """Applies the layers, each called as layer(x, bias, dropout_seeds).

    mixup_fn: mixes the rows of an array [batch, ...]. It is applied once, to the output of layer
    number `mixup_layer` (1 is the lowest) with padding set to 0; the layers above attend to the
    tokens of `mixed_mask`. Raises BadInput with both segments and mixup_fn.
    """
    if segments is not None and mixup_fn is not None:
        raise BadInput("rows of several texts cannot be mixed; leave out segments or mixup_fn")
    bias = attention_bias(attention_mask, segments)

    def mix_tokens(x):
        return mixup_fn(jnp.where((attention_mask > 0)[:, :, None], x, 0))

    for number, layer in enumerate(layers, start=1):
        x = layer(x, bias, dropout_seeds)
        if mixup_fn is not None:
            assert mixed_mask is not None
            here = mixup_layer == number
            x = jax.lax.cond(here, mix_tokens, lambda x: x, x)
            bias = jnp.where(here, attention_bias(mixed_mask), bias)
    return x
