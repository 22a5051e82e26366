"""The DistilBERT encoder (Sanh et al. 2019): a BERT without token types, under names of its own."""

import dataclasses
from typing import ClassVar

import flax.linen as nn

from ssl_guard.models.dropout import dropout
from ssl_guard.models.encoder import EncoderConfig, places, post_norm_layers, through
from ssl_guard.models.layers import Embeddings


@dataclasses.dataclass(frozen=True)
class DistilBertConfig(EncoderConfig):
    """The keys of a DistilBERT's config.json that shape the encoder."""

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
        "layer_norm_eps": "",  # not a key: DistilBERT's is always 1e-12
    }

    num_hidden_layers: int = 6

    @property
    def head_act(self):
        return self.hidden_act


class DistilBertEncoder(nn.Module):
    """Hidden states of the last layer (encoder.py has the contract)."""

    config: DistilBertConfig
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
            types=0,
            width=config.hidden_size,
            epsilon=config.layer_norm_eps,
            name="embeddings",
        )
        x = embeddings(input_ids, places(config, input_ids, segments), token_type_ids, words)
        x = dropout(x.astype(self.dtype), config.hidden_dropout_prob, seeds, 1)
        layers = post_norm_layers(config, self.dtype, self.remat)
        return through(layers, x, attention_mask, seeds, segments, **mixing)
