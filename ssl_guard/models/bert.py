"""The BERT encoder (Devlin et al. 2019); MiniLM, toxic-bert and HateBERT are BERTs too."""

import dataclasses
from typing import ClassVar

import flax.linen as nn

from ssl_guard.models.dropout import dropout
from ssl_guard.models.encoder import EncoderConfig, places, post_norm_layers, through
from ssl_guard.models.layers import Embeddings

HF_NAMES = {
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


@dataclasses.dataclass(frozen=True)
class BertConfig(EncoderConfig):
    """The keys of a BERT's config.json that shape the encoder."""

    hf_names: ClassVar[dict[str, str]] = HF_NAMES
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


class BertEncoder(nn.Module):
    """Hidden states of the last layer (encoder.py has the contract)."""

    config: BertConfig
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
        x = embeddings(input_ids, places(config, input_ids, segments), token_type_ids, words)
        x = dropout(x.astype(self.dtype), config.hidden_dropout_prob, seeds, 1)
        layers = post_norm_layers(config, self.dtype, self.remat)
        return through(layers, x, attention_mask, seeds, segments, **mixing)
