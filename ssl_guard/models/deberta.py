"""The DeBERTa-v2 and -v3 encoders (He et al. 2021, 2023): disentangled attention.

A score is the product of two contents, of a content and the distance to the other token (c2p), and
of a distance and the other token's content (p2c). In a row of T tokens there are only 2T - 1
distances: their embeddings are gathered once for all layers, multiplied with every token, and
shifted into place (layers.shift) where others gather T * T scores of every row and head.

One thing is left out: in training, PyTorch's transformers drop parts of the distances' embeddings.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ssl_guard.errors import BadInput
from ssl_guard.models.dropout import dropout
from ssl_guard.models.encoder import EncoderConfig, option, places, through
from ssl_guard.models.layers import (
    ACTIVATIONS,
    INIT,
    FeedForward,
    attend,
    dense,
    embed,
    layer_norm,
    remat,
    shift,
)


@dataclasses.dataclass(frozen=True)
class DebertaConfig(EncoderConfig):
    """The keys of a DeBERTa-v2's config.json that shape the encoder."""

    hf_names: ClassVar[dict[str, str]] = {
        "embeddings/word": "embeddings.word_embeddings",
        "embeddings/position": "embeddings.position_embeddings",
        "embeddings/token_type": "embeddings.token_type_embeddings",
        "embeddings/projection": "embeddings.embed_proj",
        "embeddings/norm": "embeddings.LayerNorm",
        "embeddings_relative/table": "encoder.rel_embeddings",
        "embeddings_relative/norm": "encoder.LayerNorm",
        "layer_{}/attention/query": "encoder.layer.{}.attention.self.query_proj",
        "layer_{}/attention/key": "encoder.layer.{}.attention.self.key_proj",
        "layer_{}/attention/value": "encoder.layer.{}.attention.self.value_proj",
        "layer_{}/attention/position_query": "encoder.layer.{}.attention.self.pos_query_proj",
        "layer_{}/attention/position_key": "encoder.layer.{}.attention.self.pos_key_proj",
        "layer_{}/attention/output": "encoder.layer.{}.attention.output.dense",
        "layer_{}/attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
        "layer_{}/feed_forward/up": "encoder.layer.{}.intermediate.dense",
        "layer_{}/feed_forward/down": "encoder.layer.{}.output.dense",
        "layer_{}/feed_forward_norm": "encoder.layer.{}.output.LayerNorm",
        "layer_{}/convolution": "encoder.conv.conv",
        "layer_{}/convolution_norm": "encoder.conv.LayerNorm",
    }
    hf_head: ClassVar[dict[str, str]] = {
        "dense": "cls.predictions.transform.dense",
        "norm": "cls.predictions.transform.LayerNorm",
        "": "cls.predictions",
    }

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
        """The config in the dict of a config.json; pos_att_type may be a list or "c2p|p2c"."""
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
    def max_tokens(self):
        """Distances beyond the longest share its embedding, so they set no limit."""
        return self.max_position_embeddings if self.position_biased_input else None

    @property
    def longest(self) -> int:
        """The largest distance that is told apart."""
        if self.max_relative_positions < 1:
            return self.max_position_embeddings
        return self.max_relative_positions

    @property
    def span(self) -> int:
        """Half of the rows of the table of distances."""
        return self.position_buckets if self.position_buckets > 0 else self.longest


def rows_of_distances(config: DebertaConfig, distances: np.ndarray) -> np.ndarray:
    """The table's row for query place - key place, int [...].

    With buckets, a distance up to half their number has one of its own and larger ones share them
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


class DebertaEmbeddings(nn.Module):
    """Sum of the embeddings, projected to the hidden size, normalised, in float32."""

    config: DebertaConfig

    @nn.compact
    def __call__(
        self,
        input_ids: Int[Array, "batch length"],
        token_type_ids: Int[Array, "batch length"],
        words: Float[Array, "batch length embedding"] | None = None,
        segments: Int[Array, "batch length"] | None = None,
    ) -> Float[Array, "batch length width"]:
        config = self.config
        width = config.embedding_size or config.hidden_size
        x = embed(config.vocab_size, width, "word")(input_ids) if words is None else words
        if config.position_biased_input:
            table = embed(config.max_position_embeddings, width, "position")
            x = x + table(places(config, input_ids, segments))
        if config.type_vocab_size:
            x = x + embed(config.type_vocab_size, width, "token_type")(token_type_ids)
        if width != config.hidden_size:
            x = dense(config.hidden_size, "float32", "projection", use_bias=False)(x)
        return layer_norm(config.layer_norm_eps, "norm")(x)


class DistanceEmbeddings(nn.Module):
    """The embeddings of the distances length - 1 down to -(length - 1), in float32."""

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
    """Attention of contents and distances; `relative` holds the embeddings of the distances."""

    config: DebertaConfig
    dtype: str
    site: int

    @nn.compact
    def __call__(self, x, bias, seeds, relative):
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
            # From the key's side, distances run the other way.
            terms = jnp.einsum("bkhd,mhd->bhkm", key, heads(project["query"](relative[::-1])))
            bias = bias + scale * shift(terms).astype(jnp.float32).swapaxes(2, 3)
        rate = config.attention_probs_dropout_prob
        mixed = attend(query, key, value, bias, rate, seeds, self.site, scale=scale)
        return dense(width, self.dtype, "output")(mixed)


class Convolution(nn.Module):
    """A convolution over neighbouring tokens of one text, as a sum of products.

    The kernel is [taps, width / groups, width]; what lies outside the text counts as 0.
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
    """A Transformer layer that normalises after each residual sum.

    The first one may have a convolution beside it. It uses the dropout sites `site` to `site + 2`.
    """

    config: DebertaConfig
    dtype: str
    site: int
    convolved: bool

    @nn.compact
    def __call__(self, x, bias, seeds, relative, segments):
        config, inputs = self.config, x
        rate, epsilon = config.hidden_dropout_prob, config.layer_norm_eps
        attention = DisentangledAttention(config, self.dtype, self.site, name="attention")
        mixed = dropout(attention(x, bias, seeds, relative), rate, seeds, self.site + 1)
        x = layer_norm(epsilon, "attention_norm")(x + mixed).astype(self.dtype)
        feed_forward = FeedForward(
            config.intermediate_size, self.dtype, config.hidden_act, name="feed_forward"
        )
        hidden = dropout(feed_forward(x), rate, seeds, self.site + 2)
        x = layer_norm(epsilon, "feed_forward_norm")(x + hidden).astype(self.dtype)
        if not self.convolved:
            return x
        beside = Convolution(config, self.dtype, name="convolution")(inputs, segments)
        site = 2 + 3 * config.num_hidden_layers  # past those of the layers
        beside = ACTIVATIONS[config.conv_act](dropout(beside, rate, seeds, site))
        return layer_norm(epsilon, "convolution_norm")(x + beside).astype(self.dtype)


class DebertaEncoder(nn.Module):
    """Hidden states of the last layer (encoder.py has the contract)."""

    config: DebertaConfig
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
        embeddings = DebertaEmbeddings(config, name="embeddings")
        x = embeddings(input_ids, token_type_ids, words, segments)
        x = dropout(x.astype(self.dtype), config.hidden_dropout_prob, seeds, 1)
        relative = None
        if config.relative_attention:
            distances = DistanceEmbeddings(config, name="embeddings_relative")
            relative = distances(input_ids.shape[1]).astype(self.dtype)
        texts = (attention_mask > 0).astype(jnp.int32) if segments is None else segments

        def with_distances(number):
            layer = remat(DebertaLayer, self.remat)(
                config,
                self.dtype,
                site=2 + 3 * number,
                convolved=number == 0 and config.conv_kernel_size > 0,
                name=f"layer_{number}",
            )
            return lambda x, bias, seeds: layer(x, bias, seeds, relative, texts)

        layers = [with_distances(number) for number in range(config.num_hidden_layers)]
        return through(layers, x, attention_mask, seeds, segments, **mixing)
