"""VAT against its equations in NumPy, float64: the paper's finite difference where we have none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inside import (
    NOISY,
    TOY,
    assert_reaches_the_encoder,
    gradient_inside,
    key,
    numpy_features,
    numpy_logits,
    random_batch,
    run_inside,
    tiny_bert,
    toy_params,
)
from reference import mean_cross_entropy, value
from scipy.special import rel_entr, softmax

from ssl_guard import algorithms
from ssl_guard.algorithms import vat

EPSILON, XI = 1.5, 1e-5


def slope_of_divergence(params, x, noise, mask):
    """grad_r KL(p(e) || p(e + r)) at r = noise, heads summed, by the chain rule."""
    h = numpy_features(params, x + noise, mask)
    p = softmax(numpy_logits(params, numpy_features(params, x, mask)), axis=-1)
    wrong = softmax(numpy_logits(params, h), axis=-1) - p
    by_sum = (np.einsum("bhc,whc->bw", wrong, params["head"]) * (1 - h**2)) @ params["dense"].T
    return by_sum[:, None] * mask[:, :, None]


def unit(x):
    return x / np.sqrt((x**2).sum((1, 2), keepdims=True))


@pytest.mark.parametrize("classes, heads, iterations", [(2, 1, 1), (3, 2, 1), (2, 1, 3), (2, 1, 0)])
def test_several_steps(classes, heads, iterations):
    rng = np.random.default_rng(classes)
    algorithm = algorithms.build(
        "vat", epsilon=EPSILON, power_iterations=iterations, unlabelled_weight=2.0
    )
    for step in range(3):
        params, batch = toy_params(rng, heads, classes), random_batch(rng, classes)
        progress = 0.1 * step
        logits, _, target, terms = run_inside(algorithm, TOY, params, batch, progress, step=step)

        exact = {name: value.astype(np.float64) for name, value in params.items()}
        rows, valid = batch["weak"], batch["weight"]
        x, mask = exact["embed"][rows["input_ids"]], rows["attention_mask"]
        d = vat.random_direction(jax.random.fold_in(key(step), 3), rows, x.shape)
        d = unit(np.asarray(d, np.float64))
        for _ in range(iterations):
            d = unit(slope_of_divergence(exact, x, XI * d, mask))
        clean = numpy_logits(exact, numpy_features(exact, x, mask))
        moved = numpy_logits(exact, numpy_features(exact, x + EPSILON * d, mask))
        np.testing.assert_allclose(logits["weak"], clean, atol=1e-5)
        np.testing.assert_allclose(logits["adversarial"], moved, atol=1e-3)

        p = softmax(clean, axis=-1)
        np.testing.assert_allclose(target.probs, p, atol=1e-6)
        assert (np.asarray(target.weight) == 1).all()
        divergence = rel_entr(p, softmax(moved, axis=-1)).sum(-1).mean(-1)
        expected = 2 * progress / 0.4 * (divergence * valid).sum() / valid.sum()
        assert value(terms["unlabelled"]) == pytest.approx(expected, rel=5e-3, abs=1e-9)
        entropy = -(p * np.log(p)).sum(-1).mean(-1)
        expected = 0.06 * (entropy * valid).sum() / valid.sum()
        assert value(terms["entropy"]) == pytest.approx(expected, rel=1e-4)
        labelled = batch["labelled"]
        x = exact["embed"][labelled["input_ids"]]
        clean = numpy_logits(exact, numpy_features(exact, x, labelled["attention_mask"]))
        supervised = mean_cross_entropy(clean, labelled["label"], labelled["weight"])
        assert value(terms["supervised"]) == pytest.approx(supervised, rel=1e-4)


def test_the_direction_found_is_worse_than_a_random_one():
    params, batch = toy_params(np.random.default_rng(0)), random_batch(np.random.default_rng(1))
    divergence = [
        value(run_inside(algorithms.build("vat", **found), TOY, params, batch)[3]["unlabelled"])
        for found in ({"epsilon": 0.1, "power_iterations": n} for n in (0, 1))
    ]
    assert divergence[1] > 2 * divergence[0] > 0


def test_noise_is_of_length_epsilon_on_real_tokens_and_follows_key_and_row():
    rows = random_batch(np.random.default_rng(0), length=7)["weak"]
    draw = jax.jit(vat.random_direction, static_argnums=2)
    d = np.asarray(draw(key(0), rows, (6, 7, 3)))
    pads = rows["attention_mask"] == 0
    assert pads.any() and (d[pads] == 0).all() and (d[~pads] != 0).all()
    np.testing.assert_allclose(
        (np.asarray(vat.unit(jnp.asarray(d))) ** 2).sum((1, 2)), 1, rtol=1e-5
    )
    part = {name: array[[4, 2]] for name, array in rows.items()}
    np.testing.assert_array_equal(draw(key(0), part, (2, 7, 3)), d[[4, 2]])
    longer = rows | {"attention_mask": np.pad(rows["attention_mask"], ((0, 0), (0, 2)))}
    np.testing.assert_array_equal(draw(key(0), longer, (6, 9, 3))[:, :7], d)
    assert (np.asarray(draw(key(1), rows, (6, 7, 3)))[~pads] != d[~pads]).all()


def test_unit_of_tiny_and_of_nothing():
    x = np.zeros((3, 2, 2), np.float32)
    x[0, 0] = 3e-30, 4e-30
    x[1, 1] = 3e30, 4e30
    norms = np.asarray(vat.unit(jnp.asarray(x)))
    np.testing.assert_allclose(norms[0, 0], [0.6, 0.8], rtol=1e-6)
    np.testing.assert_allclose(norms[1, 1], [0.6, 0.8], rtol=1e-6)
    assert (norms[2] == 0).all()


def test_all_passes_share_one_dropout_mask():
    """Without noise the two predictions are the same, whatever the dropout."""
    params, batch = toy_params(np.random.default_rng(0)), random_batch(np.random.default_rng(1))
    algorithm = algorithms.build("vat", epsilon=0.0)
    logits, _, _, terms = run_inside(algorithm, NOISY, params, batch)
    np.testing.assert_array_equal(logits["adversarial"], logits["weak"])
    assert value(terms["unlabelled"]) == pytest.approx(0, abs=1e-7)
    rows, dropout = batch["weak"], algorithms.dropout_key(key(0), "weak")
    x = numpy_features(params, params["embed"][rows["input_ids"]], rows["attention_mask"])
    expected = NOISY.classify(params, x, rows["row"], dropout, True)
    np.testing.assert_allclose(logits["weak"], expected, atol=1e-5)


def test_a_saturated_prediction_has_no_direction_and_stays_finite():
    params, batch = toy_params(np.random.default_rng(0)), random_batch(np.random.default_rng(1))
    params["head"] = params["head"] * 1e4
    algorithm = algorithms.build("vat")
    logits, _, _, terms = run_inside(algorithm, TOY, params, batch)
    assert np.isfinite(logits["adversarial"]).all() and np.isfinite(value(terms["unlabelled"]))
    gradient = gradient_inside(algorithm, TOY, params, batch, ["unlabelled", "entropy"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", ["embed", "dense", "head"])
def test_the_gradient_is_that_of_the_noisy_side_with_the_noise_held(name):
    """By finite differences of mean_u KL(p || p(e + r)) with p and r held."""
    params, batch = toy_params(np.random.default_rng(0)), random_batch(np.random.default_rng(1))
    algorithm = algorithms.build("vat", epsilon=EPSILON, unlabelled_weight=1.0)
    exact = {name: value.astype(np.float64) for name, value in params.items()}
    rows, valid = batch["weak"], batch["weight"]
    x, mask = exact["embed"][rows["input_ids"]], rows["attention_mask"]
    d = vat.random_direction(jax.random.fold_in(key(0), 3), rows, x.shape)
    noise = slope_of_divergence(exact, x, XI * unit(np.asarray(d, np.float64)), mask)
    noise = EPSILON * unit(noise)
    p = softmax(numpy_logits(exact, numpy_features(exact, x, mask)), axis=-1)

    def loss(changed):
        now = exact | {name: changed}
        h = numpy_features(now, now["embed"][rows["input_ids"]] + noise, mask)
        divergence = rel_entr(p, softmax(numpy_logits(now, h), axis=-1)).sum((1, 2))
        return (divergence * valid).sum() / valid.sum()

    expected = np.zeros_like(exact[name])
    for place in np.ndindex(*expected.shape):
        nudge = np.zeros_like(expected)
        nudge[place] = 1e-5
        expected[place] = (loss(exact[name] + nudge) - loss(exact[name] - nudge)) / 2e-5
    gradient = gradient_inside(algorithm, TOY, params, batch, ["unlabelled"])[name]
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(gradient, expected, atol=5e-4)


def test_rows_of_weight_zero_move_no_gradient():
    params, batch = toy_params(np.random.default_rng(0)), random_batch(np.random.default_rng(1))
    algorithm = algorithms.build("vat", epsilon=EPSILON)
    hidden = np.where((batch["weight"] == 0)[:, None], 7, batch["weak"]["input_ids"])
    other = batch | {"weak": batch["weak"] | {"input_ids": hidden}}
    before, after = (
        gradient_inside(algorithm, TOY, params, b, ["unlabelled", "entropy"])
        for b in (batch, other)
    )
    jax.tree.map(np.testing.assert_array_equal, after, before)
    batch["weight"] = batch["weight"] * 0
    terms = run_inside(algorithm, TOY, params, batch)[-1]
    assert value(terms["unlabelled"]) == value(terms["entropy"]) == 0


def test_the_gradient_reaches_the_encoder_of_a_bert(tmp_path):
    classifier, params, batch = tiny_bert(tmp_path, dropout=0.1)
    algorithm = algorithms.build("vat", epsilon=1.0)
    gradient = gradient_inside(algorithm, classifier.stages, params, batch, ["unlabelled"])
    assert_reaches_the_encoder(gradient)
