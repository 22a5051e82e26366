"""What every encoder has: the keys of a config.json that shape it, and the way through its layers.

All encoders are called alike, float32 or bfloat16 hidden states [batch, length, width] coming out:

    encoder.apply({"params": p}, input_ids, attention_mask, token_type_ids, seeds, *,
                  words=None, segments=None, mix=None, mix_layer=0, mixed_mask=None)

input_ids, attention_mask (1 for real tokens, 0 for the pads after them), token_type_ids (unread by
    an architecture without them): int32 [batch, length].
seeds: of dropout.row_seeds, or of dropout.token_seeds with segments; None for no dropout. Site 1
    and up are the encoder's.
words: float32 [batch, length, width of the word table], read in place of the word embeddings.
segments: int32 [batch, length], the numbers of the texts that share a row: from 1, each text in one
    piece, 0 for pads. A text then gets the states that it has in a row of its own. The caller sees
    to it that no text is longer than the encoder's positions. Not with mix.
mix, mix_layer, mixed_mask: see `through`.

A fully padded row stays finite.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ssl_guard.errors import BadInput
from ssl_guard.models.dropout import Seeds
from ssl_guard.models.layers import ACTIVATIONS, PostNormLayer, attention_bias, positions, remat


def option(default, *choices, **limits):
    """A field of a config: one of `choices`, or a number of at least `minimum`.

    A field without it takes any whole number from 1, any number from 0, or its default only.
    """
    return dataclasses.field(default=default, metadata={"choices": choices, **limits})


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Keys that all architectures know, with the defaults that transformers gives them.

    hf_names: Flax module -> Hugging Face module; {} is the number of the layer.
    hf_head: the same for the head that names masked words (masked_lm.Head); "" is the head itself.
    hf_keys: a field here -> its key in config.json, where they differ.
    """

    hf_names: ClassVar[dict[str, str]] = {}
    hf_head: ClassVar[dict[str, str]] = {}
    hf_keys: ClassVar[dict[str, str]] = {}

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    hidden_act: str = option("gelu", *ACTIVATIONS)

    @classmethod
    def from_json(cls, values: dict[str, Any]):
        """The config in the dict of a config.json; other keys are left out, null is the default."""
        found = {}
        for field in dataclasses.fields(cls):
            key = cls.hf_keys.get(field.name, field.name)
            if values.get(key) is not None:
                found[field.name] = values[key]
        return cls(**found)

    @property
    def max_tokens(self) -> int | None:
        """Tokens of the longest text that the encoder has positions for; None for any length."""
        return self.max_position_embeddings

    @property
    def head_act(self) -> str:
        """The activation in the head that names masked words."""
        return "gelu"

    def to_json(self) -> dict[str, Any]:
        """The keys of config.json that a classifier may have changed."""
        return {self.key("num_hidden_layers"): self.num_hidden_layers}

    def key(self, name: str) -> str:
        """The key of a field in config.json."""
        return self.hf_keys.get(name, name)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            self._check(field, getattr(self, field.name))
        if self.hidden_size % self.num_attention_heads:
            raise BadInput(
                f"{self.key('hidden_size')} must be a multiple of {self.key('num_attention_heads')}"
            )

    def _check(self, field, value):
        name, limits = self.key(field.name), field.metadata
        if field.type is int:
            minimum = limits.get("minimum", 1)
            if type(value) is not int or value < minimum:
                raise BadInput(f"{name}={value!r} must be a whole number of at least {minimum}")
        elif field.type is float:
            if type(value) not in (int, float) or not 0 <= value < float("inf"):
                raise BadInput(f"{name}={value!r} must be a number of at least 0")
        elif field.type in (str, bool):
            choices = limits.get("choices") or (field.default,)
            if type(value) is not field.type or value not in choices:
                only = ", ".join(map(repr, choices))
                raise BadInput(f"{name}={value!r} is not supported; supported are {only}")


def places(
    config: EncoderConfig,
    input_ids: Int[Array, "batch length"],
    segments: Int[Array, "batch length"] | None,
) -> Int[Array, "rows length"]:
    """Places counted from 0 in every text; raises BadInput if the table has too few."""
    length = input_ids.shape[1]
    if segments is not None:
        return positions((segments > 0).astype(jnp.int32), segments)
    check_length(length, config.max_tokens)
    return jnp.arange(length)[None]


def places_after_padding(
    config: EncoderConfig,
    padding: int,
    input_ids: Int[Array, "batch length"],
    segments: Int[Array, "batch length"] | None,
) -> Int[Array, "batch length"]:
    """Places counted from padding + 1, as fairseq does: the token `padding` has none, its row of
    the table is `padding`."""
    if segments is None:
        check_length(input_ids.shape[1], config.max_tokens)
    real = (input_ids != padding).astype(jnp.int32)
    if segments is not None:
        real = real * (segments > 0)
    return (positions(real, segments) + 1) * real + padding


def check_length(length: int, longest: int):
    """Raises BadInput for a batch that has more tokens than the encoder has positions."""
    if length > longest:
        raise BadInput(
            f"a batch is {length} tokens long but the encoder has only {longest} positions; lower "
            "the maximum length"
        )


def post_norm_layers(config: EncoderConfig, dtype: str, remat_layers: bool) -> list[PostNormLayer]:
    """The layers of BERT and its family, called layer_0, layer_1, ... in the calling module."""
    return [
        remat(PostNormLayer, remat_layers)(
            attn=config.num_attention_heads,
            mlp=config.intermediate_size,
            epsilon=config.layer_norm_eps,
            dropout=config.hidden_dropout_prob,
            attention_dropout=config.attention_probs_dropout_prob,
            dtype=dtype,
            site=2 + 3 * number,
            activation=config.hidden_act,
            name=f"layer_{number}",
        )
        for number in range(config.num_hidden_layers)
    ]


def through(
    layers: Sequence[Callable[..., jax.Array]],
    x: Float[Array, "batch length width"],
    attention_mask: Int[Array, "batch length"],
    seeds: Seeds | None,
    segments: Int[Array, "batch length"] | None = None,
    *,
    mix: Callable | None = None,
    mix_layer: Int[Array, ""] | int = 0,
    mixed_mask: Int[Array, "batch length"] | None = None,
) -> Float[Array, "batch length width"]:
    """x after all layers, each called as layer(x, bias, seeds).

    mix: a function that mixes the rows of an array [batch, ...]; the real tokens' states go
    through it once, above layer number `mix_layer` (1 is the lowest), and from there on the
    real tokens are those of `mixed_mask`.
    """
    if segments is not None and mix is not None:
        raise BadInput("rows of several texts cannot be mixed; leave out segments or mix")
    bias = attention_bias(attention_mask, segments)

    def mix_tokens(x):
        return mix(jnp.where((attention_mask > 0)[:, :, None], x, 0))

    for number, layer in enumerate(layers, start=1):
        x = layer(x, bias, seeds)
        if mix is not None:
            here = mix_layer == number
            x = jax.lax.cond(here, mix_tokens, lambda x: x, x)
            bias = jnp.where(here, attention_bias(mixed_mask), bias)
    return x
