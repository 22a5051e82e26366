"""Losses against SciPy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy.special import rel_entr, softmax

from ssl_guard.algorithms import losses

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 2, 3)).astype(np.float32) * 4
PROBS = softmax(RNG.normal(size=(5, 2, 3)), axis=-1).astype(np.float32)
ON_DEVICE = jnp.asarray(LOGITS), jnp.asarray(PROBS)  # annotations refuse NumPy's arrays


def test_kl_divergence_is_of_target_to_prediction():
    expected = rel_entr(PROBS, softmax(LOGITS, axis=-1)).sum(-1)
    np.testing.assert_allclose(losses.kl_divergence(*ON_DEVICE), expected, rtol=1e-4)
    assert not np.allclose(expected, rel_entr(softmax(LOGITS, axis=-1), PROBS).sum(-1), rtol=1e-2)


def test_kl_divergence_with_certain_target_and_gradient_are_finite():
    target = jnp.array([1.0, 0.0])
    value, gradient = jax.value_and_grad(lambda z: losses.kl_divergence(z, target))(jnp.zeros(2))
    np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(gradient, [-0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_weighted_is_exactly_zero_where_the_weight_is(bad):
    values, weights = jnp.array([1.0, bad]), jnp.array([0.5, 0.0])
    np.testing.assert_array_equal(losses.weighted(values, weights), [0.5, 0.0])
    gradient = jax.grad(lambda v: losses.weighted(v, weights).sum())(values)
    np.testing.assert_array_equal(gradient, [0.5, 0.0])


def test_entropy_of_a_certain_row_is_zero_with_finite_gradient():
    probs = jnp.array([[1.0, 0.0], [0.5, 0.5]])
    np.testing.assert_allclose(losses.entropy(probs), [0.0, np.log(2)], atol=1e-7)
    assert np.isfinite(jax.grad(lambda p: losses.entropy(p).sum())(probs)).all()


def test_squared_error_is_a_mean_over_classes():
    expected = ((softmax(LOGITS, axis=-1) - PROBS) ** 2).mean(-1)
    np.testing.assert_allclose(losses.squared_error(*ON_DEVICE), expected, rtol=1e-4)


def test_the_shapes_in_annotations_are_checked():
    """conftest switches it on; without, a row of probabilities would be broadcast in silence."""
    with pytest.raises(TypeCheckError, match="probs"):
        losses.squared_error(ON_DEVICE[0], ON_DEVICE[1][:1])
