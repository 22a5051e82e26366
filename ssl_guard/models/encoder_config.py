"""Encoder configs: the keys of a Hugging Face config.json that shape an encoder."""

import dataclasses
from typing import Any, ClassVar

from ssl_guard.errors import BadInput
from ssl_guard.models.layers import ACTIVATIONS


def option(default, *choices, **limits):
    """Declares a config field limited to `choices`, or to integers of at least `minimum`.

    Other fields accept integers from 1, floats from 0, or (strings and booleans) their default.
    """
    return dataclasses.field(default=default, metadata={"choices": choices, **limits})


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Fields shared by all architectures, with the defaults of transformers.

    hf_names: maps Flax modules to Hugging Face modules; {} stands for the layer number.
    hf_head: the same for the masked-LM head (masked_lm.Head); "" is the head itself.
    hf_keys: maps fields to keys of config.json where the names differ.
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
        """Reads the fields from a parsed config.json; null means the default."""
        found = {}
        for field in dataclasses.fields(cls):
            key = cls.hf_keys.get(field.name, field.name)
            if values.get(key) is not None:
                found[field.name] = values[key]
        return cls(**found)

    @property
    def embedding_width(self) -> int:
        """Width of the embedding tables."""
        return self.hidden_size

    @property
    def type_vocab_size(self) -> int:
        """Rows of the token-type table; 0 for no table."""
        return 0

    @property
    def has_position_table(self) -> bool:
        """Whether position embeddings are added to the word embeddings."""
        return True

    @property
    def norm_bias(self) -> bool:
        """Whether LayerNorms have a bias."""
        return True

    @property
    def position_padding_id(self) -> int | None:
        """Token id that gets no position, see `encoder.position_ids`; None if all tokens do."""
        return None

    @property
    def max_tokens(self) -> int | None:
        """Largest number of tokens of a text; None for no limit."""
        if self.position_padding_id is None:
            return self.max_position_embeddings
        return self.max_position_embeddings - self.position_padding_id - 1

    @property
    def head_act(self) -> str:
        """Activation of the masked-LM head."""
        return "gelu"

    def to_json(self) -> dict[str, Any]:
        """Returns the keys of config.json that `classifier.build` may change."""
        return {self.key("num_hidden_layers"): self.num_hidden_layers}

    def key(self, name: str) -> str:
        """Returns a field's key in config.json."""
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
