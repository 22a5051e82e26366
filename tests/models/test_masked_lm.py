import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from scipy.special import erf

from ssl_guard.models import build, build_masked_lm, convert
from ssl_guard.models.masked_lm import Head

WIDTH, EMBEDDING, VOCAB = 6, 4, 11


def test_the_head_is_dense_gelu_norm_and_a_product_with_the_words():
    rng = np.random.default_rng(0)
    hidden, words = rng.normal(size=(2, 3, WIDTH)), rng.normal(size=(VOCAB, EMBEDDING))
    w, b, scale, shift, bias = (
        rng.normal(size=shape)
        for shape in ((WIDTH, EMBEDDING), EMBEDDING, EMBEDDING, EMBEDDING, VOCAB)
    )
    params = {
        "dense": {"kernel": w, "bias": b},
        "norm": {"scale": scale, "bias": shift},
        "bias": bias,
    }
    single = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (params, hidden, words))
    head = Head(1e-12, VOCAB, "float32")
    found = head.apply({"params": single[0]}, *single[1:])
    x = hidden @ w + b
    x = x * 0.5 * (1 + erf(x / np.sqrt(2)))
    x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) * scale + shift
    np.testing.assert_allclose(found, x @ words.T + bias, rtol=1e-4, atol=1e-4)


def test_places_of_an_encoder_and_its_own_words(minilm):
    """Logits at the places asked for, and a table that both ends learn."""
    model = build_masked_lm(minilm, num_layers=1, dropout=0.1, dtype="float32")
    ids = np.array([[101, 2023, 2003, 102], [101, 1037, 102, 0]], np.int32)
    batch = {
        "input_ids": ids,
        "attention_mask": (ids > 0).astype(np.int32),
        "token_type_ids": 0 * ids,
        "row": np.arange(2, dtype=np.int32),
    }
    params = model.init(jax.random.key(0), batch)
    everywhere = np.tile(np.arange(4, dtype=np.int32), (2, 1))
    apply = jax.jit(model.apply, static_argnums=4)
    whole = apply(params, batch, everywhere, None, False)
    some = apply(params, batch, np.array([[2, 1], [1, 0]], np.int32), None, False)
    assert whole.shape == (2, 4, model.config.vocab_size)
    np.testing.assert_allclose(some[0], whole[0, jnp.array([2, 1])], atol=1e-5)
    np.testing.assert_allclose(some[1], whole[1, jnp.array([1, 0])], atol=1e-5)
    assert set(params["head"]) == {"dense", "norm", "bias"}, "no second table of words"


STORED = {
    "cls.predictions.transform.dense.weight": (16, 16),
    "cls.predictions.transform.dense.bias": (16,),
    "cls.predictions.transform.LayerNorm.weight": (16,),
    "cls.predictions.transform.LayerNorm.bias": (16,),
    "cls.predictions.bias": (40,),
}


@pytest.mark.parametrize(
    "left_out, changes, loaded",
    [
        ((), {}, True),
        (("cls.predictions.bias",), {}, True),  # a bias that is left out is 0
        (("cls.predictions.transform.LayerNorm.weight",), {}, False),
        (tuple(STORED), {}, False),
        ((), {"tie_word_embeddings": False}, False),  # its table of words is another one
    ],
)
def test_a_stored_head_is_read(write_config, batch, random_like, left_out, changes, loaded):
    folder = write_config(**changes)
    (folder / "vocab.txt").touch()
    classifier = build(folder)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0), batch)["encoder"]
    rng = np.random.default_rng(3)
    head = {
        name: rng.normal(size=shape).astype(np.float32)
        for name, shape in STORED.items()
        if name not in left_out
    }
    encoder = convert.to_hf(random_like(shapes), classifier.config.hf_names)
    stored = {f"bert.{name}": tensor for name, tensor in encoder.items()} | head
    safetensors.numpy.save_file(stored, folder / "model.safetensors")
    model = build_masked_lm(folder, num_layers=0, dropout=0.0, dtype="float32")
    found = model.init(jax.random.key(0), batch)["head"]
    kernel = head.get("cls.predictions.transform.dense.weight")
    if not loaded:
        assert kernel is None or not np.allclose(found["dense"]["kernel"], kernel.T)
        return
    np.testing.assert_array_equal(found["dense"]["kernel"], kernel.T)
    norm = head["cls.predictions.transform.LayerNorm.weight"]
    np.testing.assert_array_equal(found["norm"]["scale"], norm)
    np.testing.assert_array_equal(found["bias"], head.get("cls.predictions.bias", np.zeros(40)))
