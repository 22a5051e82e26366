"""DistilBERT (Sanh et al. 2019): BERT without token types."""

import dataclasses
from typing import ClassVar

from ssl_guard.models.encoder import Encoder
from ssl_guard.models.encoder_config import EncoderConfig


@dataclasses.dataclass(frozen=True)
class DistilBertConfig(EncoderConfig):
    """DistilBERT's config."""

    hf_names: ClassVar[dict[str, str]] = {
        "embeddings/word": "embeddings.word_embeddings",
        "embeddings/position": "embeddings.position_embeddings",
        "embeddings/norm": "embeddings.LayerNorm",
        "layer_{}/attention/query": "transformer.layer.{}.attention.q_lin",
        "layer_{}/attention/key": "transformer.layer.{}.attention.k_lin",
        "layer_{}/attention/value": "transformer.layer.{}.attention.v_lin",
        "layer_{}/attention/output": "transformer.layer.{}.attention.out_lin",
        "layer_{}/attention_norm": "transformer.layer.{}.sa_layer_norm",
        "layer_{}/feed_forward/up": "transformer.layer.{}.ffn.lin1",
        "layer_{}/feed_forward/down": "transformer.layer.{}.ffn.lin2",
        "layer_{}/feed_forward_norm": "transformer.layer.{}.output_layer_norm",
    }
    hf_head: ClassVar[dict[str, str]] = {
        "dense": "vocab_transform",
        "norm": "vocab_layer_norm",
        "": "vocab_projector",
    }
    hf_keys: ClassVar[dict[str, str]] = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "hidden_act": "activation",
        "layer_norm_eps": "",  # no key: always 1e-12
    }

    num_hidden_layers: int = 6

    @property
    def head_act(self):
        return self.hidden_act


class DistilBertEncoder(Encoder):
    """DistilBERT's encoder."""
