import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_guard.errors import BadInput
from ssl_guard.models import build

TOLERANCE = 1e-5  # float32; what padding and the rest of the batch may move a logit by


INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture
def model(write_config, batch, random_like):
    """A classifier of two heads and three classes, random weights, and its jitted apply."""
    classifier = build(write_config(), num_classes=3, num_heads=2, dropout=0.2)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0), batch)
    return classifier, random_like(shapes, 0.3), jax.jit(classifier.apply, static_argnums=3)


def pad(batch, length):
    def widen(x):
        return np.pad(x, ((0, 0), (0, length - x.shape[1])))

    return batch | {key: widen(batch[key]) for key in INPUTS}


@pytest.mark.parametrize(("pooling", "train"), [("cls", False), ("mean", False), ("mean", True)])
def test_padding_does_not_move_a_logit(write_config, model, batch, pooling, train):
    _, params, _ = model
    classifier = build(write_config(), num_classes=3, num_heads=2, dropout=0.2, pooling=pooling)
    apply, rng = jax.jit(classifier.apply, static_argnums=3), jax.random.key(1)
    # Only rows with a token: the states of an empty row average over its pads by design.
    batch = {key: value[:4] for key, value in batch.items()}
    logits = apply(params, batch, rng, train)
    assert np.ptp(logits) > 0.5
    np.testing.assert_allclose(apply(params, pad(batch, 13), rng, train), logits, atol=TOLERANCE)


@pytest.mark.parametrize("train", [False, True])
def test_batch_size_and_position_do_not_move_a_logit(model, batch, train):
    _, params, apply = model
    rng = jax.random.key(1)
    logits = apply(params, batch, rng, train)
    for rows in ([4, 2, 0, 1, 3], [2, 2, 2, 2, 2], [3]):
        part = {key: value[rows] for key, value in batch.items()}
        np.testing.assert_allclose(
            apply(params, part, rng, train), logits[np.array(rows)], atol=TOLERANCE
        )


def test_what_stands_under_the_padding_is_never_seen(model, batch):
    _, params, apply = model
    pads = batch["attention_mask"] == 0
    other = batch | {
        "input_ids": np.where(pads, 39, batch["input_ids"]),
        "token_type_ids": np.where(pads, 1, batch["token_type_ids"]),
    }
    logits, moved = (apply(params, b, None, False)[:4] for b in (batch, other))
    np.testing.assert_array_equal(logits, moved)


def test_token_types_are_seen(model, batch):
    _, params, apply = model
    other = batch | {"token_type_ids": 1 - batch["token_type_ids"]}
    logits, moved = (apply(params, b, None, False)[:4] for b in (batch, other))
    assert np.abs(logits - moved).max() > 1e-3


def test_gradients_reach_every_weight_and_are_finite_with_an_empty_row(model, batch):
    classifier, params, _ = model
    target = np.arange(30.0, dtype=np.float32).reshape(5, 2, 3)

    def loss(params, batch):
        return (classifier.apply(params, batch, jax.random.key(0), True) * target).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss))(params, batch)
    assert np.isfinite(value)
    for path, leaf in jax.tree.leaves_with_path(gradient):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        if "['key']['bias']" not in name:  # shifts all scores of a query alike: no effect
            assert np.abs(leaf).max() > 1e-6, name
    positions = gradient["encoder"]["embeddings"]["position"]["embedding"]
    assert not positions[8:].any()


def test_gradient_of_padding_is_exactly_zero(model, batch):
    classifier, params, _ = model
    batch = {key: value[[1]] for key, value in batch.items()}  # five tokens and three pads
    weights = np.arange(6.0, dtype=np.float32).reshape(1, 2, 3)

    def loss(params, batch):
        return (classifier.apply(params, batch, None, False) * weights).sum()

    gradient = jax.jit(jax.grad(loss))(params, batch)["encoder"]["embeddings"]
    assert np.abs(gradient["position"]["embedding"][:5]).min() > 0
    assert not gradient["position"]["embedding"][5:].any()
    assert not gradient["word"]["embedding"][0].any()


def test_dropout_follows_the_key(write_config, model, batch):
    classifier, params, apply = model
    one, again, two = (apply(params, batch, jax.random.key(k), True) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - two).max() > 1e-2
    still = build(write_config(), num_classes=3, num_heads=2, dropout=0.0)
    np.testing.assert_allclose(
        jax.jit(still.apply, static_argnums=3)(params, batch, jax.random.key(1), True),
        apply(params, batch, None, False),
        atol=TOLERANCE,
    )


def test_bfloat16_logits_are_float32_and_close(write_config, model, batch):
    _, params, apply = model
    half = build(write_config(), num_classes=3, num_heads=2, dtype="bfloat16")
    logits = jax.jit(half.apply, static_argnums=3)(params, batch, None, False)
    assert logits.dtype == "float32"
    np.testing.assert_allclose(logits, apply(params, batch, None, False), atol=0.1)


def test_shapes_without_values(model, batch):
    classifier, params, _ = model
    shapes = jax.eval_shape(classifier.init, jax.random.key(0), batch)
    assert set(shapes) == {"encoder", "head"}
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, params)
    assert all(leaf.dtype == "float32" for leaf in jax.tree.leaves(shapes))
    logits = jax.eval_shape(lambda p, b: classifier.apply(p, b, None, False), shapes, batch)
    assert logits.shape == (5, 2, 3) and logits.dtype == "float32"
    assert hash(classifier.config) is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "max"}, "pooling='max' is unknown; use one of cls, mean"),
        ({"head": "conv"}, "head='conv' is unknown"),
        ({"dtype": "float16"}, "dtype='float16' is unknown"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"num_classes": 0}, "num_classes=0"),
        ({"num_heads": 0}, "num_heads=0"),
        ({"num_layers": 2}, "num_layers=2 is not between"),
    ],
)
def test_unknown_option_is_bad_input(write_config, options, message):
    with pytest.raises(BadInput, match=message):
        build(write_config(), **options)


@pytest.mark.parametrize("text", [None, "", "{", "[1]", '{"vocab_size": 3}', b"\xff\xfe"])
def test_broken_config_is_bad_input(tmp_path, text):
    if text is not None:
        (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput, match="config.json is not the config.json of"):
        build(tmp_path)


def test_config_of_another_kind_is_bad_input(write_config):
    with pytest.raises(BadInput, match="model_type 'gpt2'; known are bert, roberta, "):
        build(write_config(model_type="gpt2"))
    with pytest.raises(BadInput, match="config.json: hidden_act='mish' is not supported"):
        build(write_config(hidden_act="mish"))


def test_scoring_weights_give_the_same_logits(write_config, batch, random_like):
    """Bit for bit: a matrix is rounded once either way. What computes in float32 stays float32."""
    half = build(write_config(), dtype="bfloat16")
    params = random_like(jax.eval_shape(half.init, jax.random.key(0), batch), 0.3)
    cast = half.for_scoring(jax.tree.map(jnp.asarray, params))
    layer = cast["encoder"]["layer_0"]
    assert layer["attention"]["query"]["kernel"].dtype == jnp.bfloat16
    assert layer["attention_norm"]["scale"].dtype == jnp.float32
    assert cast["head"]["dense_0"]["kernel"].dtype == jnp.float32
    apply = jax.jit(half.apply, static_argnums=3)
    np.testing.assert_array_equal(
        apply(cast, batch, None, False), apply(params, batch, None, False)
    )
    assert build(write_config()).for_scoring(params) is params
