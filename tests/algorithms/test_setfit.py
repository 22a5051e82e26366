"""SetFit's contrastive loss against its equations in NumPy."""

import jax
import numpy as np
import pytest
from inside import (
    TOY,
    assert_reaches_the_encoder,
    gradient_inside,
    numpy_features,
    random_batch,
    run_inside,
    tiny_bert,
    toy_params,
)
from reference import value

from ssl_guard import algorithms
from ssl_guard.errors import BadInput

KINDS = ("positive", "negative")


def expected_terms(params, rows):
    """The two halves of the loss, pair by pair."""
    f = numpy_features(params, params["embed"][rows["input_ids"]], rows["attention_mask"])
    f = f / np.linalg.norm(f, axis=-1, keepdims=True)
    errors = {kind: [] for kind in KINDS}
    for i in range(len(f)):
        for j in range(len(f)):
            absent = rows["weight"][i] == 0 or rows["weight"][j] == 0
            if absent or rows["index"][i] == rows["index"][j]:
                continue
            same = rows["label"][i] == rows["label"][j]
            kind = "positive" if same else "negative"
            errors[kind].append((f[i] @ f[j] - same) ** 2)
    return {kind: 0.5 * np.mean(found) if found else 0.0 for kind, found in errors.items()}


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("twice", [False, True])
def test_terms(classes, twice):
    rng = np.random.default_rng(classes)
    algorithm = algorithms.build("setfit")
    for step in range(5):
        params, batch = toy_params(rng, 1, classes), random_batch(rng, classes)
        params["dense"] *= 0.3  # a saturated tanh gives equal features and errors of rounding size
        rows = batch["labelled"]
        rows["label"][:2] = 0, 1  # so that there are pairs of both kinds
        rows["label"][3:] = 0, 1
        if twice:
            rows["index"][3] = rows["index"][0]  # of one label: it is the same row
        _, _, target, terms = run_inside(algorithm, TOY, params, batch, step=step)
        assert target is None
        expected = expected_terms(params, rows)
        assert min(expected.values()) > 1e-4
        for kind in KINDS:
            assert value(terms[kind]) == pytest.approx(expected[kind], rel=1e-4), kind


def test_a_batch_of_one_class_has_no_negative_pair():
    rng = np.random.default_rng(0)
    params, batch = toy_params(rng), random_batch(rng)
    batch["labelled"]["label"][:] = 1
    _, _, _, terms = run_inside(algorithms.build("setfit"), TOY, params, batch)
    assert value(terms["negative"]) == 0
    gradient = gradient_inside(algorithms.build("setfit"), TOY, params, batch, ("negative",))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient))


def test_the_gradient_reaches_the_encoder_and_not_the_head(tmp_path):
    classifier, params, batch = tiny_bert(tmp_path)
    batch["labelled"]["label"][:] = 0, 1, 0, 0, 1
    algorithm = algorithms.build("setfit")
    gradient = gradient_inside(algorithm, classifier.stages, params, batch, KINDS)
    assert_reaches_the_encoder(gradient["encoder"])
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(gradient["head"]))


@pytest.mark.parametrize("C", [0.0, -1.0, float("nan")])
def test_a_penalty_that_is_none(C):
    with pytest.raises(BadInput, match="config.setfit: C = .* must be positive"):
        algorithms.build("setfit", C=C)
