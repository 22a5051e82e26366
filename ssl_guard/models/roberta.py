"""The RoBERTa encoder (Liu et al. 2019); XLM-RoBERTa and CamemBERT are RoBERTas too.

It is a BERT whose positions are counted from the padding token's number + 1.
"""

import dataclasses
from typing import ClassVar

import flax.linen as nn

from ssl_guard.models.bert import HF_NAMES
from ssl_guard.models.dropout import dropout
from ssl_guard.models.encoder import (
    EncoderConfig,
    option,
    places_after_padding,
    post_norm_layers,
    through,
)
from ssl_guard.models.layers import Embeddings


@dataclasses.dataclass(frozen=True)
class RobertaConfig(EncoderConfig):
    """The keys of a RoBERTa's config.json that shape the encoder."""

    hf_names: ClassVar[dict[str, str]] = HF_NAMES
    hf_head: ClassVar[dict[str, str]] = {
        "dense": "lm_head.dense",
        "norm": "lm_head.layer_norm",
        "": "lm_head",
    }

    vocab_size: int = 50265
    type_vocab_size: int = 2
    pad_token_id: int = option(1, minimum=0)

    @property
    def max_tokens(self):
        return self.max_position_embeddings - self.pad_token_id - 1

    position_embedding_type: str = "absolute"
    is_decoder: bool = False


class RobertaEncoder(nn.Module):
    """Hidden states of the last layer (encoder.py has the contract)."""

    config: RobertaConfig
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
            types=config.type_vocab_size,
            width=config.hidden_size,
            epsilon=config.layer_norm_eps,
            name="embeddings",
        )
        where = places_after_padding(config, config.pad_token_id, input_ids, segments)
        x = embeddings(input_ids, where, token_type_ids, words)
        x = dropout(x.astype(self.dtype), config.hidden_dropout_prob, seeds, 1)
        layers = post_norm_layers(config, self.dtype, self.remat)
        return through(layers, x, attention_mask, seeds, segments, **mixing)
