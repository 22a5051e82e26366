"""The head of AutoModelForSequenceClassification, trained here and from pretrained weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import supervised
from ssl_guard import config as config_module
from ssl_guard.errors import BadInput
from ssl_guard.models import build, init_from_pretrained
from ssl_guard.models.dropout import keep_mask, row_seeds
from ssl_guard.models.heads import HF_HEADS, Heads, Hidden, last_inputs
from tests.tiny import write_encoder

RNG = np.random.default_rng(0)
POOLED = jnp.array(RNG.normal(size=(3, 4)), jnp.float32)
NORMED = Hidden("relu", use_bias=False, norm=True, norm_bias=False, epsilon=1e-5)


@pytest.mark.parametrize("hidden", [Hidden("tanh"), NORMED])
def test_the_hf_head_against_numpy(hidden):
    """Its dropout stands before the last layer, where every family has one."""
    heads = Heads(2, 2, "hf", 0.5, hidden)
    params = heads.init(jax.random.key(0), POOLED)["params"]
    params = jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(np.float32), params)
    seeds = row_seeds(jax.random.key(1), jnp.arange(3))
    keep = np.asarray(keep_mask(POOLED.shape, 0.5, seeds, 0))
    for given, factor in ((None, 1), (seeds, keep * 2)):
        logits = heads.apply({"params": params}, POOLED, given)
        for number in range(2):
            layer, output = params[f"dense_{number}"], params[f"output_{number}"]
            assert ("bias" in layer) == hidden.use_bias
            x = np.asarray(POOLED) @ layer["kernel"] + layer.get("bias", 0)
            x = np.tanh(x) if hidden.activation == "tanh" else np.maximum(x, 0)
            if hidden.norm:
                x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
                x = x * params[f"norm_{number}"]["scale"]
            np.testing.assert_allclose(
                last_inputs(params, np.asarray(POOLED), number, hidden), x, atol=1e-5
            )
            expected = (x * factor) @ output["kernel"] + output["bias"]
            np.testing.assert_allclose(logits[:, number], expected, atol=1e-5)


def test_a_pretrained_pooler_is_the_hidden_layer(tmp_path):
    """As in transformers, whose names may have the prefix of a larger model, or none."""
    dense = {
        "weight": RNG.normal(size=(16, 16)).astype(np.float32),
        "bias": RNG.normal(size=16).astype(np.float32),
    }
    batch = {name: np.zeros((1, 1), np.int32) for name in ("input_ids", "attention_mask")}
    batch |= {"token_type_ids": np.zeros((1, 1), np.int32), "row": np.zeros(1, np.int32)}
    for prefix in ("", "bert."):
        pooler = {f"{prefix}pooler.dense.{name}": value for name, value in dense.items()}
        folder = write_encoder(tmp_path / f"model{prefix}", head=pooler, prefix=prefix)
        model = build(folder, head="hf", pooling="cls", num_heads=2)
        head = init_from_pretrained(model, folder, jax.random.key(0), batch)["head"]
        for number in range(2):
            np.testing.assert_array_equal(head[f"dense_{number}"]["kernel"], dense["weight"].T)
            np.testing.assert_array_equal(head[f"dense_{number}"]["bias"], dense["bias"])
        assert not np.array_equal(head["output_0"]["kernel"], head["output_1"]["kernel"])
    plain = build(folder, head="mlp", num_heads=1)
    head = init_from_pretrained(plain, folder, jax.random.key(0), batch)["head"]
    assert not np.array_equal(head["dense_0"]["kernel"], dense["weight"].T)


def test_it_needs_the_first_token(tmp_path):
    folder = write_encoder(tmp_path / "model")
    with pytest.raises(BadInput, match="use pooling='cls'"):
        build(folder, head="hf", pooling="mean")
    config = supervised.get_config("smoke")
    config.model.head = "hf"
    with pytest.raises(BadInput, match="set config.model.pooling = 'cls'"):
        config_module.check(config)
    config.model.pooling = "cls"
    config_module.check(config)


def test_an_activation_that_is_not_there(tmp_path):
    folder = write_encoder(tmp_path / "model", model_type="deberta-v2", pooler_hidden_act="sparkle")
    with pytest.raises(BadInput, match=r"config.json: pooler_hidden_act='sparkle' is not support"):
        build(folder, head="hf", pooling="cls")


def test_names_of_every_family():
    assert all({"dense_{}", "output_{}"} <= names.keys() for names, _, _ in HF_HEADS.values())
