"""Self-training against NumPy: fixed soft labels and weights, whatever the model says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import UNLABELLED, mean_consistency, mean_cross_entropy, random_step, run, value

from ssl_guard import algorithms


def soft_step(seed, heads=1):
    """Logits of two classes, and a batch with soft labels, some of them hard, and their weights."""
    rng = np.random.default_rng(seed)
    logits, batch = random_step(rng, 2, heads)
    soft = rng.random(UNLABELLED).astype(np.float32)
    soft[:2] = 0, 1
    weight = rng.choice([0, 0.5, 1], UNLABELLED).astype(np.float32)
    return logits, batch | {"soft_label": soft, "soft_weight": weight}


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_against_numpy(seed, heads):
    logits, batch = soft_step(seed, heads)
    algorithm = algorithms.build("self_training", supervised_weight=0.3)
    assert algorithm.views == ("strong",)
    state, target, terms = run(algorithm, logits, batch, 0.5, {})
    assert state == {} and set(terms) == {"supervised", "unlabelled"}
    probs = np.stack([1 - batch["soft_label"], batch["soft_label"]], axis=-1)[:, None]
    np.testing.assert_array_equal(target.probs, np.repeat(probs, heads, axis=1))
    weight = batch["soft_weight"][:, None]
    np.testing.assert_array_equal(target.weight, np.repeat(weight, heads, axis=1))
    labelled = batch["labelled"]
    expected = mean_cross_entropy(logits["labelled"], labelled["label"], labelled["weight"])
    assert value(terms["supervised"]) == pytest.approx(0.3 * expected, rel=1e-5)
    expected = mean_consistency(logits["strong"], probs, weight, batch["weight"])
    assert value(terms["unlabelled"]) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_a_row_is_its_weighted_error():
    """softmax(z) - q: none for rows of weight 0, and a confident model is not left alone."""
    logits, batch = soft_step(0)
    algorithm = algorithms.build("self_training")

    def unlabelled(strong):
        term = run(algorithm, logits | {"strong": strong}, batch, 1.0, {})[2]["unlabelled"]
        return (term.losses * term.weights).sum()

    gradient = jax.grad(unlabelled)(jnp.asarray(logits["strong"]))[:, 0, 1]
    harmful = 1 / (1 + np.exp(logits["strong"][:, 0, 0] - logits["strong"][:, 0, 1]))
    expected = (harmful - batch["soft_label"]) * batch["soft_weight"] * batch["weight"]
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert 0 < (expected == 0).sum() < UNLABELLED
