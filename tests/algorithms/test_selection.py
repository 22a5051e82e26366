"""Selection by rank against NumPy, a step at a time, and what it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import clock_of, random_step

from ssl_guard import algorithms
from ssl_guard.algorithms import selection
from ssl_guard.errors import BadInput

NAMES = selection.CONFIDENCE + selection.FURTHER


def margins_of(logits):
    others = np.where(np.eye(logits.shape[-1], dtype=bool), -np.inf, logits[..., None, :])
    return logits - others.max(axis=-1)


def call(algorithm, state, logits, batch, step=0):
    logits, batch = jax.tree.map(jnp.asarray, (logits, batch))
    clock = clock_of(step, 2)
    return algorithm.target(state, logits, batch, clock, algorithms.NO_COLLECTIVES)


@pytest.mark.parametrize("classes, heads, share", [(2, 1, 0.5), (3, 2, 0.8), (2, 1, 1.0)])
def test_against_numpy(classes, heads, share):
    rng = np.random.default_rng(classes)
    algorithm = selection.by_rank("fixmatch", algorithms.build("fixmatch", threshold=1.1), share)
    state = algorithm.init_state(20, classes, heads)
    counts, cutoff, used = np.zeros(classes), None, []
    for step in range(14):
        logits, batch = random_step(rng, classes, heads)
        state, target = call(algorithm, state, logits, batch, step)
        label, weight = batch["labelled"]["label"], batch["labelled"]["weight"]
        counts += np.bincount(label, weight, classes)
        margins = margins_of(logits["weak"].astype(np.float64))
        quantile = 1 - share * counts / counts.sum()
        valid = margins[batch["weight"] > 0]
        found = np.array(
            [
                [np.quantile(valid[:, head, c], quantile[c]) for c in range(classes)]
                for head in range(heads)
            ]
        )
        momentum = min(0.9, step / (step + 1))
        cutoff = found if cutoff is None else momentum * cutoff + (1 - momentum) * found
        np.testing.assert_allclose(state["rank"]["cutoff"], cutoff, rtol=1e-4, atol=1e-4)
        above = margins - cutoff
        np.testing.assert_array_equal(target.weight, above.max(axis=-1) >= 0)
        np.testing.assert_array_equal(target.probs.argmax(axis=-1), above.argmax(axis=-1))
        used.append(np.asarray(target.weight)[batch["weight"] > 0].mean())
    assert 0 < np.mean(used) <= 1


def biased_steps(steps=60, rows=32):
    """A model that is over-confident and calls nearly everything class 1; a third is class 0."""
    rng = np.random.default_rng(0)
    for _ in range(steps):
        truth = rng.random(rows) < 2 / 3
        score = 8 + 4 * (truth - 0.5) + rng.normal(size=rows)  # ranks well, threshold far off
        weak = np.stack([np.zeros(rows), score], axis=-1)[:, None].astype(np.float32)
        label = np.array([0, 1, 1] * 4, np.int32)
        batch = {
            "labelled": {"label": label, "weight": np.ones(12, np.float32)},
            "index": np.arange(rows, dtype=np.int32),
            "weight": np.ones(rows, np.float32),
        }
        yield truth, {"weak": weak, "strong": weak, "labelled": weak[:12]}, batch


def test_ranks_select_both_ends_where_a_threshold_selects_one_class():
    plain = algorithms.build("fixmatch")
    ranked = selection.by_rank("fixmatch", plain, 0.5)
    state, used, right, harmful, thresholded = ranked.init_state(32, 2, 1), [], [], [], []
    for step, (truth, logits, batch) in enumerate(biased_steps()):
        state, target = call(ranked, state, logits, batch, step)
        keep, label = target.weight[:, 0] > 0, target.probs[:, 0].argmax(-1)
        used.append(keep.mean())
        right += list(label[keep] == truth[keep])
        harmful += list(label[keep])
        _, target = call(plain, {}, logits, batch, step)
        thresholded += list(target.probs[:, 0].argmax(-1)[target.weight[:, 0] > 0])
    assert np.mean(thresholded) == 1, "one class, a third of it wrong"
    assert np.mean(used) == pytest.approx(0.5, abs=0.03)
    assert np.mean(harmful) == pytest.approx(2 / 3, abs=0.05) and np.mean(right) > 0.95


def test_a_constant_model_gives_no_pseudo_labels():
    algorithm = selection.by_rank("fixmatch", algorithms.build("fixmatch"), 0.5)
    logits, batch = random_step(np.random.default_rng(0), 2)
    logits["weak"] = np.broadcast_to(np.float32([0, 3]), logits["weak"].shape)
    _, target = call(algorithm, algorithm.init_state(20, 2, 1), logits, batch)
    assert (target.weight == 0).all()


def test_soft_pseudo_labels_stay_and_hard_ones_follow_the_rank():
    logits, batch = random_step(np.random.default_rng(0), 2)
    plain = algorithms.build("uda", temperature=1.0)
    ranked = selection.by_rank("uda", plain, 0.5)
    _, target = call(ranked, ranked.init_state(20, 2, 1), logits, batch)
    np.testing.assert_allclose(target.probs, call(plain, {}, logits, batch)[1].probs)
    assert 0 < target.weight.mean() < 1


@pytest.mark.parametrize("name", selection.FURTHER)
def test_further_rules_of_a_method_count_too(name):
    plain, heads = algorithms.build(name), 1 if name == "marginmatch" else 3
    ranked = selection.by_rank(name, plain, 0.4)
    logits, batch = random_step(np.random.default_rng(2), 2, heads)
    _, expected = call(plain, plain.init_state(20, 2, heads), logits, batch, step=4)
    _, target = call(ranked, ranked.init_state(20, 2, heads), logits, batch, step=4)
    np.testing.assert_array_equal(target.probs, expected.probs)
    assert set(np.unique(target.weight / np.maximum(expected.weight, 1e-9))) <= {0.0, 1.0}
    assert target.weight.sum() > 0 and (target.weight != expected.weight).any()


def test_methods_without_selection_are_refused():
    for name in set(algorithms.ALGORITHMS) - set(NAMES):
        with pytest.raises(BadInput, match="selects no pseudo-labels"):
            selection.by_rank(name, algorithms.build(name), 0.5)
