"""The classifier in parts: noise on the words, mixed rows, features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_guard.models import build
from ssl_guard.models.bert import BertConfig
from ssl_guard.models.encoder import Embeddings, PostNormLayer

TOLERANCE = 1e-5
SHARE = np.array([0.7, 0.6, 0.5, 0.9], np.float32)
PARTNER = np.array([1, 2, 3, 0])


def mix(x):
    """Row i with row i + 1."""
    share = SHARE.reshape(-1, *[1] * (x.ndim - 1))
    return (share * x + (1 - share) * x[PARTNER]).astype(x.dtype)


@pytest.fixture
def model(write_config, batch, random_like):
    """A classifier of two layers, random weights, and the four rows with a token."""
    classifier = build(write_config(num_hidden_layers=2), num_classes=3, dropout=0.2)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0), batch)
    return classifier, random_like(shapes, 0.3), {k: v[:4] for k, v in batch.items()}


CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=32,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)


def embed(params, ids, types, words=None):
    """The embeddings of a text in the classifier's encoder."""
    embeddings = Embeddings(CONFIG)
    return embeddings.apply({"params": params}, ids, jnp.arange(8)[None], types, words)


def pad(batch, length):
    def widen(x):
        return np.pad(x, ((0, 0), (0, length - x.shape[1]))) if x.ndim == 2 else x

    return {key: widen(value) for key, value in batch.items()}


def test_apply_is_its_parts(model):
    classifier, params, batch = model
    stages, rng = classifier.stages, jax.random.key(1)

    @jax.jit
    def both(params):
        words = stages.word_embeddings(params, batch)
        x = stages.features(params, batch, rng, True, word_embeddings=words)
        parts = stages.classify(params, x, batch["row"], rng, True)
        return x, parts, classifier.apply(params, batch, rng, True)

    x, parts, whole = both(params)
    assert x.shape == (4, 16) and x.dtype == "float32"
    np.testing.assert_array_equal(parts, whole)


def test_words_are_added_before_positions_and_the_norm(model):
    classifier, params, batch = model
    stages = classifier.stages
    noise = np.random.default_rng(0).normal(size=(4, 8, 16)).astype(np.float32)
    words = stages.word_embeddings(params, batch)
    table = params["encoder"]["embeddings"]["word"]["embedding"]
    np.testing.assert_array_equal(words, table[batch["input_ids"]])
    inputs = batch["input_ids"], batch["token_type_ids"]
    moved = embed(params["encoder"]["embeddings"], *inputs, words + noise)
    # The same by another table: one word id per token, each with its own noise.
    ids = np.arange(32).reshape(4, 8)
    other = np.zeros_like(table)
    other[ids] = words + noise
    changed = params["encoder"]["embeddings"] | {"word": {"embedding": other}}
    expected = embed(changed, ids, inputs[1])
    np.testing.assert_allclose(moved, expected, atol=TOLERANCE)


def test_no_gradient_goes_to_the_words_of_pads(model):
    classifier, params, batch = model
    stages = classifier.stages

    @jax.jit
    @jax.grad
    def gradient(words):
        x = stages.features(params, batch, jax.random.key(1), True, word_embeddings=words)
        return stages.classify(params, x, batch["row"], jax.random.key(1), True)[..., 0].sum()

    g = gradient(stages.word_embeddings(params, batch))
    pads = batch["attention_mask"] == 0
    assert (np.asarray(g)[pads] == 0).all()
    assert (np.abs(np.asarray(g)[~pads]).max(-1) > 0).all()


@pytest.mark.parametrize("depth, layer", [(0.5, 1), (0.2, 1), (0.51, 2), (1.0, 2)])
def test_rows_are_mixed_above_a_layer(model, depth, layer):
    """By hand, module by module: real tokens of both texts, and the union of their masks."""
    classifier, params, batch = model
    encoder = params["encoder"]
    mask = batch["attention_mask"][:, :, None]
    union = np.maximum(mask, mask[PARTNER])
    assert (union != mask).any()
    inputs = batch["input_ids"], batch["token_type_ids"]
    x = embed(encoder["embeddings"], *inputs)
    for number in (1, 2):
        real = mask if number <= layer else union
        bias = jnp.where(real[:, None, None, :, 0] > 0, 0.0, -1e9)
        block = PostNormLayer(CONFIG, "float32", site=0)
        x = block.apply({"params": encoder[f"layer_{number - 1}"]}, x, bias, None)
        if number == layer:
            x = mix(x * mask)
    expected = (x * union).sum(1) / union.sum(1)

    features = jax.jit(
        lambda depth: classifier.stages.features(
            params, batch, None, False, mixup_fn=mix, depth=depth
        )
    )
    np.testing.assert_allclose(features(depth), expected, atol=TOLERANCE)


@pytest.mark.parametrize("depth", [0.5, 1.0])
def test_pads_do_not_enter_a_mixture(model, depth):
    """Neither their number nor what stands under them, with dropout."""
    classifier, params, batch = model
    pads = batch["attention_mask"] == 0
    other = batch | {"input_ids": np.where(pads, 39, batch["input_ids"])}

    @jax.jit
    def features(batch):
        rng = jax.random.key(1)
        return classifier.stages.features(params, batch, rng, True, mixup_fn=mix, depth=depth)

    mixed = features(batch)
    assert (
        np.abs(
            mixed
            - jax.jit(classifier.stages.features, static_argnums=3)(
                params, batch, jax.random.key(1), True
            )
        ).max()
        > 0.1
    )
    np.testing.assert_array_equal(features(other), mixed)
    np.testing.assert_allclose(features(pad(batch, 13)), mixed, atol=TOLERANCE)


def test_mixing_with_share_one_changes_nothing(model):
    classifier, params, batch = model
    features, rng = classifier.stages.features, jax.random.key(1)
    plain = jax.jit(lambda: features(params, batch, rng, True))()
    same = jax.jit(
        lambda: features(params, batch, rng, True, mixup_fn=lambda x: 1.0 * x + 0.0 * x[PARTNER])
    )()
    np.testing.assert_allclose(same, plain, atol=1e-6)


def test_a_mixture_teaches_both_of_its_texts(model):
    classifier, params, batch = model
    stages = classifier.stages

    @jax.jit
    @jax.grad
    def gradient(words):
        x = stages.features(
            params, batch, None, False, word_embeddings=words, mixup_fn=mix, depth=0.5
        )
        return stages.classify(params, x, batch["row"], None, False)[0, 0, 0]

    by_row = np.abs(gradient(stages.word_embeddings(params, batch))).max(axis=(1, 2))
    assert (by_row[:2] > 1e-4).all() and (by_row[2:] == 0).all()


def test_mixing_in_bfloat16(write_config, model):
    classifier, params, batch = model
    half = build(write_config(num_hidden_layers=2), num_classes=3, dtype="bfloat16")
    run = [
        jax.jit(
            lambda s=c.stages: s.features(params, batch, None, False, mixup_fn=mix, depth=0.5)
        )()
        for c in (half, classifier)
    ]
    assert run[0].dtype == "float32"
    np.testing.assert_allclose(*run, atol=0.1)
