"""MPNet (Song et al. 2020): RoBERTa without token types, with relative position biases (Raffel et
al. 2020) shared by all layers."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssl_guard.models.encoder import Encoder
from ssl_guard.models.encoder_config import EncoderConfig, option
from ssl_guard.models.layers import embed, shift
from ssl_guard.models.roberta import RobertaConfig

PADDING = 1  # fixed by the architecture, independent of pad_token_id
BUCKETS, LONGEST = 32, 128  # of distances, also fixed


@dataclasses.dataclass(frozen=True)
class MPNetConfig(EncoderConfig):
    """MPNet's config."""

    hf_names: ClassVar[dict[str, str]] = RobertaConfig.hf_names | {
        "embeddings_relative/table": "encoder.relative_attention_bias",
        "layer_{}/attention/query": "encoder.layer.{}.attention.attn.q",
        "layer_{}/attention/key": "encoder.layer.{}.attention.attn.k",
        "layer_{}/attention/value": "encoder.layer.{}.attention.attn.v",
        "layer_{}/attention/output": "encoder.layer.{}.attention.attn.o",
        "layer_{}/attention_norm": "encoder.layer.{}.attention.LayerNorm",
    }
    hf_head: ClassVar[dict[str, str]] = RobertaConfig.hf_head

    vocab_size: int = 30527
    relative_attention_num_buckets: int = option(BUCKETS, minimum=BUCKETS)

    @property
    def position_padding_id(self):
        return PADDING


def buckets(distances: np.ndarray) -> np.ndarray:
    """Returns the table row of each distance (key position - query position), int [...].

    Short distances have a row each, longer ones share rows logarithmically up to LONGEST; keys to
    the right use the second half of the table. In float32, as the published weights were trained.
    """
    half = BUCKETS // 2
    exact = half // 2
    size = np.abs(distances)
    scale = np.float32(np.log(LONGEST / exact))
    far = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact)) / scale
    far = np.minimum(exact + (far * (half - exact)).astype(np.int64), half - 1)
    return np.where(distances > 0, half, 0) + np.where(size < exact, size, far)


class RelativeBias(nn.Module):
    """Attention bias per head and distance: gathered once, then shifted into place."""

    rows: int
    attn: int

    @nn.compact
    def __call__(self, length: int) -> Float[Array, "1 attn length length"]:
        distances = np.arange(2 * length - 1) - (length - 1)
        table = embed(self.rows, self.attn, "table").embedding[buckets(distances)]
        terms = jnp.broadcast_to(table.T[:, None], (self.attn, length, 2 * length - 1))
        return shift(terms)[None]


class MPNetEncoder(Encoder):
    """MPNet's encoder."""

    config: MPNetConfig

    def layers(self, attention_mask, segments, position_ids):
        config = self.config
        relative = RelativeBias(
            config.relative_attention_num_buckets,
            config.num_attention_heads,
            name="embeddings_relative",
        )(attention_mask.shape[1])

        def with_relative_bias(layer):
            return lambda x, bias, dropout_seeds: layer(x, bias + relative, dropout_seeds)

        layers = super().layers(attention_mask, segments, position_ids)
        return [with_relative_bias(layer) for layer in layers]
