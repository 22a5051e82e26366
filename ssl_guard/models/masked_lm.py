"""An encoder with a masked-LM head, for continued pre-training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssl_guard.models import convert
from ssl_guard.models.classifier import build, hidden_states, init_from_pretrained
from ssl_guard.models.layers import ACTIVATIONS, dense, layer_norm
from ssl_guard.models.pretrained import resolve


class MaskedLM(NamedTuple):
    """A masked language model.

    init(rng, batch) -> params {"encoder": ..., "head": ...} from the model's weights; the head is
        random if these have none.
    apply(params, batch, places, rng, train) -> logits, float32 [rows, chosen, vocab], of the tokens
        at the positions `places`, int32 [rows, chosen]. Batches may be packed.
    config: of the encoder.
    """

    init: Callable[..., Any]
    apply: Callable[..., jax.Array]
    config: Any


class Head(nn.Module):
    """Dense layer, activation, LayerNorm and tied output embeddings (Devlin et al. 2019)."""

    epsilon: float
    vocab: int
    dtype: str
    activation: str = "gelu"

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "rows chosen width"], table: Float[Array, "vocab embedding"]
    ) -> Float[Array, "rows chosen vocab"]:
        x = ACTIVATIONS[self.activation](dense(table.shape[-1], self.dtype, "dense")(hidden))
        x = layer_norm(self.epsilon, "norm")(x).astype(self.dtype)
        logits = jnp.einsum("rcw,vw->rcv", x, table.astype(self.dtype))
        bias = self.param("bias", nn.initializers.zeros, (self.vocab,))
        return logits.astype(jnp.float32) + bias[None, None]


def build_masked_lm(
    name_or_folder: str | Path, *, num_layers: int, dropout: float, dtype: str
) -> MaskedLM:
    """Builds a masked language model; options and errors are those of `classifier.build`."""
    classifier = build(name_or_folder, num_layers=num_layers, dropout=dropout, dtype=dtype)
    config, encoder = classifier.config, classifier.encoder
    head = Head(config.layer_norm_eps, config.vocab_size, dtype, config.head_act)

    def table(params):
        return params["embeddings"]["word"]["embedding"]

    def init(rng, batch):
        params = init_from_pretrained(classifier, name_or_folder, rng, batch)["encoder"]
        hidden = jnp.zeros((1, 1, config.hidden_size))
        rng = jax.random.fold_in(rng, 2)
        fresh = jax.jit(head.init)(rng, hidden, table(params))["params"]
        stored = convert.load_head(resolve(name_or_folder), fresh, config)
        return {
            "encoder": params,
            "head": fresh if stored is None else jax.tree.map(jnp.array, stored),
        }

    def apply(params, batch, places, rng, train):
        hidden = hidden_states(encoder, params["encoder"], batch, rng, train)
        chosen = jnp.take_along_axis(hidden, places[:, :, None], axis=1)
        return head.apply({"params": params["head"]}, chosen, table(params["encoder"]))

    return MaskedLM(init, apply, config)
