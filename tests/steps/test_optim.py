"""Layer-wise rates and frozen parameters, on the names and graphs of the encoders themselves."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_guard import models
from ssl_guard.models.architectures import ARCHITECTURES
from ssl_guard.steps import optim

# The architectures' own names of the same sizes.
SIZES = {
    **{key: 16 for key in ("hidden_size", "dim")},
    **{key: 2 for key in ("num_hidden_layers", "n_layers")},
    **{key: 4 for key in ("num_attention_heads", "n_heads")},
    **{key: 24 for key in ("intermediate_size", "hidden_dim")},
    "vocab_size": 40,
    "embedding_size": 8,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "max_position_embeddings": 32,
}


LAYERS = tuple(f"layer_{number}" for number in range(12))


def build(folder, kind="bert"):
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **SIZES}))
    model = models.build(folder)
    token = jnp.ones((2, 4), jnp.int32)
    batch = {
        "input_ids": token,
        "attention_mask": token,
        "token_type_ids": 0 * token,
        "row": jnp.arange(2),
    }
    return model, batch, jax.eval_shape(model.init, jax.random.key(0), batch)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_parameter_of_every_architecture_has_the_rate_of_its_depth(tmp_path, kind):
    _, _, shapes = build(tmp_path, kind)
    factors = jax.tree.leaves(optim.layer_factors(shapes, 0.5, 2))
    expected = {
        "embeddings": 0.125,
        "embeddings_projection": 0.125,
        "embeddings_relative": 1.0,  # shared by all layers
        "layer_0": 0.25,
        "layer_1": 0.5,
        "final_norm": 1.0,
    }
    seen = set()
    for name, factor in zip(optim.path_names(shapes), factors, strict=True):
        top, part = name.split("/")[:2]
        seen.add(part)
        assert factor == (1.0 if top == "head" else expected[part]), name
    assert {"embeddings", "layer_0", "layer_1"} <= seen
    assert ("embeddings_projection" in seen) == (kind == "electra")
    assert ("embeddings_relative" in seen) == (kind in ("mpnet", "deberta-v2"))


def arrays(tree):
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(tree) if np.ndim(leaf))


@pytest.mark.parametrize(
    "freeze", [(), ("encoder/embeddings",), ("encoder/embeddings", "encoder/layer_0")]
)
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_frozen_parameters_have_no_optimiser_state(tmp_path, kind, freeze):
    _, _, shapes = build(tmp_path, kind)
    tx = optim.adamw(
        shapes,
        schedule=lambda step: 0.1,
        weight_decay=0.1,
        layer_decay=0.5,
        num_layers=2,
        clip_norm=1.0,
        freeze=freeze,
    )
    learning = [
        leaf
        for name, leaf in zip(optim.path_names(shapes), jax.tree.leaves(shapes), strict=True)
        if name.startswith("encoder/embeddings_relative/")
        or not name.startswith(freeze or ("nothing",))
    ]
    assert arrays(jax.eval_shape(tx.init, shapes)) == 2 * arrays(learning)  # Adam's two moments


def test_a_frozen_layer_freezes_no_other():
    names = ("embeddings", "embeddings_projection", "embeddings_relative", *LAYERS, "final_norm")
    params = {"encoder": dict.fromkeys(names, {"kernel": 0.0}), "head": {"kernel": 0.0}}

    def frozen(*patterns):
        mask = optim.trainable_mask(params, patterns)
        parts = mask.pop("encoder") | mask
        return {name for name, part in parts.items() if not part["kernel"]}

    assert frozen() == set()
    inputs = {"embeddings", "embeddings_projection"}
    assert frozen("encoder/embeddings", "encoder/layer_[012]") == inputs | set(LAYERS[:3])
    assert frozen("encoder/layer_1") == {"layer_1"}
    assert frozen(r"encoder/layer_\d+") == frozen("encoder/layer_") == set(LAYERS)
    assert frozen("encoder/embeddings_relative") == {"embeddings_relative"}
    assert frozen("encoder") == frozen("encoder/") == set(names)
    assert frozen("head") == {"head"}


def products(model, batch, shapes, freeze):
    """Matrix products in the gradient of a loss."""

    def loss(params):
        return model.apply(optim.stop_frozen(params, freeze), batch, None, False).sum()

    return jax.jit(jax.grad(loss)).lower(shapes).as_text().count("stablehlo.dot_general")


def test_no_gradient_is_computed_below_the_lowest_layer_that_learns(tmp_path):
    """A layer's backward pass has 16 products, two for each forward one. Without it, the layer
    above need not pass the gradient on through its query, key and value."""
    model, batch, shapes = build(tmp_path)
    whole, embeddings, layer, heads = (
        products(model, batch, shapes, freeze)
        for freeze in (
            (),
            ("encoder/embeddings",),
            ("encoder/embeddings", "encoder/layer_0"),
            ("encoder/",),
        )
    )
    assert whole - embeddings == 3
    assert embeddings - layer == 16
    assert layer - heads == 13 + 1  # and the head's own pooled input
