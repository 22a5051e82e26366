"""DeBERTa-v2 and -v3 (He et al. 2021, 2023): disentangled attention.

A score sums three products: content-content, content-distance (c2p) and distance-content (p2c). A
row of T tokens has only 2T - 1 distances: their embeddings are gathered once for all layers,
multiplied with every token, and shifted into place (layers.shift), instead of gathering T * T
scores for every row and head.

Unlike transformers, training applies no dropout to the distance embeddings.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ssl_guard.errors import BadInput
from ssl_guard.models.bert import BertConfig
from ssl_guard.models.dropout import dropout
from ssl_guard.models.encoder import Embeddings, Encoder
from ssl_guard.models.encoder_config import EncoderConfig, option
from ssl_guard.models.layers import (
    ACTIVATIONS,
    INIT,
    FeedForward,
    dense,
    dot_product_attention,
    embed,
    layer_norm,
    shift,
)


@dataclasses.dataclass(frozen=True)
class DebertaConfig(EncoderConfig):
    """DeBERTa's config."""

    hf_names: ClassVar[dict[str, str]] = BertConfig.hf_names | {
        "embeddings/projection": "embeddings.embed_proj",
        "embeddings_relative/table": "encoder.rel_embeddings",
        "embeddings_relative/norm": "encoder.LayerNorm",
        "layer_{}/attention/query": "encoder.layer.{}.attention.self.query_proj",
        "layer_{}/attention/key": "encoder.layer.{}.attention.self.key_proj",
        "layer_{}/attention/value": "encoder.layer.{}.attention.self.value_proj",
        "layer_{}/attention/position_query": "encoder.layer.{}.attention.self.pos_query_proj",
        "layer_{}/attention/position_key": "encoder.layer.{}.attention.self.pos_key_proj",
        "layer_{}/convolution": "encoder.conv.conv",
        "layer_{}/convolution_norm": "encoder.conv.LayerNorm",
    }
    hf_head: ClassVar[dict[str, str]] = BertConfig.hf_head

    vocab_size: int = 128100
    hidden_size: int = 1536
    num_hidden_layers: int = 24
    num_attention_heads: int = 24
    intermediate_size: int = 6144
    layer_norm_eps: float = 1e-7
    type_vocab_size: int = option(0, minimum=0)
    embedding_size: int = option(0, minimum=0)  # 0 is hidden_size
    attention_head_size: int = option(0, minimum=0)  # 0 is hidden_size / num_attention_heads
    position_biased_input: bool = option(True, True, False)
    relative_attention: bool = option(False, True, False)
    pos_att_type: tuple[str, ...] = ()
    share_att_key: bool = option(False, True, False)
    position_buckets: int = option(-1, minimum=-1)
    max_relative_positions: int = option(-1, minimum=-1)
    norm_rel_ebd: str = option("none", "none", "layer_norm")
    conv_kernel_size: int = option(0, minimum=0)
    conv_groups: int = 1
    conv_act: str = option("tanh", *ACTIVATIONS)

    @classmethod
    def from_json(cls, values):
        """Reads a parsed config.json; pos_att_type may be a list or "c2p|p2c"."""
        kinds = values.get("pos_att_type") or ()
        if isinstance(kinds, str):
            kinds = kinds.lower().split("|")
        return super().from_json(values | {"pos_att_type": tuple(kind.strip() for kind in kinds)})

    def __post_init__(self):
        super().__post_init__()
        for kind in self.pos_att_type:
            if kind not in ("c2p", "p2c"):
                raise BadInput(f"pos_att_type={kind!r} is not supported; supported are c2p and p2c")
        head = self.hidden_size // self.num_attention_heads
        if self.attention_head_size not in (0, head):
            raise BadInput(
                f"attention_head_size={self.attention_head_size} is not supported; it must be "
                "hidden_size / num_attention_heads"
            )
        if self.conv_kernel_size and not self.conv_kernel_size % 2:
            raise BadInput(f"conv_kernel_size={self.conv_kernel_size} must be odd")
        if self.hidden_size % self.conv_groups:
            raise BadInput("hidden_size must be a multiple of conv_groups")

    @property
    def head_act(self):
        return self.hidden_act

    @property
    def embedding_width(self):
        return self.embedding_size or self.hidden_size

    @property
    def has_position_table(self):
        return self.position_biased_input

    @property
    def max_tokens(self):
        """Relative positions set no limit: the longest distances share an embedding."""
        return self.max_position_embeddings if self.position_biased_input else None

    @property
    def longest(self) -> int:
        """Largest distance with an embedding that longer ones do not share."""
        if self.max_relative_positions < 1:
            return self.max_position_embeddings
        return self.max_relative_positions

    @property
    def span(self) -> int:
        """Half the number of rows of the distance table."""
        return self.position_buckets if self.position_buckets > 0 else self.longest


def rows_of_distances(config: DebertaConfig, distances: np.ndarray) -> np.ndarray:
    """Returns the table row of each distance (query position - key position), int [...].

    With buckets, distances up to half their number have a row each and longer ones share rows
    logarithmically. In float32, as the published weights were trained.
    """
    if config.position_buckets > 0:
        mid = config.position_buckets // 2
        size = np.maximum(np.abs(distances), mid).astype(np.float32)
        stretch = np.log(np.float32((config.longest - 1) / mid))
        far = mid + np.ceil(np.log(size / np.float32(mid)) / stretch * np.float32(mid - 1))
        near = np.abs(distances) <= mid
        distances = np.where(near, distances, np.sign(distances) * far).astype(np.int64)
    return np.clip(distances + config.span, 0, 2 * config.span - 1)


class DistanceEmbeddings(nn.Module):
    """Embeddings of the distances length - 1 down to -(length - 1), float32."""

    config: DebertaConfig

    @nn.compact
    def __call__(self, length: int) -> Float[Array, "distances width"]:
        config = self.config
        distances = length - 1 - np.arange(2 * length - 1)
        table = embed(2 * config.span, config.hidden_size, "table").embedding
        x = table[rows_of_distances(config, distances)]
        if config.norm_rel_ebd == "layer_norm":
            x = layer_norm(config.layer_norm_eps, "norm")(x)
        return x


class DisentangledAttention(nn.Module):
    """Attention by content and distance; `relative` holds the distance embeddings."""

    config: DebertaConfig
    dtype: str
    site: int

    @nn.compact
    def __call__(self, x, bias, dropout_seeds, relative):
        config, width = self.config, x.shape[-1]
        attn = config.num_attention_heads
        head = width // attn
        scale = (head * (1 + len(set(config.pos_att_type)))) ** -0.5

        def heads(x):
            return x.reshape(*x.shape[:-1], attn, head)

        project = {name: dense(width, self.dtype, name) for name in ("query", "key", "value")}
        query, key, value = (heads(layer(x)) for layer in project.values())
        if relative is not None and "c2p" in config.pos_att_type:
            if not config.share_att_key:
                project["key"] = dense(width, self.dtype, "position_key")
            terms = jnp.einsum("bqhd,mhd->bhqm", query, heads(project["key"](relative)))
            bias = bias + scale * shift(terms).astype(jnp.float32)
        if relative is not None and "p2c" in config.pos_att_type:
            if not config.share_att_key:
                project["query"] = dense(width, self.dtype, "position_query")
            # Seen from the key, distances have the opposite sign.
            terms = jnp.einsum("bkhd,mhd->bhkm", key, heads(project["query"](relative[::-1])))
            bias = bias + scale * shift(terms).astype(jnp.float32).swapaxes(2, 3)
        rate = config.attention_probs_dropout_prob
        mixed = dot_product_attention(
            query, key, value, bias, rate, dropout_seeds, self.site, scale=scale
        )
        return dense(width, self.dtype, "output")(mixed)


class Convolution(nn.Module):
    """Convolution over the tokens of each text, computed as a sum of products over taps.

    The kernel is [taps, width / groups, width]; each text is zero-padded.
    """

    config: DebertaConfig
    dtype: str

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch length width"],
        segments: Int[Array, "batch length"],
    ) -> Float[Array, "batch length width"]:
        taps, groups, width = self.config.conv_kernel_size, self.config.conv_groups, x.shape[-1]
        kernel = self.param("kernel", INIT, (taps, width // groups, width))
        bias = self.param("bias", nn.initializers.zeros_init(), (width,))
        kernel = kernel.reshape(taps, width // groups, groups, width // groups).astype(self.dtype)
        x = x.reshape(*x.shape[:2], groups, width // groups).astype(self.dtype)
        length, reach = x.shape[1], taps // 2
        border = [(0, 0), (reach, reach)]
        x = jnp.pad(x, border + [(0, 0), (0, 0)])
        text = jnp.pad(segments, border)
        total = bias.astype(self.dtype)[None, None]
        for tap in range(taps):
            here = slice(tap, tap + length)
            mine = (text[:, here] == segments)[:, :, None, None]
            part = jnp.einsum("blgi,igo->blgo", jnp.where(mine, x[:, here], 0), kernel[tap])
            total = total + part.reshape(*part.shape[:2], width)
        return total


class DebertaLayer(nn.Module):
    """Post-norm Transformer layer; the first may have a parallel convolution.

    It uses the dropout sites `site` to `site + 2`, and the convolution the one after all layers.
    """

    config: DebertaConfig
    dtype: str
    site: int
    convolved: bool

    @nn.compact
    def __call__(self, x, bias, dropout_seeds, relative, segments):
        config, inputs = self.config, x
        rate, epsilon = config.hidden_dropout_prob, config.layer_norm_eps
        attention = DisentangledAttention(config, self.dtype, self.site, name="attention")
        mixed = dropout(
            attention(x, bias, dropout_seeds, relative), rate, dropout_seeds, self.site + 1
        )
        x = layer_norm(epsilon, "attention_norm")(x + mixed).astype(self.dtype)
        feed_forward = FeedForward(
            config.intermediate_size, self.dtype, config.hidden_act, name="feed_forward"
        )
        hidden = dropout(feed_forward(x), rate, dropout_seeds, self.site + 2)
        x = layer_norm(epsilon, "feed_forward_norm")(x + hidden).astype(self.dtype)
        if not self.convolved:
            return x
        beside = Convolution(config, self.dtype, name="convolution")(inputs, segments)
        site = 2 + 3 * config.num_hidden_layers  # after those of the layers
        beside = ACTIVATIONS[config.conv_act](dropout(beside, rate, dropout_seeds, site))
        return layer_norm(epsilon, "convolution_norm")(x + beside).astype(self.dtype)


class DebertaEncoder(Encoder):
    """DeBERTa's encoder."""

    config: DebertaConfig

    def embed(self, *inputs):
        return Embeddings(self.config, projected=True, name="embeddings")(*inputs)

    def layers(self, attention_mask, segments, position_ids):
        config, relative = self.config, None
        if config.relative_attention:
            distances = DistanceEmbeddings(config, name="embeddings_relative")
            relative = distances(attention_mask.shape[1]).astype(self.dtype)
        texts = (attention_mask > 0).astype(jnp.int32) if segments is None else segments

        def with_distances(number):
            convolved = number == 0 and config.conv_kernel_size > 0
            layer = self.layer(DebertaLayer, number, convolved=convolved)
            return lambda x, bias, dropout_seeds: layer(x, bias, dropout_seeds, relative, texts)

        return [with_distances(number) for number in range(config.num_hidden_layers)]
