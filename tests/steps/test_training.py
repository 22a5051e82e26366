"""The train step on a toy model: gradients, averages, metrics, bad steps and golden numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_guard import algorithms, models, steps
from ssl_guard.algorithms.base import Algorithm, supervised_term
from ssl_guard.algorithms.losses import Term
from ssl_guard.errors import BadInput
from ssl_guard.steps import optim
from tests.tiny import write_encoder
from tests.toy import (
    METHODS,
    apply,
    assert_same,
    batches,
    classify,
    embed,
    features,
    make,
)

GOLDEN = {  # of three steps
    "loss/total": [5.530720, 3.685769, 4.020926],
    "loss/supervised": [3.788958, 2.503157, 3.657269],
    "loss/unlabelled": [1.741762, 1.182611, 0.363657],
    "grad_norm": [5.441300, 4.330255, 3.310716],
}


UPDATE = (
    "The train step gives other numbers than before. If you meant to change the algorithm, the "
    "optimiser, the order of the random keys or the model of this test, check the change on a real "
    "run and copy the new numbers: {}. If you meant to refactor, this is a bug: do not update them."
)


def test_golden_numbers_of_three_uda_steps():
    step, state = make("uda", **METHODS["uda"])
    found = {name: [] for name in GOLDEN}
    for batch in batches():
        state, metrics = step(state, batch)
        for name, values in found.items():
            values.append(float(metrics[name][0]) / float(metrics[name][1]))
    expected = {name: pytest.approx(values, rel=1e-4) for name, values in GOLDEN.items()}
    assert found == expected, UPDATE.format(found)


GOLDEN_ENCODER = {  # of the second step, and after it
    "loss/supervised": 0.696273,
    "loss/unlabelled": 0.120206,
    "grad_norm": 0.272148,
    "pseudo/confidence": 0.513855,
    "embeddings": 0,
    "feed_forward": 0.32146,
    "head": 0.313967,
    "average of head": 0.285069,
}


def test_golden_numbers_of_two_uda_steps_of_an_encoder(tmp_path):
    """The step as a run assembles it: encoder, head, AdamW with frozen embeddings, average."""
    folder = write_encoder(tmp_path / "encoder")
    model, (first, second, _) = models.build(folder), batches()
    params = models.init_from_pretrained(model, folder, jax.random.key(1), first["labelled"])
    hyper = {"freeze": ("encoder/embeddings",), "num_layers": 1, "layer_decay": 0.75}
    schedule = functools.partial(optim.warmup_cosine, peak=1e-2, warmup_steps=1, total_steps=10)
    tx = optim.adamw(params, schedule=schedule, weight_decay=0.01, clip_norm=1.0, **hyper)
    algorithm = algorithms.build("uda", confidence=0.5, temperature=0.05)
    sizes = {"pool_size": 0, "num_classes": 2, "num_heads": 1, "ema_decay": 0.9}
    state = steps.init_state(jax.random.key(3), params, algorithm=algorithm, tx=tx, **sizes)
    step = functools.partial(
        steps.train_step,
        apply=model.apply,
        algorithm=algorithm,
        tx=tx,
        total_steps=10,
        freeze=hyper["freeze"],
        ema_decay=0.9,
    )
    step = jax.jit(step)
    state, _ = step(state, first)
    state, metrics = step(state, second)

    def moved(new, *path):
        """Norm of the change since the first step."""
        old = params
        for key in path:
            new, old = new[key], old[key]
        return float(optax.tree.norm(jax.tree.map(jnp.subtract, new, old)))

    names = ("loss/supervised", "loss/unlabelled", "grad_norm", "pseudo/confidence")
    found = {name: float(metrics[name][0]) / float(metrics[name][1]) for name in names}
    forward = "encoder", "layer_0", "feed_forward"
    found |= {
        "embeddings": moved(state.params, "encoder", "embeddings"),
        "feed_forward": moved(state.params, *forward),
        "head": moved(state.params, "head"),
        "average of head": moved(state.ema_params, "head"),
    }
    assert found == pytest.approx(GOLDEN_ENCODER, rel=1e-4), UPDATE.format(found)


def test_a_model_that_is_apply_alone():
    """It does for methods that read logits; one that needs the model's inside says so."""
    batch = next(iter(batches()))
    step, state = make("fixmatch")
    assert_same(step(state, batch, stages=None)[0].params, step(state, batch)[0].params)
    step, state = make("mixmatch")
    with pytest.raises(BadInput, match="stages=models.build"):
        step(state, batch, stages=None)


def test_every_head_has_a_strong_view_of_its_own():
    """Heads of equal weights predict alike in one pass; an own dropout mask tells them apart."""
    batch = next(iter(batches()))
    step, state = make("multihead_cotraining")
    head = state.params["head"]
    state = state._replace(
        params=state.params | {"head": jnp.broadcast_to(head[:, :1], head.shape)}
    )
    after, _ = step(state, batch)
    moved = np.asarray(after.params["head"] - state.params["head"])
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(moved[:, one] - moved[:, other]).max() > 1e-4, "they learn apart"


def test_no_gradient_reaches_the_target():
    """Dropout off and equal views: the loss must be that of a constant target."""
    step, state = make("fixmatch", threshold=0.0)
    batch = next(iter(batches()))
    quiet = functools.partial(
        step, apply=lambda p, b, r, t: apply(p, b, r, False), tx=optax.sgd(1.0)
    )
    state = state._replace(opt_state=optax.sgd(1.0).init(state.params))
    after, _ = quiet(state, batch)
    labels = np.asarray(apply(state.params, batch["weak"], None, False)[:, 0].argmax(-1))

    def objective(params):
        supervised = apply(params, batch["labelled"], None, False)[:, 0]
        strong = apply(params, batch["strong"], None, False)[:, 0]
        loss = optax.softmax_cross_entropy_with_integer_labels
        first = loss(supervised, batch["labelled"]["label"]) * batch["labelled"]["weight"]
        second = loss(strong, labels) * batch["weight"]
        return (
            first.sum() / batch["labelled"]["weight"].sum() + second.sum() / batch["weight"].sum()
        )

    expected = optax.apply_updates(
        state.params, jax.tree.map(jnp.negative, jax.grad(objective)(state.params))
    )
    assert_same(after.params, expected)


def test_frozen_parameters_stay_and_have_no_optimiser_state():
    params = {
        "encoder": {"embeddings": {"w": jnp.ones((3, 2))}, "layer_0": {"w": jnp.ones((2, 2))}}
    }
    tx = optim.adamw(
        params,
        schedule=lambda step: 0.1,
        weight_decay=0.1,
        layer_decay=0.5,
        num_layers=1,
        clip_norm=0.0,
        freeze=("encoder/embeddings",),
    )
    state = tx.init(params)
    assert not any(
        leaf.shape == (3, 2) for leaf in jax.tree.leaves(state) if hasattr(leaf, "shape")
    )
    grads = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(grads, state, params)
    assert (updates["encoder"]["embeddings"]["w"] == 0).all()
    # Weight decay alone: -lr * layer_decay * weight_decay * w.
    np.testing.assert_allclose(updates["encoder"]["layer_0"]["w"], -0.1 * 0.5 * 0.1, rtol=1e-6)


def test_layer_factors():
    leaf = jnp.zeros(())
    params = {
        "encoder": {"embeddings": {"w": leaf}, "layer_0": {"w": leaf}, "layer_11": {"w": leaf}},
        "head": {"w": leaf},
    }
    factors = optim.layer_factors(params, 0.75, 12)
    assert factors["encoder"]["embeddings"]["w"] == pytest.approx(0.0238, abs=1e-4)
    assert factors["encoder"]["layer_0"]["w"] == pytest.approx(0.0317, abs=1e-4)
    assert factors["encoder"]["layer_11"]["w"] == pytest.approx(0.75)
    assert factors["head"]["w"] == 1.0


def test_ema_is_the_recurrence():
    step, state = make("supervised")
    average = state.params
    for decay, batch in zip((1 / 10, 2 / 11, 3 / 12), batches(), strict=True):
        state, _ = step(state, batch)
        average = jax.tree.map(
            lambda a, p, decay=decay: decay * a + (1 - decay) * p, average, state.params
        )
    assert_same(state.ema_params, average)


def test_the_average_soon_forgets_the_initial_weights():
    average = jnp.zeros(())
    for step in range(200):
        average = optim.update_average(average, jnp.ones(()), 0.999, jnp.int32(step))
        if step == 9:
            assert average > 0.99, "a constant decay would still be at 0.01"
    assert average == pytest.approx(1)
    late = optim.update_average(jnp.zeros(()), jnp.ones(()), 0.9, jnp.int32(1000))
    assert late == pytest.approx(0.1), "the decay itself once the run is long"
    assert optim.update_average(None, None, 0.9, jnp.int32(0)) is None


def test_a_pseudo_label_of_the_strong_view_has_its_confidence():
    """A hard target is always 1; the confidence is that of the prediction behind it."""
    step, state = make("pseudo_label", threshold=0.0)
    batch = next(iter(batches()))
    _, metrics = step(state, batch)
    key = algorithms.dropout_key(jax.random.fold_in(state.rng, 0), "strong")
    probs = jax.nn.softmax(apply(state.params, batch["strong"], key, True))[:, 0]
    expected = (probs.max(axis=1) * batch["weight"]).sum() / batch["weight"].sum()
    total, count = metrics["pseudo/confidence"]
    assert float(total / count) == pytest.approx(float(expected), rel=1e-5)
    assert expected < 1
    assert metrics["pseudo/margins_0"][1] + metrics["pseudo/margins_1"][1] == batch["weight"].sum()


@pytest.mark.parametrize("name", ["uda", "multimatch", "mixmatch", "marginmatch virtual"])
def test_a_supervised_start_is_the_supervised_run_and_then_the_method(name):
    step, state = make(name, **METHODS[name])
    started = jax.jit(steps.supervised_start(step, 2))
    plain = functools.partial(step, algorithm=algorithms.build("supervised"))
    found, expected = state, state
    for batch in list(batches())[:2]:
        found, metrics = started(found, batch)
        expected, _ = plain(expected, batch)
        assert metrics["loss/supervised"][1] > 0
        assert metrics["loss/unlabelled"][1] == metrics["pseudo/mask_rate"][1] == 0
    assert_same(found.params, expected.params)
    assert_same(found.opt_state, expected.opt_state)
    assert_same(found.algo_state, state.algo_state)
    last = list(batches())[2]
    after, metrics = started(found, last)
    assert metrics["loss/unlabelled"][1] > 0
    assert_same(after.params, step(expected, last, method_start=2)[0].params)
    if name == "multimatch":  # its first epoch, which is without pseudo-labels, begins here
        assert metrics["pseudo/mask_rate"][0] == metrics["pseudo/mask_rate"][1]
        assert (after.algo_state["visits"] <= 1).all() and after.algo_state["visits"].sum() > 0


@pytest.mark.parametrize(
    "name", [name for name in METHODS if algorithms.build(name.split()[0]).views]
)
def test_an_oracle_teaches_hidden_labels(name):
    """Where they are known; one row in three of this test's keeps the method's guess."""
    step, state = make(name, **METHODS[name])
    step, epoch = jax.jit(functools.partial(step, oracle=True, steps_per_epoch=1)), {}
    for batch in batches():
        state, metrics = step(state, batch)
        epoch = metrics
    assert epoch["pseudo/accuracy"][0] == epoch["pseudo/accuracy"][1] > 0


def test_an_oracle_without_soft_labels_leaves_unknown_rows_out():
    step, state = make("self_training")
    batch = next(iter(batches()))
    soft = {"soft_label", "soft_weight"}
    bare = {name: values for name, values in batch.items() if name not in soft}
    weightless = batch | {"soft_weight": jnp.zeros_like(batch["soft_weight"])}
    ours, theirs = (step(state, b, oracle=True)[0].params for b in (bare, weightless))
    assert_same(ours, theirs)
    known = (batch["hidden_label"] >= 0).sum()
    _, metrics = step(state, bare, oracle=True)
    assert 0 < known < len(batch["hidden_label"]) and metrics["pseudo/used"][0] <= known


@pytest.mark.parametrize("name", ["uda", "self_training"])
def test_the_guesses_of_rows_without_a_hidden_label_stay(name):
    step, state = make(name, **METHODS[name])
    batch = next(iter(batches()))
    unknown = batch | {"hidden_label": jnp.full_like(batch["hidden_label"], -1)}
    assert_same(step(state, unknown, oracle=True)[0].params, step(state, unknown)[0].params)
    ours, theirs = step(state, batch, oracle=True)[0], step(state, batch)[0]
    assert not np.allclose(ours.params["head"], theirs.params["head"])


def test_metrics_count_rows_exactly():
    step, state = make("fixmatch", threshold=0.5)
    batch = next(iter(batches()))
    _, metrics = step(state, batch)
    assert metrics["pseudo/mask_rate"] == (0.0, batch["weight"].sum())
    known = (batch["hidden_label"] >= 0) * batch["weight"]
    assert metrics["pseudo/accuracy"][1] == known.sum()
    labels = np.asarray(metrics["pseudo/accuracy_0"][1] + metrics["pseudo/accuracy_1"][1])
    assert labels == known.sum()
    assert metrics["loss/supervised"][1] == batch["labelled"]["weight"].sum()


def test_a_term_without_rows_is_zero():
    """max(count, 1): no row kept gives a zero loss and finite parameters."""

    def loss(logits, target, batch, clock):
        term = supervised_term(logits["labelled"], batch["labelled"])
        return {"supervised": Term(term.losses, term.weights * 0, term.counts * 0)}

    nothing = Algorithm((), lambda *_: {}, lambda state, *_: (state, None), loss)
    step, state = make("supervised")
    after, metrics = functools.partial(step, algorithm=nothing)(state, next(iter(batches())))
    assert metrics["loss/total"][0] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))


@pytest.mark.parametrize("fault", ["loss", "gradient"])
@pytest.mark.parametrize("name", ["freematch", "multimatch", "mixmatch"])
def test_a_step_that_is_not_finite_leaves_nothing_behind(name, fault):
    """A bad labelled row in the second batch: the third step follows the first, one number on."""

    def broken(logits, params, batch):
        bad = (batch["input_ids"] == 30).any().astype(jnp.float32)
        if fault == "loss":
            return jnp.where(bad > 0, jnp.nan, 1.0) * logits
        return logits + jnp.sqrt(
            1.0 - bad + 0.0 * params["feed_forward"]["up"]["kernel"].sum()
        )  # its slope at 0

    def features_badly(params, batch, *arguments, **options):
        x = features(params, batch, *arguments, **options)
        return broken(x, params, batch)

    step, state = make(name, **METHODS[name])
    step = functools.partial(
        step,
        apply=lambda p, b, r, t: broken(apply(p, b, r, t), p, b),
        stages=models.Stages(embed, features_badly, classify),
    )
    first, second, third = batches()
    ids = second["labelled"]["input_ids"].at[0, 0].set(30)
    second = second | {"labelled": second["labelled"] | {"input_ids": ids}}
    second["labelled"]["attention_mask"] = second["labelled"]["attention_mask"].at[0, 0].set(0)
    one, good = step(state, first)
    two, bad = step(one, second)
    assert good["skipped"][0] == 0 and bad["skipped"] == (1, 1)
    assert all(np.isfinite(np.asarray(v)).all() for v in jax.tree.leaves(bad))
    assert {name for name, (_, weight) in bad.items() if np.any(weight)} == {"skipped"}
    assert two.step == 2
    assert_equal(two._replace(step=one.step), one)
    three, _ = step(two, third)
    expected, _ = step(one._replace(step=jnp.asarray(2, jnp.int32)), third)
    assert_equal(three, expected)


def assert_equal(actual, expected):
    actual, expected = (s._replace(rng=jax.random.key_data(s.rng)) for s in (actual, expected))
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
