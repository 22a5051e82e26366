"""A toy model, batches and every method's settings, for tests of the train step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_guard import algorithms, models, steps
from ssl_guard.algorithms import selection

LABELLED, UNLABELLED, LENGTH, STEPS, WIDTH = 16, 16, 6, 3, 8
POOL, LABELLED_POOL = 40, 12
RTOL = 2e-5


def embed(params, batch):
    return params["embeddings"]["word"]["embedding"][batch["input_ids"]]


def features(params, batch, rng, train, *, word_embeddings=None, mixup_fn=None, depth=1.0):
    """Bag of words and one layer; rows are mixed below or above it."""
    x = embed(params, batch) if word_embeddings is None else word_embeddings
    x = x * batch["attention_mask"][..., None]
    if mixup_fn is not None:
        x = jnp.where(depth < 0.5, mixup_fn(x), x)
    x = jnp.tanh(x.sum(axis=1) @ params["feed_forward"]["up"]["kernel"])
    return x if mixup_fn is None else jnp.where(depth < 0.5, x, mixup_fn(x))


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


STAGES = models.Stages(embed, features, classify)


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
    rng, soft = np.random.default_rng(1), np.random.default_rng(2)

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
            "soft_label": soft.random(UNLABELLED, np.float32),
            "soft_weight": (soft.random(UNLABELLED) < 0.7).astype(np.float32),
        }
        yield jax.tree.map(jnp.asarray, batch)  # annotations refuse NumPy's arrays


def make(name, **arguments):
    name, _, variant = name.partition(" ")  # tells variants of one method apart
    algorithm = algorithms.build(name, **arguments)
    if variant == "by rank":
        algorithm = selection.by_rank(name, algorithm, 0.5)
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
    "self_training": {},
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
    "fixmatch by rank": {},
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
