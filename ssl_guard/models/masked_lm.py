"""An encoder under a head that names masked words, for continued pre-training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssl_guard.models.classifier import build, hidden_states, init_from_pretrained
from ssl_guard.models.layers import dense, gelu, layer_norm


class MaskedLM(NamedTuple):
    """init(rng, batch) -> params {"encoder": ..., "head": ...}, from the model's weights, the head
    at random.
    apply(params, batch, places, rng, train) -> logits, float32 [rows, chosen, vocab], of the tokens
    at `places`, int32 [rows, chosen], of each row. Batches may be packed.
    config: the encoder's.
    """

    init: Callable[..., Any]
    apply: Callable[..., jax.Array]
    config: Any


class Head(nn.Module):
    """Dense layer, GELU, LayerNorm, and a product with the table of words (Devlin et al. 2019)."""

    epsilon: float
    vocab: int
    dtype: str

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "rows chosen width"], words: Float[Array, "vocab embedding"]
    ) -> Float[Array, "rows chosen vocab"]:
        x = gelu(dense(words.shape[-1], self.dtype, "dense")(hidden))
        x = layer_norm(self.epsilon, "norm")(x).astype(self.dtype)
        logits = jnp.einsum("rcw,vw->rcv", x, words.astype(self.dtype))
        bias = self.param("bias", nn.initializers.zeros, (self.vocab,))
        return logits.astype(jnp.float32) + bias[None, None]


def build_masked_lm(
    name_or_folder: str | Path, *, num_layers: int, dropout: float, dtype: str
) -> MaskedLM:
    """For the options see `build`. Raises BadInput on what cannot be built."""
    classifier = build(name_or_folder, num_layers=num_layers, dropout=dropout, dtype=dtype)
    config, encoder = classifier.config, classifier.encoder
    epsilon = getattr(config, "layer_norm_eps", 1e-12)
    head = Head(epsilon, config.vocab_size, dtype)

    def table(params):
        return params["embeddings"]["word"]["embedding"]

    def init(rng, batch):
        params = init_from_pretrained(classifier, name_or_folder, rng, batch)["encoder"]
        hidden = jnp.zeros((1, 1, config.hidden_size))
        rng = jax.random.fold_in(rng, 2)
        return {
            "encoder": params,
            "head": jax.jit(head.init)(rng, hidden, table(params))["params"],
        }

    def apply(params, batch, places, rng, train):
        hidden = hidden_states(encoder, params["encoder"], batch, rng, train)
        chosen = jnp.take_along_axis(hidden, places[:, :, None], axis=1)
        return head.apply({"params": params["head"]}, chosen, table(params["encoder"]))

    return MaskedLM(init, apply, config)
