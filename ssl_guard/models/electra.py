"""ELECTRA (Clark et al. 2020): BERT with narrower embeddings, projected to the hidden size."""

import dataclasses
from typing import ClassVar

from ssl_guard.models.bert import BertConfig
from ssl_guard.models.encoder import Encoder
from ssl_guard.models.encoder_config import EncoderConfig


@dataclasses.dataclass(frozen=True)
class ElectraConfig(EncoderConfig):
    """ELECTRA's config."""

    hf_names: ClassVar[dict[str, str]] = BertConfig.hf_names | {
        "embeddings_projection": "embeddings_project"
    }
    hf_head: ClassVar[dict[str, str]] = {  # generators only; a discriminator has none
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

    @property
    def embedding_width(self):
        return self.embedding_size


class ElectraEncoder(Encoder):
    """ELECTRA's encoder."""
