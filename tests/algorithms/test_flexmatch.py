"""FlexMatch against its equations in NumPy: a loop over examples and a count over the pool."""

import jax.numpy as jnp
import numpy as np
import pytest
from reference import (
    POOL,
    STEPS,
    UNLABELLED,
    assert_states_equal,
    clock_of,
    compiled,
    mean_consistency,
    mean_cross_entropy,
    random_step,
    value,
)
from scipy.special import softmax

from ssl_guard.algorithms import flexmatch

TAU = 0.9


def build(warmup=True):
    return compiled("flexmatch", threshold=TAU, thresh_warmup=warmup, unlabelled_weight=2.0)


def count_pool(selected, classes):
    """sigma(c) of every head by a count over the whole pool."""
    return np.array([[(head == c).sum() for c in range(classes)] for head in selected.T])


def thresholds_of(selected, classes, warmup):
    thresholds = np.zeros((selected.shape[1], classes))
    for head, count in enumerate(count_pool(selected, classes)):
        most = max(count.max(), (selected[:, head] == -1).sum() if warmup else 0)
        if most > 0:
            beta = count / most
            thresholds[head] = TAU * beta / (2 - beta)
    return thresholds


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("classes, heads", [(2, 1), (3, 2)])
def test_several_steps(classes, heads, warmup):
    rng = np.random.default_rng(classes)
    algorithm, call = build(warmup)
    state = algorithm.init_state(POOL, classes, heads)
    selected = np.full((POOL, heads), -1)
    masked = 0
    for step in range(2 * STEPS):
        logits, batch = random_step(rng, classes, heads)
        state, target, terms, gradient = call(state, logits, batch, clock_of(step, POOL))

        # The thresholds are those of the steps before.
        thresholds = thresholds_of(selected, classes, warmup)
        q = softmax(logits["weak"], axis=-1)
        keep = np.zeros((UNLABELLED, heads))
        for row in range(UNLABELLED):
            for head in range(heads):
                label = q[row, head].argmax()
                keep[row, head] = q[row, head].max() > thresholds[head, label]
                if batch["weight"][row] > 0 and q[row, head].max() > TAU:
                    selected[batch["index"][row], head] = label

        labels = np.eye(classes)[q.argmax(-1)]
        np.testing.assert_array_equal(target.weight, keep)
        np.testing.assert_array_equal(target.probs, labels)
        count = count_pool(selected, classes)
        expected = {"selected": selected, "count": count, "examples": POOL}
        assert_states_equal(state, expected)
        expected = 2 * mean_consistency(logits["strong"], labels, keep, batch["weight"])
        assert value(terms["unlabelled"]) == pytest.approx(expected, rel=1e-5)
        expected = mean_cross_entropy(logits["labelled"], *batch["labelled"].values())
        assert value(terms["supervised"]) == pytest.approx(expected, rel=1e-5)
        unused = (np.asarray(target.weight) == 0) | (batch["weight"] == 0)[:, None]
        assert (np.asarray(gradient)[unused] == 0).all()
        masked += (keep == 0).sum()
    assert masked > 0


def test_the_curriculum_with_exact_numbers():
    """Counts 6 and 3 in a pool of 20: 11 have no confident prediction yet, padding aside."""
    state = {
        "selected": jnp.array([0] * 6 + [1] * 3 + [-1] * 15, jnp.int32)[:, None],
        "count": jnp.array([[6, 3]], jnp.int32),
        "examples": jnp.int32(20),
    }
    cold = flexmatch.class_thresholds(state, threshold=0.9, thresh_warmup=True)
    warm = flexmatch.class_thresholds(state, threshold=0.9, thresh_warmup=False)
    # beta / (2 - beta) of 6/11 and 3/11 is 6/16 and 3/19; of 1 and 1/2 it is 1 and 1/3.
    np.testing.assert_allclose(cold, [[0.9 * 6 / 16, 0.9 * 3 / 19]], rtol=1e-6)
    np.testing.assert_allclose(warm, [[0.9, 0.3]], rtol=1e-6)


@pytest.mark.parametrize("warmup", [True, False])
def test_before_the_first_confident_prediction_every_row_is_used(warmup):
    logits, batch = random_step(np.random.default_rng(0), 2)
    logits["weak"] = np.zeros_like(logits["weak"])
    algorithm, call = build(warmup)
    state = algorithm.init_state(POOL, 2, 1)
    after, target, _, _ = call(state, logits, batch, clock_of(0, POOL))
    assert (target.weight == 1).all()
    assert_states_equal(after, state)


def test_a_class_that_never_occurs_keeps_threshold_zero():
    logits, batch = random_step(np.random.default_rng(1), 3, 2)
    logits["weak"][..., 2] = -20.0
    algorithm, call = build(warmup=False)
    state, *_ = call(algorithm.init_state(POOL, 3, 2), logits, batch, clock_of(0, POOL))
    thresholds = flexmatch.class_thresholds(state, threshold=TAU, thresh_warmup=False)
    assert (thresholds[:, 2] == 0).all()
    np.testing.assert_allclose(thresholds.max(axis=1), TAU)


def test_rows_of_weight_zero_touch_nothing():
    """Padding and second copies, even when their predictions are not numbers."""
    logits, batch = random_step(np.random.default_rng(2), 2)
    batch["index"] = np.array([5, 5, 6, 5, 7, 8, 9, 0], np.int32)
    batch["weight"] = np.array([1, 0, 1, 0, 1, 1, 1, 0], np.float32)
    logits["weak"] = np.where(np.arange(2) == 0, 9.0, -9.0) * np.ones((UNLABELLED, 1, 1))
    logits["weak"][1] *= -1  # the second copy says class 1
    logits["weak"][[3, 7]] = np.nan
    algorithm, call = build()
    state = algorithm.init_state(POOL, 2, 1)
    state, _, _, gradient = call(state, logits, batch, clock_of(0, POOL))
    expected = np.full((POOL, 1), -1)
    expected[[5, 6, 7, 8, 9]] = 0
    expected = {"selected": expected, "count": np.array([[5, 0]]), "examples": POOL}
    assert_states_equal(state, expected)
    gradient = np.asarray(gradient)
    assert (gradient[batch["weight"] == 0] == 0).all()
    assert np.abs(gradient[batch["weight"] > 0]).min() > 0

    # Nobody counts: nothing moves and the loss is zero.
    batch["weight"] *= 0
    after, _, terms, _ = call(state, logits, batch, clock_of(1, POOL))
    assert_states_equal(after, state)
    assert (terms["unlabelled"].weights == 0).all()


def test_a_prediction_below_tau_does_not_forget_the_last_one():
    logits, batch = random_step(np.random.default_rng(3), 2)
    state = {
        "selected": jnp.ones((POOL, 1), jnp.int32),
        "count": jnp.array([[0, POOL]], jnp.int32),
        "examples": jnp.int32(POOL),
    }
    logits["weak"] = np.where(np.arange(2) == 0, 0.2, 0.0) * np.ones((UNLABELLED, 1, 1))
    _, call = build()
    after, target, _, _ = call(state, logits, batch, clock_of(0, POOL))
    assert_states_equal(after, state)
    assert (target.weight == 1).all()  # class 0 has no examples, so that its threshold is 0
    logits["weak"] *= -1
    _, target, _, gradient = call(state, logits, batch, clock_of(0, POOL))
    assert (target.weight == 0).all()
    assert (gradient == 0).all()
