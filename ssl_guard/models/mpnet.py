"""The MPNet encoder (Song et al. 2020): a RoBERTa without token types, whose attention scores get a
learnt term for the distance of two tokens, the same in all layers."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssl_guard.models.dropout import dropout
from ssl_guard.models.encoder import (
    EncoderConfig,
    option,
    places_after_padding,
    post_norm_layers,
    through,
)
from ssl_guard.models.layers import Embeddings, embed, shift

PADDING = 1  # a constant of the architecture, whatever pad_token_id says
BUCKETS, LONGEST = 32, 128  # of distances, constants too


@dataclasses.dataclass(frozen=True)
class MPNetConfig(EncoderConfig):
    """The keys of an MPNet's config.json that shape the encoder."""

    hf_names: ClassVar[dict[str, str]] = {
        "embeddings/word": "embeddings.word_embeddings",
        "embeddings/position": "embeddings.position_embeddings",
        "embeddings/norm": "embeddings.LayerNorm",
        "embeddings_relative/table": "encoder.relative_attention_bias",
        "layer_{}/attention/query": "encoder.layer.{}.attention.attn.q",
        "layer_{}/attention/key": "encoder.layer.{}.attention.attn.k",
        "layer_{}/attention/value": "encoder.layer.{}.attention.attn.v",
        "layer_{}/attention/output": "encoder.layer.{}.attention.attn.o",
        "layer_{}/attention_norm": "encoder.layer.{}.attention.LayerNorm",
        "layer_{}/feed_forward/up": "encoder.layer.{}.intermediate.dense",
        "layer_{}/feed_forward/down": "encoder.layer.{}.output.dense",
        "layer_{}/feed_forward_norm": "encoder.layer.{}.output.LayerNorm",
    }
    hf_head: ClassVar[dict[str, str]] = {
        "dense": "lm_head.dense",
        "norm": "lm_head.layer_norm",
        "": "lm_head",
    }

    vocab_size: int = 30527
    relative_attention_num_buckets: int = option(BUCKETS, minimum=BUCKETS)

    @property
    def max_tokens(self):
        return self.max_position_embeddings - PADDING - 1


def buckets(distances: np.ndarray) -> np.ndarray:
    """The row of the table for key place - query place, int [...]: exact when near, then
    logarithmic up to LONGEST, and the other half of the table for keys to the right (Raffel et al.
    2020). In float32, as the published weights were trained."""
    half = BUCKETS // 2
    exact = half // 2
    size = np.abs(distances)
    scale = np.float32(np.log(LONGEST / exact))
    far = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact)) / scale
    far = np.minimum(exact + (far * (half - exact)).astype(np.int64), half - 1)
    return np.where(distances > 0, half, 0) + np.where(size < exact, size, far)


class RelativeBias(nn.Module):
    """A term for every attention head and distance, gathered once and shifted into place."""

    rows: int
    attn: int

    @nn.compact
    def __call__(self, length: int) -> Float[Array, "1 attn length length"]:
        distances = np.arange(2 * length - 1) - (length - 1)
        table = embed(self.rows, self.attn, "table").embedding[buckets(distances)]
        terms = jnp.broadcast_to(table.T[:, None], (self.attn, length, 2 * length - 1))
        return shift(terms)[None]


class MPNetEncoder(nn.Module):
    """Hidden states of the last layer (encoder.py has the contract)."""

    config: MPNetConfig
    dtype: str = "float32"
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        input_ids,
        attention_mask,
        token_type_ids,
        seeds=None,
        *,
        words=None,
        segments=None,
        **mixing,
    ):
        config = self.config
        embeddings = Embeddings(
            vocab=config.vocab_size,
            positions=config.max_position_embeddings,
            types=0,
            width=config.hidden_size,
            epsilon=config.layer_norm_eps,
            name="embeddings",
        )
        where = places_after_padding(config, PADDING, input_ids, segments)
        x = embeddings(input_ids, where, token_type_ids, words)
        x = dropout(x.astype(self.dtype), config.hidden_dropout_prob, seeds, 1)
        relative = RelativeBias(
            config.relative_attention_num_buckets,
            config.num_attention_heads,
            name="embeddings_relative",
        )(input_ids.shape[1])

        def with_distances(layer):
            return lambda x, bias, seeds: layer(x, bias + relative, seeds)

        layers = post_norm_layers(config, self.dtype, self.remat)
        return through(
            [with_distances(layer) for layer in layers],
            x,
            attention_mask,
            seeds,
            segments,
            **mixing,
        )
