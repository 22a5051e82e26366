"""Shared by the tests of methods that work inside the model: a toy model in JAX and NumPy, a
tiny random BERT, and one call of the method's three functions."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from ssl_guard import algorithms, models
from ssl_guard.algorithms.losses import weighted

LABELLED, UNLABELLED, LENGTH, VOCAB, WIDTH = 5, 6, 4, 12, 3
LABELLED_POOL = 8
ALL_VIEWS = ("labelled", "weak", "strong")


def words(params, rows):
    return params["embed"][rows["input_ids"]]


def features(params, rows, rng, train, *, word_embeddings=None, mixup_fn=None, depth=1.0):
    """tanh(A sum of the words), mixed below or above the tanh; no dropout."""
    x = params["embed"][rows["input_ids"]] if word_embeddings is None else word_embeddings
    x = jnp.where(rows["attention_mask"][:, :, None] > 0, x, 0.0)
    if mixup_fn is not None:
        x = jnp.where(depth < 0.5, mixup_fn(x), x)
    x = jnp.tanh(x.sum(axis=1) @ params["dense"])
    return x if mixup_fn is None else jnp.where(depth < 0.5, x, mixup_fn(x))


def classify(params, x, row, rng, train):
    return jnp.einsum("bw,whc->bhc", x, params["head"])


TOY = models.Stages(words, features, classify)


def noisy_classify(params, x, row, rng, train):
    """With a noise of the key and the row, as dropout is."""
    keys = jax.vmap(lambda i: jax.random.fold_in(rng, i))(row)
    return classify(params, x * jax.vmap(jax.random.uniform)(keys)[:, None], row, rng, train)


NOISY = models.Stages(words, features, noisy_classify)


def numpy_features(params, x, mask):
    """The toy model's features of words [batch, length, width]."""
    return np.tanh((x * mask[:, :, None]).sum(1) @ params["dense"])


def numpy_logits(params, x):
    return np.einsum("bw,whc->bhc", x, params["head"])


def toy_params(rng, heads=1, classes=2):
    shapes = {"embed": (VOCAB, WIDTH), "dense": (WIDTH, WIDTH), "head": (WIDTH, heads, classes)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def random_batch(rng, classes=2, length=LENGTH, vocab=VOCAB):
    """One labelled row and two unlabelled ones of weight 0; texts of one to `length` tokens."""

    def view(rows):
        mask = (np.arange(length) < rng.integers(1, length + 1, (rows, 1))).astype(np.int32)
        return {
            "input_ids": rng.integers(1, vocab, (rows, length)).astype(np.int32) * mask,
            "attention_mask": mask,
            "token_type_ids": np.zeros((rows, length), np.int32),
            "row": np.arange(rows, dtype=np.int32),
        }

    return {
        "labelled": view(LABELLED)
        | {
            "label": rng.integers(0, classes, LABELLED).astype(np.int32),
            "weight": np.array([1, 1, 0, 1, 1], np.float32),
            "index": rng.permutation(LABELLED_POOL)[:LABELLED].astype(np.int32),
        },
        "weak": view(UNLABELLED),
        "strong": view(UNLABELLED),
        "index": rng.permutation(20)[:UNLABELLED].astype(np.int32),
        "weight": np.array([1, 0, 1, 1, 1, 0], np.float32),
    }


def key(step):
    """The key of a step of these tests."""
    return jax.random.fold_in(jax.random.key(0), step)


def run_inside(algorithm, stages, params, batch, progress=1.0, state=(), *, step=0):
    """One call of forward, target and loss: (logits, state, target, terms)."""
    clock = algorithms.StepInfo(
        jnp.int32(step), jnp.float32(progress), jnp.int32(0), jnp.bool(False), key(step)
    )
    params, batch = jax.tree.map(jnp.asarray, (params, batch))  # annotations refuse NumPy's
    logits = algorithm.forward(stages, params, batch, clock, algorithms.NO_COLLECTIVES)
    seen = jax.lax.stop_gradient(logits)
    state, target = algorithm.target(state, seen, batch, clock, algorithms.NO_COLLECTIVES)
    state, target = jax.lax.stop_gradient((state, target))
    return logits, state, target, algorithm.loss(logits, target, batch, clock)


def gradient_inside(algorithm, stages, params, batch, names, state=(), *, step=0):
    """Gradient of the sum of the named terms with respect to the parameters."""

    def objective(params, batch, state):
        terms = run_inside(algorithm, stages, params, batch, 1.0, state, step=step)[-1]
        return sum(
            terms[name].coefficient
            * weighted(terms[name].losses, terms[name].weights).sum()
            / jnp.maximum(terms[name].counts.sum(), 1.0)
            for name in names
        )

    return jax.device_get(jax.jit(jax.grad(objective))(params, batch, state))


def mixing_matrix(mixture):
    """Row i holds s at i and 1 - s at its partner (the draws themselves: see test_mixing)."""
    share, partner = np.asarray(mixture.share, np.float64), np.asarray(mixture.partner)
    rows = np.arange(len(share))
    m = np.diag(share)
    m[rows, partner] += 1 - share
    return m


def tiny_bert(folder, layers=1, **options):
    """A classifier with random weights, its parameters, and a batch for it."""
    config = {
        "model_type": "bert",
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 24,
        "max_position_embeddings": 32,
    }
    (folder / "config.json").write_text(json.dumps(config))
    classifier = models.build(folder, **options)
    rng = np.random.default_rng(0)
    batch = random_batch(rng, length=8, vocab=40)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0), batch["weak"])
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
    return classifier, params, batch


def assert_reaches_the_encoder(gradient):
    """No weight of the encoder or the head is left out. (Biases of keys shift all scores alike.)"""
    for path, leaf in jax.tree.leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        assert np.abs(leaf).max() > 1e-7 or "['key']['bias']" in name, name
