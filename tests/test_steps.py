"""The train step on a toy model: any device layout, any wrapper, the same numbers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_guard import algorithms, models, steps
from ssl_guard.algorithms.base import Algorithm, supervised_term
from ssl_guard.algorithms.losses import Term
from ssl_guard.errors import BadInput
from ssl_guard.runtime import sharding

LABELLED, UNLABELLED, LENGTH, STEPS, WIDTH = 16, 16, 6, 3, 8
POOL, LABELLED_POOL = 40, 12
RTOL = 2e-5


def word_embeddings(params, batch):
    return params["embeddings"]["word"]["embedding"][batch["input_ids"]]


def features(params, batch, rng, train, *, words=None, mix=None, depth=1.0):
    """Bag of words and one layer; rows are mixed below or above it."""
    x = word_embeddings(params, batch) if words is None else words
    x = x * batch["attention_mask"][..., None]
    if mix is not None:
        x = jnp.where(depth < 0.5, mix(x), x)
    x = jnp.tanh(x.sum(axis=1) @ params["feed_forward"]["up"]["kernel"])
    return x if mix is None else jnp.where(depth < 0.5, x, mix(x))


def classify(params, x, row, rng, train):
    """Dropout keyed by the row's place in the global batch, and one layer."""
    if train:
        keys = jax.vmap(lambda row: jax.random.fold_in(rng, row))(row)
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 0.8, x.shape[1:]))(keys)
        x = jnp.where(keep, x / 0.8, 0.0)
    return jnp.tensordot(x, params["head"], 1)


def apply(params, batch, rng, train):
    x = features(params, batch, rng, train)
    return classify(params, x, batch["row"], rng, train)


STAGES = models.Stages(word_embeddings, features, classify)


def new_params(heads=1, outputs=2):
    rng = np.random.default_rng(0)
    shapes = {  # names as in models/, which decide how a mesh splits them
        "embeddings": {"word": {"embedding": (31, WIDTH)}},
        "feed_forward": {"up": {"kernel": (WIDTH, WIDTH)}},
        "head": (WIDTH, heads, outputs),
    }
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def batches():
    rng = np.random.default_rng(1)

    def view(rows):
        return {
            "input_ids": rng.integers(0, 30, (rows, LENGTH)).astype(np.int32),
            "attention_mask": (rng.random((rows, LENGTH)) < 0.8).astype(np.int32),
            "token_type_ids": np.zeros((rows, LENGTH), np.int32),
            "row": np.arange(rows, dtype=np.int32),
        }

    for _ in range(STEPS):
        labels = rng.integers(0, 2, LABELLED).astype(np.int32)
        weight = np.ones(LABELLED, np.float32)
        weight[-3:] = 0  # padded rows, all on the last devices
        batch = {
            "labelled": view(LABELLED)
            | {
                "label": labels,
                "weight": weight,
                "index": (np.arange(LABELLED) * 5 % LABELLED_POOL).astype(np.int32),
            },
            "weak": view(UNLABELLED),
            "strong": view(UNLABELLED),
            "index": rng.permutation(POOL)[:UNLABELLED].astype(np.int32),
            "weight": (rng.random(UNLABELLED) < 0.8).astype(np.float32),
            "hidden_label": rng.integers(-1, 2, UNLABELLED).astype(np.int32),
        }
        yield jax.tree.map(jnp.asarray, batch)  # annotations refuse NumPy's arrays


def make(name, **arguments):
    name = name.split()[0]  # what follows tells variants of one method apart
    algorithm = algorithms.build(name, **arguments)
    heads = HEADS.get(name, 1)
    # Adam divides by the gradient's size; eps keeps the rounding of a zero from becoming a step.
    tx = optax.adamw(1e-2, eps=1e-3)
    step = functools.partial(
        steps.train_step,
        apply=apply,
        stages=STAGES,
        algorithm=algorithm,
        tx=tx,
        total_steps=10,
        ema_decay=0.9,
    )
    state = steps.init_state(
        jax.random.key(3),
        new_params(heads, 2 + algorithm.extra_classes),
        algorithm=algorithm,
        tx=tx,
        pool_size=POOL,
        num_classes=2,
        num_heads=heads,
        ema_decay=0.9,
        labelled_size=LABELLED_POOL,
        width=WIDTH,
    )
    return step, state


def drive(step, state, put=lambda batch: batch):
    history = []
    for batch in batches():
        state, metrics = step(state, put(batch))
        history.append(metrics)
    return jax.device_get((state.params, state.ema_params, state.algo_state, history))


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=RTOL, atol=1e-6), actual, expected
    )


METHODS = {
    "supervised": {},
    "pseudo_label": {"threshold": 0.7},
    "pi_model": {},
    "mean_teacher": {},
    "vat": {"epsilon": 1.0},
    "mixmatch": {"unlabelled_weight": 10.0},
    "remixmatch": {"window": 2},
    "simmatch": {"threshold": 0.7},
    "setfit": {},
    "tmix": {"depths": (0.2, 1.0)},
    "mixtext": {"depths": (0.2, 1.0), "strong_weight": 1.0, "margin_weight": 1.0, "margin": 1.0},
    "uda": {"confidence": 0.6, "tsa": "linear"},
    "fixmatch": {"threshold": 0.7},
    "flexmatch": {"threshold": 0.7, "thresh_warmup": False},
    "freematch": {"momentum": 0.5, "fairness_weight": 0.5},
    "softmatch": {"momentum": 0.5},
    "adamatch": {"momentum": 0.5},
    "dash": {"warmup_steps": 1, "estimate_steps": 1, "decay_every_steps": 1, "gamma": 8.0},
    "marginmatch agreement": {"threshold": "agreement", "agreement_quantile": 0.6},
    "marginmatch virtual": {"threshold": "virtual", "virtual_share": 0.4, "warmup": 0.0},
    "multihead_cotraining": {},
    "multimatch": {"quantile": 0.4, "momentum": 0.5},
}
HEADS = {"multihead_cotraining": 3, "multimatch": 3}


@pytest.fixture(scope="module", params=METHODS)
def reference(request):
    """The step, a fresh state and what three un-jitted steps give."""
    step, state = make(request.param, **METHODS[request.param])
    return step, state, drive(step, state)


MESHES = {  # data, fsdp, tensor; is the pool's state split; parts of a batch where there can be
    "2 devices, accumulated": ((2, 1, 1), False, 4),
    "4 devices": ((2, 2, 1), True, 1),
    "8 devices": ((2, 2, 2), True, 1),
}


@pytest.mark.parametrize("name", MESHES)
def test_a_mesh_equals_unjitted_on_one_device(reference, name):
    step, state, expected = reference
    if name == "4 devices" and not any(POOL in x.shape for x in jax.tree.leaves(state.algo_state)):
        pytest.skip("two and eight are enough for a method that keeps nothing of the pool")
    shape, shard_pool, parts = MESHES[name]
    axes = dict(zip(sharding.AXES, shape, strict=True))
    mesh = sharding.make_mesh(jax.devices()[: math.prod(shape)], **axes)
    stages = models.Stages(*(sharding.whole(stage, mesh) for stage in STAGES))
    step = functools.partial(step, apply=sharding.whole(apply, mesh), stages=stages)
    if step.keywords["algorithm"].forward is None:
        step = functools.partial(step, accumulate=parts)
    state = sharding.pad_pool(state)
    places = sharding.shardings(
        sharding.place(jax.eval_shape(lambda: state), mesh, shard_pool=shard_pool)
    )
    jitted = jax.jit(
        step,
        in_shardings=(places, sharding.split_rows(mesh)),
        out_shardings=(places, sharding.replicated(mesh)),
    )
    found = drive(jitted, jax.device_put(state, places), lambda b: sharding.put_batch(b, mesh))
    assert_same(without_padding(found), expected)


def without_padding(found):
    """What `drive` found, with the rows of the real pool alone."""
    params, ema_params, algo_state, history = found
    sizes = {sharding.POOL_MULTIPLE: POOL}
    algo_state = jax.tree.map(lambda x: x[: sizes.get(len(x), len(x))] if x.ndim else x, algo_state)
    return params, ema_params, algo_state, history


def test_shard_map_with_axis_name_equals_unjitted(reference):
    step, state, expected = reference
    mesh, spec = sharding.make_mesh(), jax.sharding.PartitionSpec
    mapped = jax.jit(
        jax.shard_map(
            functools.partial(step, axis_name="data"),
            mesh=mesh,
            in_specs=(spec(), spec("data")),
            out_specs=(spec(), spec()),
            check_vma=False,
        )
    )
    state = jax.device_put(state, sharding.replicated(mesh))
    assert_same(drive(mapped, state, lambda b: sharding.put_batch(b, mesh)), expected)


@pytest.mark.parametrize(
    "reference", ["freematch", "marginmatch virtual", "mixtext", "multimatch"], indirect=True
)
def test_pmap_with_axis_name_equals_unjitted(reference):
    """Some methods: pmap is shard_map inside."""
    step, state, expected = reference
    devices = jax.device_count()
    mapped = jax.pmap(
        functools.partial(step, axis_name="data"),
        axis_name="data",
        in_axes=(None, 0),
        out_axes=None,
    )

    def split(batch):
        return jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)

    assert_same(drive(mapped, state, split), expected)


def test_a_mean_of_device_ratios_would_be_another_number():
    """The guard of the tests above: rows kept are spread unevenly over the devices."""
    weights = next(iter(batches()))["labelled"]["weight"].reshape(8, -1)
    assert weights.sum(axis=1).min() < weights.sum(axis=1).max()


def test_a_model_that_is_apply_alone():
    """It does for methods that read logits; one that needs the model's inside says so."""
    batch = next(iter(batches()))
    step, state = make("fixmatch")
    assert_same(step(state, batch, stages=None)[0].params, step(state, batch)[0].params)
    step, state = make("mixmatch")
    with pytest.raises(BadInput, match="stages=models.build"):
        step(state, batch, stages=None)


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
    from ssl_guard.steps import optim

    params = {
        "encoder": {"embeddings": {"w": jnp.ones((3, 2))}, "layer_0": {"w": jnp.ones((2, 2))}}
    }
    tx = optim.build(
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
    from ssl_guard.steps import optim

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
    for batch in batches():
        state, _ = step(state, batch)
        average = jax.tree.map(lambda a, p: 0.9 * a + 0.1 * p, average, state.params)
    assert_same(state.ema_params, average)


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
        stages=models.Stages(word_embeddings, features_badly, classify),
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
