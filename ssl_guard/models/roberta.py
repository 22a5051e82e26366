"""RoBERTa (Liu et al. 2019), XLM-RoBERTa, CamemBERT: BERT with positions from pad_token_id + 1."""

import dataclasses
from typing import ClassVar

from ssl_guard.models.bert import BertConfig
from ssl_guard.models.encoder import Encoder
from ssl_guard.models.encoder_config import EncoderConfig, option


@dataclasses.dataclass(frozen=True)
class RobertaConfig(EncoderConfig):
    """RoBERTa's config."""

    hf_names: ClassVar[dict[str, str]] = BertConfig.hf_names
    hf_head: ClassVar[dict[str, str]] = {
        "dense": "lm_head.dense",
        "norm": "lm_head.layer_norm",
        "": "lm_head",
    }

    vocab_size: int = 50265
    type_vocab_size: int = 2
    pad_token_id: int = option(1, minimum=0)
    position_embedding_type: str = "absolute"
    is_decoder: bool = False

    @property
    def position_padding_id(self):
        return self.pad_token_id


class RobertaEncoder(Encoder):
    """RoBERTa's encoder."""
