import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from ssl_guard.errors import BadInput
from ssl_guard.models.bert import BertConfig, BertEncoder

CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=24,
    max_position_embeddings=8,
)


@pytest.fixture
def encode(batch, random_like):
    """encode(dtype) -> (params, hidden states of the batch)."""
    inputs = batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]

    def run(dtype):
        encoder = BertEncoder(CONFIG, dtype)
        shapes = jax.eval_shape(encoder.init, jax.random.key(0), *inputs)
        variables = random_like(shapes, scale=0.3)
        return variables["params"], jax.jit(encoder.apply)(variables, *inputs)

    return run


def numpy_bert(params, batch):
    """The equations of BERT in float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-12) * p["scale"] + p["bias"]

    tables = params["embeddings"]
    ids = batch["input_ids"]
    x = tables["word"]["embedding"][ids] + tables["position"]["embedding"][: ids.shape[1]]
    x = norm(x + tables["token_type"]["embedding"][batch["token_type_ids"]], tables["norm"])
    for number in range(CONFIG.num_hidden_layers):
        layer = params[f"layer_{number}"]
        attention = layer["attention"]
        query, key, value = (dense(x, attention[n]) for n in ("query", "key", "value"))
        mixed = np.zeros_like(x)
        for row in range(len(x)):
            for head in range(4):
                part = np.s_[row, :, 4 * head : 4 * head + 4]
                scores = query[part] @ key[part].T / 2
                scores[:, batch["attention_mask"][row] == 0] = -1e9  # all alike in an empty row
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                mixed[part] = weights / weights.sum(-1, keepdims=True) @ value[part]
        x = norm(x + dense(mixed, attention["output"]), layer["attention_norm"])
        hidden = dense(x, layer["feed_forward"]["up"])
        hidden = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
        x = norm(x + dense(hidden, layer["feed_forward"]["down"]), layer["feed_forward_norm"])
    return x


def test_hidden_states_follow_the_equations(batch, encode):
    params, hidden = encode("float32")
    np.testing.assert_allclose(hidden, numpy_bert(params, batch), atol=2e-5)


def test_bfloat16_stays_close_to_float32(batch, encode):
    params, hidden = encode("bfloat16")
    assert hidden.dtype == "bfloat16"
    error = np.abs(np.asarray(hidden, np.float32) - numpy_bert(params, batch))
    assert error.max() < 0.15 and error.mean() < 0.02  # hidden states have a scale of 1


def test_batch_longer_than_the_positions_is_bad_input():
    ids = jnp.ones((1, 9), jnp.int32)
    with pytest.raises(BadInput, match="9 tokens long .* only 8 positions"):
        BertEncoder(CONFIG).init(jax.random.key(0), ids, ids, ids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "mish"}, "hidden_act='mish' is not supported; supported are 'gelu', "),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"num_attention_heads": 5}, "multiple of num_attention_heads"),
        ({"vocab_size": True}, "vocab_size=True must be a whole number"),
        ({"layer_norm_eps": "1e-5"}, "layer_norm_eps='1e-5' must be a number of at least 0"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps=nan must be a number"),
        ({"hidden_dropout_prob": -0.1}, "hidden_dropout_prob=-0.1 must be a number"),
        ({"hidden_size": 0}, "hidden_size=0 must be a whole number"),
    ],
)
def test_unsupported_config_is_bad_input(changes, message):
    with pytest.raises(BadInput, match=message):
        BertConfig(**changes)
