"""The ELECTRA encoder (Clark et al. 2020): a BERT whose embeddings may be narrower than its layers
and are then projected."""

import dataclasses
from typing import ClassVar

import flax.linen as nn

from ssl_guard.models.bert import HF_NAMES
from ssl_guard.models.dropout import dropout
from ssl_guard.models.encoder import EncoderConfig, places, post_norm_layers, through
from ssl_guard.models.layers import Embeddings, dense


@dataclasses.dataclass(frozen=True)
class ElectraConfig(EncoderConfig):
    """The keys of an ELECTRA's config.json that shape the encoder."""

    hf_names: ClassVar[dict[str, str]] = HF_NAMES | {"embeddings_projection": "embeddings_project"}
    hf_head: ClassVar[dict[str, str]] = {  # of a generator; a discriminator has none
        "dense": "generator_predictions.dense",
        "norm": "generator_predictions.LayerNorm",
        "": "generator_lm_head",
    }

    embedding_size: int = 128
    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    type_vocab_size: int = 2
    position_embedding_type: str = "absolute"
    is_decoder: bool = False


class ElectraEncoder(nn.Module):
    """Hidden states of the last layer (encoder.py has the contract)."""

    config: ElectraConfig
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
            width=config.embedding_size,
            epsilon=config.layer_norm_eps,
            name="embeddings",
        )
        x = embeddings(input_ids, places(config, input_ids, segments), token_type_ids, words)
        x = dropout(x.astype(self.dtype), config.hidden_dropout_prob, seeds, 1)
        if config.embedding_size != config.hidden_size:
            x = dense(config.hidden_size, self.dtype, "embeddings_projection")(x)
        layers = post_norm_layers(config, self.dtype, self.remat)
        return through(layers, x, attention_mask, seeds, segments, **mixing)
