"""Makes random steps for the tests of all methods, and evaluates the terms of a method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax

from ssl_guard import algorithms
from ssl_guard.algorithms.losses import weighted

LABELLED, UNLABELLED, CLASSES, POOL, STEPS = 6, 8, 3, 20, 5


def random_step(rng, classes=CLASSES, heads=1):
    """Logits of the three views, sharp enough that thresholds split them, and a batch: one padded
    labelled row, two padded unlabelled rows, and weight 0 for the second copy of a pool index."""
    logits = {
        view: (rng.normal(size=(rows, heads, classes)) * 3).astype(np.float32)
        for view, rows in (("labelled", LABELLED), ("weak", UNLABELLED), ("strong", UNLABELLED))
    }
    index = rng.integers(0, POOL, UNLABELLED).astype(np.int32)
    weight = np.zeros(UNLABELLED, np.float32)
    weight[np.unique(index, return_index=True)[1]] = 1
    weight[[3, 7]] = 0
    batch = {
        "labelled": {
            "label": rng.integers(0, classes, LABELLED).astype(np.int32),
            "weight": np.array([1, 1, 1, 1, 1, 0], np.float32),
        },
        "index": index,
        "weight": weight,
    }
    return logits, batch


def value(term):
    """The number a Term stands for."""
    total = float((np.asarray(term.losses) * np.asarray(term.weights)).sum())
    return float(term.coefficient) * total / max(float(np.asarray(term.counts).sum()), 1.0)


def run(algorithm, logits, batch, progress, state=(), *, step=0, epoch=0, epoch_ends=False):
    """One call of the method's target and loss: (state, Target, terms)."""
    clock = algorithms.StepInfo(
        jnp.int32(step), jnp.float32(progress), jnp.int32(epoch), jnp.bool(epoch_ends)
    )
    logits, batch = jax.tree.map(jnp.asarray, (logits, batch))  # annotations refuse NumPy's
    state, target = algorithm.target(state, logits, batch, clock, algorithms.NO_COLLECTIVES)
    return state, target, algorithm.loss(logits, target, batch, clock)


@functools.cache
def compiled(name, **hyper_parameters):
    """The algorithm `name` and one jitted call of all of it, for tests of many steps:
    call(state, logits, batch, clock) -> (state, Target, terms, gradient), the gradient of the
    unlabelled loss with respect to the strong logits."""
    algorithm = algorithms.build(name, **hyper_parameters)

    def call(state, logits, batch, clock):
        def unlabelled(strong):
            term = algorithm.loss(logits | {"strong": strong}, target, batch, clock)["unlabelled"]
            total = weighted(term.losses, term.weights).sum()
            return term.coefficient * total / jnp.maximum(term.counts.sum(), 1.0)

        state, target = algorithm.target(state, logits, batch, clock, algorithms.NO_COLLECTIVES)
        terms = algorithm.loss(logits, target, batch, clock)
        return state, target, terms, jax.grad(unlabelled)(logits["strong"])

    return algorithm, jax.jit(call)


def clock_of(step, steps_per_epoch, total_steps=100):
    """The clock of a step of a run."""
    return algorithms.StepInfo(
        jnp.int32(step),
        jnp.float32(step / total_steps),
        jnp.int32(step // steps_per_epoch),
        jnp.bool((step + 1) % steps_per_epoch == 0),
        jax.random.key(step),
    )


def mean_cross_entropy(logits, labels, weights):
    """Weighted mean of -log softmax(logits)[label], summed over heads, in NumPy."""
    losses = -log_softmax(logits, axis=-1)[np.arange(len(labels)), :, labels].sum(axis=1)
    return (losses * weights).sum() / weights.sum()


def mean_consistency(logits, probs, weights, valid):
    """Mean over valid rows and heads of -weight sum_c probs_c log softmax(logits)_c, in NumPy."""
    losses = -(probs * log_softmax(logits, axis=-1)).sum(axis=-1) * weights
    return (losses.mean(axis=1) * valid).sum() / valid.sum()


def strong_gradient(algorithm, logits, target, batch, name="unlabelled"):
    """Gradient of one term's number with respect to the strong logits, at the end of a run."""
    clock = algorithms.StepInfo(jnp.int32(0), jnp.float32(1), jnp.int32(0), jnp.bool(False))
    logits, batch = jax.tree.map(jnp.asarray, (logits, batch))

    def objective(strong):
        term = algorithm.loss(logits | {"strong": strong}, target, batch, clock)[name]
        total = weighted(term.losses, term.weights).sum()
        return term.coefficient * total / jnp.maximum(term.counts.sum(), 1.0)

    return np.asarray(jax.jit(jax.grad(objective))(jnp.asarray(logits["strong"])))


def assert_states_equal(actual, expected, rtol=1e-5):
    """Every array of a state against NumPy's, integers exactly."""
    assert actual.keys() == expected.keys()
    for name, array in actual.items():
        assert array.dtype in (jnp.int32, jnp.float32), name
        exact = array.dtype == jnp.int32
        np.testing.assert_allclose(array, expected[name], rtol=0 if exact else rtol, err_msg=name)
