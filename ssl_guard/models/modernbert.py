"""ModernBERT (Warner et al. 2024): rotary positions, GeGLU, pre-norm, and local attention in most
layers."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssl_guard.errors import BadInput
from ssl_guard.models.dropout import dropout
from ssl_guard.models.encoder import Encoder
from ssl_guard.models.encoder_config import EncoderConfig, option
from ssl_guard.models.layers import ACTIVATIONS, dense, dot_product_attention, layer_norm

GLOBAL, LOCAL = "full_attention", "sliding_attention"  # kinds of layers


@dataclasses.dataclass(frozen=True)
class ModernBertConfig(EncoderConfig):
    """ModernBERT's config."""

    hf_names: ClassVar[dict[str, str]] = {
        "embeddings/word": "embeddings.tok_embeddings",
        "embeddings/norm": "embeddings.norm",
        "layer_{}/attention_norm": "layers.{}.attn_norm",
        "layer_{}/attention/query_key_value": "layers.{}.attn.Wqkv",
        "layer_{}/attention/output": "layers.{}.attn.Wo",
        "layer_{}/feed_forward_norm": "layers.{}.mlp_norm",
        "layer_{}/feed_forward/up": "layers.{}.mlp.Wi",
        "layer_{}/feed_forward/down": "layers.{}.mlp.Wo",
        "final_norm": "final_norm",
    }
    hf_head: ClassVar[dict[str, str]] = {"dense": "head.dense", "norm": "head.norm", "": "decoder"}
    hf_keys: ClassVar[dict[str, str]] = {
        "layer_norm_eps": "norm_eps",
        "hidden_act": "hidden_activation",
        "hidden_dropout_prob": "mlp_dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }

    vocab_size: int = 50368
    intermediate_size: int = 1152
    num_hidden_layers: int = 22
    max_position_embeddings: int = 8192
    layer_norm_eps: float = 1e-5
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    norm_bias: bool = option(False, True, False)
    attention_bias: bool = option(False, True, False)
    mlp_bias: bool = option(False, True, False)
    local_attention: int = 128
    layer_types: tuple[str, ...] = ()
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0

    @classmethod
    def from_json(cls, values):
        """Reads a parsed config.json, in the older form (global_attn_every_n_layers,
        global_rope_theta) or the newer one (layer_types, rope_parameters)."""
        values = dict(values)
        types = values.get("layer_types")
        if types is None:
            every = values.get("global_attn_every_n_layers", 3)
            if type(every) is not int or every < 1:
                raise BadInput(
                    f"global_attn_every_n_layers={every!r} must be a whole number of at least 1"
                )
            layers = values.get("num_hidden_layers", cls.num_hidden_layers)
            types = [LOCAL if number % every else GLOBAL for number in range(layers)]
        values["layer_types"] = tuple(types)
        rope = values.get("rope_parameters") or {}
        for kind, key in ((GLOBAL, "global_rope_theta"), (LOCAL, "local_rope_theta")):
            chosen = rope.get(kind) or {}
            if chosen.get("rope_type", "default") != "default" or values.get("rope_scaling"):
                raise BadInput("only rope_type='default' is supported, without rope_scaling")
            values[key] = chosen.get("rope_theta", values.get(key))
        return super().from_json(values)

    def to_json(self):
        return super().to_json() | {"layer_types": list(self.layer_types[: self.num_hidden_layers])}

    @property
    def has_position_table(self):
        return False

    def __post_init__(self):
        super().__post_init__()
        if len(self.layer_types) < self.num_hidden_layers:
            raise BadInput("layer_types must name the kind of every layer")
        for kind in self.layer_types:
            if kind not in (GLOBAL, LOCAL):
                raise BadInput(
                    f"layer_types={kind!r} is not supported; supported are {GLOBAL} and {LOCAL}"
                )
        if self.hidden_size // self.num_attention_heads % 2:
            raise BadInput("hidden_size / num_attention_heads must be even for rotary positions")


def angles(position_ids: Int[Array, "rows length"], head: int, theta: float):
    """Returns the rotation angles, float32 [rows, length, 1, head / 2]."""
    frequencies = 1.0 / theta ** (jnp.arange(0, head, 2, dtype=jnp.float32) / head)
    return position_ids[:, :, None, None].astype(jnp.float32) * frequencies[None, None, None]


def rotate(
    x: Float[Array, "batch length attn head"], angle: Float[Array, "rows length 1 half"]
) -> Float[Array, "batch length attn head"]:
    """Rotates dimensions i and i + head / 2 by the angle of the position, in float32 (rotary
    positions, Su et al. 2021)."""
    one, two = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([one * cos - two * sin, two * cos + one * sin], -1).astype(x.dtype)


class ModernBertAttention(nn.Module):
    """Self-attention with rotary positions."""

    config: ModernBertConfig
    dtype: str
    site: int

    @nn.compact
    def __call__(self, x, bias, dropout_seeds, angle):
        config, width = self.config, x.shape[-1]
        attn = config.num_attention_heads
        mixed = dense(3 * width, self.dtype, "query_key_value", config.attention_bias)(x)
        mixed = mixed.reshape(*x.shape[:2], 3, attn, width // attn)
        query, key, value = (mixed[:, :, part] for part in range(3))
        query, key = rotate(query, angle), rotate(key, angle)
        rate = config.attention_probs_dropout_prob
        mixed = dot_product_attention(query, key, value, bias, rate, dropout_seeds, self.site)
        return dense(width, self.dtype, "output", config.attention_bias)(mixed)


class GatedFeedForward(nn.Module):
    """GeGLU (Shazeer 2020): one half of the hidden layer, activated, gates the other."""

    config: ModernBertConfig
    dtype: str
    site: int

    @nn.compact
    def __call__(self, x, dropout_seeds):
        config = self.config
        bias = config.mlp_bias
        hidden = dense(2 * config.intermediate_size, self.dtype, "up", bias)(x)
        hidden, gate = jnp.split(hidden, 2, axis=-1)
        hidden = ACTIVATIONS[config.hidden_act](hidden) * gate
        hidden = dropout(hidden, config.hidden_dropout_prob, dropout_seeds, self.site)
        return dense(x.shape[-1], self.dtype, "down", bias)(hidden)


class ModernBertLayer(nn.Module):
    """Pre-norm Transformer layer; the first has no attention norm, as embeddings are normalised.

    It uses the dropout sites `site` to `site + 2`.
    """

    config: ModernBertConfig
    dtype: str
    site: int
    first: bool

    @nn.compact
    def __call__(self, x, bias, dropout_seeds, angle):
        config = self.config
        epsilon, rate = config.layer_norm_eps, config.hidden_dropout_prob
        normed = x
        if not self.first:
            normed = layer_norm(epsilon, "attention_norm", config.norm_bias)(x).astype(self.dtype)
        attention = ModernBertAttention(config, self.dtype, self.site, name="attention")
        x = x + dropout(
            attention(normed, bias, dropout_seeds, angle), rate, dropout_seeds, self.site + 1
        )
        normed = layer_norm(epsilon, "feed_forward_norm", config.norm_bias)(x).astype(self.dtype)
        feed_forward = GatedFeedForward(config, self.dtype, self.site + 2, name="feed_forward")
        return x + feed_forward(normed, dropout_seeds)


class ModernBertEncoder(Encoder):
    """ModernBERT's encoder."""

    config: ModernBertConfig

    def layers(self, attention_mask, segments, position_ids):
        config = self.config
        head = config.hidden_size // config.num_attention_heads
        angle = {
            GLOBAL: angles(position_ids, head, config.global_rope_theta),
            LOCAL: angles(position_ids, head, config.local_rope_theta),
        }
        token = jnp.arange(attention_mask.shape[1])
        far = jnp.abs(token[:, None] - token[None]) > config.local_attention // 2
        window = jnp.where(far, -1e9, 0.0)[None, None]

        def with_positions(number):
            kind = config.layer_types[number]
            layer = self.layer(ModernBertLayer, number, first=number == 0)

            def call(x, bias, dropout_seeds):
                bias = bias + window if kind == LOCAL else bias
                return layer(x, bias, dropout_seeds, angle[kind])

            return call

        return [with_positions(number) for number in range(config.num_hidden_layers)]

    def output(self, x):
        config = self.config
        norm = layer_norm(config.layer_norm_eps, "final_norm", config.norm_bias)
        return norm(x).astype(self.dtype)
