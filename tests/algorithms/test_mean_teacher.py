"""Mean Teacher in the train step: the average teaches, the student learns, both with dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import random_step, run, value
from scipy.special import softmax

from ssl_guard import algorithms, steps
from ssl_guard.errors import BadInput

ROWS, DECAY = 6, 0.9


def apply(params, batch, rng, train):
    """A linear model whose dropout is a scaling of all inputs by a number of the key."""
    noise = jax.random.uniform(rng, ()) if train else 1.0
    return (noise * batch["x"] @ params)[:, None]


def step_of(algorithm):
    tx = optax.sgd(0.5)
    params = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)
    state = steps.init_state(
        jax.random.key(0),
        params,
        algorithm=algorithm,
        tx=tx,
        pool_size=ROWS,
        num_classes=2,
        num_heads=1,
        ema_decay=DECAY,
    )
    step = functools.partial(
        steps.train_step, apply=apply, algorithm=algorithm, tx=tx, total_steps=4, ema_decay=DECAY
    )
    return jax.jit(step), state


def batches(count):
    rng = np.random.default_rng(1)
    for _ in range(count):
        text = rng.normal(size=(ROWS, 3)).astype(np.float32)  # one text, two dropout passes
        yield {
            "labelled": {
                "x": rng.normal(size=(4, 3)).astype(np.float32),
                "label": np.array([0, 1, 1, 0], np.int32),
                "weight": np.array([1, 1, 1, 0], np.float32),
            },
            "weak": {"x": text},
            "strong": {"x": text},
            "index": np.arange(ROWS, dtype=np.int32),
            "weight": np.array([1, 1, 0, 1, 1, 1], np.float32),
            "hidden_label": np.full(ROWS, -1, np.int32),
        }


def test_three_steps_by_hand():
    """SGD on CE + 10 r(t) MSE, its gradient written out, and the average after each update."""
    algorithm = algorithms.build("mean_teacher", unlabelled_weight=10.0, ramp=0.5)
    step, state = step_of(algorithm)
    student = teacher = np.asarray(state.params, np.float64)
    for number, batch in enumerate(batches(3)):
        rng = jax.random.fold_in(jax.random.key(0), number)
        noise = {
            view: float(jax.random.uniform(jax.random.fold_in(rng, i)))
            for i, view in enumerate(("labelled", "weak", "strong"))
        }
        assert len(set(noise.values())) == 3
        labelled, rows = batch["labelled"], batch["weight"][:, None] / batch["weight"].sum()
        x = noise["labelled"] * labelled["x"]
        wrong = softmax(x @ student, axis=-1) - np.eye(2)[labelled["label"]]
        gradient = x.T @ (wrong * labelled["weight"][:, None]) / 3
        q = softmax(noise["weak"] * batch["weak"]["x"] @ teacher, axis=-1)
        x = noise["strong"] * batch["strong"]["x"]
        p = softmax(x @ student, axis=-1)
        error = p - q  # of the mean over two classes: its derivative by p, times two over two
        by_logits = p * (error - (error * p).sum(-1, keepdims=True))
        ramp = min(1.0, number / 4 / 0.5)
        unlabelled = ((error**2).mean(-1, keepdims=True) * rows).sum()
        gradient = gradient + 10 * ramp * x.T @ (by_logits * rows)

        state, metrics = step(state, batch)
        student = student - 0.5 * gradient
        decay = min(DECAY, (1 + number) / (10 + number))
        teacher = decay * teacher + (1 - decay) * student
        np.testing.assert_allclose(state.params, student, atol=1e-5)
        np.testing.assert_allclose(state.ema_params, teacher, atol=1e-5)
        total, count = metrics["loss/unlabelled"]
        assert total / count == pytest.approx(unlabelled, rel=1e-4)


def test_the_student_moves_by_the_unlabelled_loss():
    """The bug of USB: a student read from the teacher's pass gets no gradient."""
    batch = next(iter(batches(1)))
    batch["labelled"]["weight"] *= 0
    step, state = step_of(algorithms.build("mean_teacher", ramp=0.0))
    after, _ = step(state, batch)
    assert np.abs(after.params - state.params).max() > 1e-3


def test_loss_and_target_are_those_of_the_pi_model():
    logits, batch = random_step(np.random.default_rng(0), 3, heads=2)
    ours = run(algorithms.build("mean_teacher", unlabelled_weight=7.0), logits, batch, 0.2)
    theirs = run(algorithms.build("pi_model", unlabelled_weight=7.0), logits, batch, 0.2)
    np.testing.assert_array_equal(ours[1].probs, theirs[1].probs)
    assert value(ours[2]["unlabelled"]) == value(theirs[2]["unlabelled"]) > 0


def test_without_an_average_there_is_no_teacher():
    with pytest.raises(BadInput, match="config.optim.ema_decay"):
        steps.init_state(
            jax.random.key(0),
            jnp.zeros(1),
            algorithm=algorithms.build("mean_teacher"),
            tx=optax.sgd(1.0),
            pool_size=1,
            num_classes=2,
            num_heads=1,
        )
