import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from ssl_guard.models.dropout import keep_mask, row_seeds
from ssl_guard.models.heads import Heads, pool, rescaled

RNG = np.random.default_rng(0)
HIDDEN = jnp.array(RNG.normal(size=(3, 5, 4)), jnp.float32)
MASK = jnp.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], jnp.int32)


def test_mean_pooling_counts_real_tokens_only():
    expected = [HIDDEN[0].mean(0), HIDDEN[1, :2].mean(0), np.zeros(4)]
    np.testing.assert_allclose(pool(HIDDEN, MASK, "mean"), expected, atol=1e-6)


def test_mean_pooling_sums_bfloat16_in_float32():
    hidden = jnp.full((1, 1000, 1), 1.0, "bfloat16").at[0, 0, 0].set(256)
    pooled = pool(hidden, jnp.ones((1, 1000), jnp.int32), "mean")
    assert pooled.dtype == "float32"
    np.testing.assert_allclose(pooled, [[1.255]], rtol=1e-6)


def test_cls_pooling_takes_the_first_token():
    np.testing.assert_array_equal(pool(HIDDEN, MASK, "cls"), HIDDEN[:, 0])
    assert pool(HIDDEN.astype("bfloat16"), MASK, "cls").dtype == "float32"


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_heads_against_numpy(kind):
    pooled = HIDDEN[:, 0]
    heads = Heads(num_heads=3, num_classes=2, kind=kind, dropout=0.5)
    params = heads.init(jax.random.key(0), pooled)["params"]
    params = jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(np.float32), params)
    dropout_seeds = row_seeds(jax.random.key(1), jnp.arange(3))
    keep = np.asarray(keep_mask(pooled.shape, 0.5, dropout_seeds, 0))
    for given, x in ((None, np.asarray(pooled)), (dropout_seeds, np.asarray(pooled) * keep * 2)):
        logits = heads.apply({"params": params}, pooled, given)
        assert logits.shape == (3, 3, 2) and logits.dtype == "float32"
        for number in range(3):
            y = x
            if kind == "mlp":
                p = params[f"dense_{number}"]
                y = y @ p["kernel"] + p["bias"]
                y = y * 0.5 * (1 + erf(y / np.sqrt(2)))
            p = params[f"output_{number}"]
            np.testing.assert_allclose(logits[:, number], y @ p["kernel"] + p["bias"], atol=1e-5)


def test_heads_start_as_bert_does():
    params = Heads(2, 2, "mlp", 0.1).init(jax.random.key(0), jnp.zeros((1, 64)))["params"]
    assert not any(p["bias"].any() for p in params.values())
    assert np.std(params["dense_0"]["kernel"]) == pytest.approx(0.02, rel=0.05)
    assert not np.array_equal(params["dense_0"]["kernel"], params["dense_1"]["kernel"])


def test_a_calibrator_is_folded_into_the_last_layer():
    """Over several heads, and without the outputs that no prediction uses."""
    heads, pooled = Heads(2, 3, "mlp", 0.0), jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)
    params = heads.init(jax.random.key(0), pooled)["params"]
    params = jax.tree.map(lambda x: jnp.asarray(RNG.normal(size=x.shape), jnp.float32), params)
    logits = heads.apply({"params": params}, pooled).mean(axis=1)
    folded = Heads(2, 2, "mlp", 0.0).apply({"params": rescaled(params, 2, 0.4, -0.7)}, pooled)
    folded = folded.mean(axis=1)
    margin = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(folded[:, 1] - folded[:, 0], 0.4 * margin - 0.7, atol=1e-5)
