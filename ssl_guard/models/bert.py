"""The BERT encoder (Devlin et al. 2019) and its weights' names in Hugging Face checkpoints."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssl_guard.errors import BadInput
from ssl_guard.models.dropout import Seeds, dropout
from ssl_guard.models.layers import PostNormLayer, attention_bias, embed, layer_norm, positions

# Flax module -> Hugging Face module; {} is the number of the layer.
HF_NAMES = {
    "embeddings/word": "embeddings.word_embeddings",
    "embeddings/position": "embeddings.position_embeddings",
    "embeddings/token_type": "embeddings.token_type_embeddings",
    "embeddings/norm": "embeddings.LayerNorm",
    "layer_{}/attention/query": "encoder.layer.{}.attention.self.query",
    "layer_{}/attention/key": "encoder.layer.{}.attention.self.key",
    "layer_{}/attention/value": "encoder.layer.{}.attention.self.value",
    "layer_{}/attention/output": "encoder.layer.{}.attention.output.dense",
    "layer_{}/attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "layer_{}/feed_forward/up": "encoder.layer.{}.intermediate.dense",
    "layer_{}/feed_forward/down": "encoder.layer.{}.output.dense",
    "layer_{}/feed_forward_norm": "encoder.layer.{}.output.LayerNorm",
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The keys of a Hugging Face config.json that shape the encoder, with their defaults there."""

    hf_names: ClassVar[dict[str, str]] = HF_NAMES

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    hidden_act: str = "gelu"
    position_embedding_type: str = "absolute"
    is_decoder: bool = False

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise BadInput(f"{field.name}={value!r} must be a whole number of at least 1")
            if field.type in (str, bool) and value != field.default:
                raise BadInput(
                    f"{field.name}={value!r} is not supported; only {field.default!r} is"
                )
        if self.hidden_size % self.num_attention_heads:
            raise BadInput("hidden_size must be a multiple of num_attention_heads")


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalised, in float32."""

    config: BertConfig

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch length"],
        token_type_ids: Int[Array, "batch length"],
        words: Float[Array, "batch length width"] | None = None,
        segments: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length width"]:
        """`words`, if given, stand in for the word embeddings of input_ids.

        With segments, positions begin again in every text; the caller sees to it that no single
        text is longer than the table.
        """
        config, length = self.config, input_ids.shape[1]
        if segments is None and length > config.max_position_embeddings:
            raise BadInput(
                f"a batch is {length} tokens long but the encoder has only "
                f"{config.max_position_embeddings} positions; lower the maximum length"
            )
        width = config.hidden_size
        x = embed(config.vocab_size, width, "word")(input_ids) if words is None else words
        if segments is None:
            places = jnp.arange(length)[None]
        else:
            places = positions((segments > 0).astype(jnp.int32), segments)
        x = x + embed(config.max_position_embeddings, width, "position")(places)
        x = x + embed(config.type_vocab_size, width, "token_type")(token_type_ids)
        return layer_norm(config.layer_norm_eps, "norm")(x)


class BertEncoder(nn.Module):
    """Hidden states of the last layer. Parameters are float32, arithmetic is in `dtype`."""

    config: BertConfig
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch length"],
        attention_mask: Int[Array, "batch length"],
        token_type_ids: Int[Array, "batch length"],
        seeds: Seeds | None = None,
        *,
        words: Float[Array, "batch length width"] | None = None,
        segments: Int[Array, "batch length"] | None = None,
        mix: Callable | None = None,
        mix_layer: Int[Array, ""] | int = 0,
        mixed_mask: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length width"]:
        """Dropout sites 1 and up, active if `seeds` (dropout.row_seeds) are given.

        A fully padded row attends to all its pads alike, so it stays finite. words: see Embeddings.
        segments: the numbers of the texts that share a row, from 1, each contiguous, and 0 for
        pads; a text then gets the states that it has in a row of its own. Not with mix.
        mix: a function that mixes the rows of an array [batch, ...]; the real tokens' states go
        through it once, above layer number `mix_layer` (1 is the lowest), and from there on the
        real tokens are those of `mixed_mask`.
        """
        config = self.config
        if segments is not None and mix is not None:
            raise BadInput(
                "rows that hold several texts cannot be mixed; leave out segments or mix"
            )
        x = Embeddings(config, name="embeddings")(input_ids, token_type_ids, words, segments)
        x = dropout(x.astype(self.dtype), config.hidden_dropout_prob, seeds, 1)
        bias = attention_bias(attention_mask, segments)

        def mix_tokens(x):
            return mix(jnp.where((attention_mask > 0)[:, :, None], x, 0))

        for number in range(config.num_hidden_layers):
            x = PostNormLayer(
                attn=config.num_attention_heads,
                mlp=config.intermediate_size,
                epsilon=config.layer_norm_eps,
                dropout=config.hidden_dropout_prob,
                attention_dropout=config.attention_probs_dropout_prob,
                dtype=self.dtype,
                site=2 + 3 * number,
                name=f"layer_{number}",
            )(x, bias, seeds)
            if mix is not None:
                here = mix_layer == number + 1
                x = jax.lax.cond(here, mix_tokens, lambda x: x, x)
                bias = jnp.where(here, attention_bias(mixed_mask), bias)
        return x
