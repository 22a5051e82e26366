"""BERT (Devlin et al. 2019); also MiniLM, toxic-bert and HateBERT."""

import dataclasses
from typing import ClassVar

from ssl_guard.models.encoder import Encoder
from ssl_guard.models.encoder_config import EncoderConfig


@dataclasses.dataclass(frozen=True)
class BertConfig(EncoderConfig):
    """BERT's config."""

    hf_names: ClassVar[dict[str, str]] = {
        "embeddings/word": "embeddings.word_embeddings",
        "embeddings/position": "embeddings.position_embeddings",
        "embeddings/token_type": "embeddings.token_type_embeddings",
        "embeddings/norm": "embeddings.LayerNorm",
        "layer_{}/attention/query": "encoder.layer.{}.attention.self.query",
        "layer_{}/attention/key": "encoder.layer.{}.attention.self.key",
        "layer_{}/attention/value": "encoder.layer.{}.attention.self.value",
        "layer_{}/attention/output": "encoder.layer.{}.attention.output.dense",
        "layer_{}/attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
        "layer_{}/feed_forward/up": "encoder.layer.{}.intermediate.dense",
        "layer_{}/feed_forward/down": "encoder.layer.{}.output.dense",
        "layer_{}/feed_forward_norm": "encoder.layer.{}.output.LayerNorm",
    }
    hf_head: ClassVar[dict[str, str]] = {
        "dense": "cls.predictions.transform.dense",
        "norm": "cls.predictions.transform.LayerNorm",
        "": "cls.predictions",
    }

    type_vocab_size: int = 2
    position_embedding_type: str = "absolute"
    is_decoder: bool = False

    @property
    def head_act(self):
        return self.hidden_act


class BertEncoder(Encoder):
    """BERT's encoder."""
