"""Checks for every architecture that hidden states depend on a text's own tokens alone."""

import json

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_guard.errors import BadInput
from ssl_guard.models import build, deberta, layers, modernbert, mpnet
from ssl_guard.models.architectures import ARCHITECTURES, read_config
from ssl_guard.models.dropout import row_seeds
from ssl_guard.steps import optim

TOLERANCE = 1e-5  # float32; what padding, the batch and neighbours may move a hidden state by

SIZE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24}
DEBERTA = {
    "relative_attention": True,
    "pos_att_type": "c2p|p2c",
    "position_buckets": 4,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": True,
    "embedding_size": 8,
    "conv_kernel_size": 3,
}
OPTIONS = {
    "bert": {},
    "roberta": {"type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 18},
    "distilbert": DISTIL,
    "electra": {"embedding_size": 8},
    "mpnet": {"max_position_embeddings": 18},
    "deberta-v2": DEBERTA,
    "modernbert": {"local_attention": 4, "global_attn_every_n_layers": 2, "mlp_dropout": 0.1},
}
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
TEXTS = [5, 1, 8, 3]  # lengths


def make(folder, kind, **options):
    """An encoder, its random parameters (none of them zero or one), and its classifier."""
    (folder / "config.json").write_text(
        json.dumps({"model_type": kind} | SIZE | OPTIONS[kind] | options)
    )
    config, encoder = read_config(folder)
    ids = jnp.full((1, 8), 5)
    shapes = jax.eval_shape(encoder(config).init, jax.random.key(0), ids, ids, ids)["params"]
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
    return encoder(config), params


@pytest.fixture(scope="module", params=OPTIONS)
def model(request, tmp_path_factory):
    """One architecture: name, encoder, parameters, jitted apply."""
    encoder, params = make(tmp_path_factory.mktemp("model"), request.param)
    apply = jax.jit(
        lambda params, *inputs, **given: encoder.apply({"params": params}, *inputs, **given)
    )
    return request.param, encoder, params, apply


@pytest.fixture(scope="module")
def alone():
    """Four texts as rows of 16 places: input_ids, attention_mask, token_type_ids."""
    rng = np.random.default_rng(0)
    place = np.arange(16)[None]
    mask = (place < np.array(TEXTS)[:, None]).astype(np.int32)
    ids = np.where(mask > 0, rng.integers(3, 40, mask.shape), 1).astype(np.int32)
    return ids, mask, ((place >= 2) & (mask > 0)).astype(np.int32)


@pytest.fixture(scope="module")
def states(model, alone):
    """The texts' hidden states, one array [tokens, width] for each."""
    hidden = np.asarray(model[3](model[2], *alone))
    assert np.isfinite(hidden).all() and np.ptp(hidden) > 1
    return [hidden[row, :length] for row, length in enumerate(TEXTS)]


def assert_same(hidden, expected):
    np.testing.assert_allclose(np.asarray(hidden), expected, rtol=0, atol=TOLERANCE)


def test_padding_and_what_stands_under_it_move_nothing(model, alone, states):
    _, _, params, apply = model
    ids, mask, types = (x[:, :8] for x in alone)
    hidden = apply(params, ids, mask, types)
    other = apply(params, np.where(mask > 0, ids, 7), mask, np.where(mask > 0, types, 1))
    for row, expected in enumerate(states):
        assert_same(hidden[row, : len(expected)], expected)
        assert_same(other[row, : len(expected)], expected)


def test_batch_size_and_position_move_nothing(model, alone, states):
    _, _, params, apply = model
    order = np.array([3, 0, 2, 1])
    hidden = apply(params, *(x[order] for x in alone))
    for place, row in enumerate(order):
        assert_same(hidden[place, : TEXTS[row]], states[row])
    assert_same(apply(params, *(x[2:3] for x in alone))[0, :8], states[2])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 3, 1, 0), (1,)])
def test_packing_moves_nothing(model, alone, states, order):
    """Texts that share a row have the states that each has alone, wherever it stands."""
    _, _, params, apply = model
    row = [np.concatenate([x[t, : TEXTS[t]] for t in order]) for x in alone]
    segments = np.concatenate([np.full(TEXTS[t], n) for n, t in enumerate(order, 1)])
    ids, mask, types, segments = (
        np.pad(x, (0, 20 - len(x)))[None].astype(np.int32) for x in (*row, segments)
    )
    ids = np.where(mask > 0, ids, 7)  # not the padding token, and more of it than places
    packed = np.asarray(apply(params, ids, mask, types, segments=segments))[0]
    assert np.isfinite(packed).all()
    start = 0
    for t in order:
        assert_same(packed[start : start + TEXTS[t]], states[t])
        start += TEXTS[t]


@pytest.mark.parametrize("kind", ["mpnet", "deberta-v2", "modernbert"])
def test_packed_texts_teach_as_they_do_alone(tmp_path, kind, alone):
    """The same gradient of every parameter from one packed row as from separate rows."""
    encoder, params = make(tmp_path, kind)
    chosen = (0, 3)  # five and three tokens
    ids, mask, types = (x[list(chosen), :8] for x in alone)
    packed = [np.concatenate([x[t, : TEXTS[t]] for t in chosen])[None] for x in alone]
    segments = np.array([[1] * 5 + [2] * 3], np.int32)
    target = np.random.default_rng(0).normal(size=(1, 8, 16)).astype(np.float32)

    def separate(params):
        hidden = encoder.apply({"params": params}, ids, mask, types)
        return (hidden[0, :5] * target[0, :5]).sum() + (hidden[1, :3] * target[0, 5:]).sum()

    def together(params):
        return (encoder.apply({"params": params}, *packed, segments=segments) * target).sum()

    one, two = jax.jit(lambda p: (jax.grad(separate)(p), jax.grad(together)(p)))(params)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(one))
    assert largest > 1
    jax.tree.map(lambda a, b: assert_same(a / largest, b / largest), one, two)


def test_words_stand_in_for_the_word_table(model, alone, states):
    _, _, params, apply = model
    table = params["embeddings"]["word"]["embedding"]
    words = table[alone[0]]
    hidden = apply(params, *alone, word_embeddings=words)
    for row, expected in enumerate(states):
        assert_same(hidden[row, : len(expected)], expected)
    noise = np.random.default_rng(1).normal(size=words.shape).astype(np.float32)
    moved = apply(params, *alone, word_embeddings=words + noise)
    assert all(np.abs(moved[r, :n] - states[r]).max() > 1e-3 for r, n in enumerate(TEXTS))


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "modernbert"])  # every kind of layer
def test_remat_gives_the_same_numbers(tmp_path, kind, alone):
    encoder, params = make(tmp_path, kind, num_hidden_layers=1)
    ids, mask, types = (x[:, :8] for x in alone)
    dropout_seeds = row_seeds(jax.random.key(0), jnp.arange(4))

    def value(remat):
        other = encoder.clone(remat=remat)

        def loss(params):
            hidden = other.apply({"params": params}, ids, mask, types, dropout_seeds)
            return (hidden * hidden[::-1] * mask[:, :, None]).sum()

        return jax.value_and_grad(loss)

    plain, again = jax.jit(lambda p: (value(False)(p), value(True)(p)))(params)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain[1]))
    np.testing.assert_allclose(again[0], plain[0], rtol=1e-5)
    jax.tree.map(lambda a, b: assert_same(a / largest, b / largest), plain[1], again[1])
    assert "remat" in str(jax.make_jaxpr(value(True))(params))
    assert "remat" not in str(jax.make_jaxpr(value(False))(params))


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "modernbert"])  # every kind of layer
def test_dropout_is_a_rows_own(tmp_path, kind, alone):
    """It follows the row's place in the global batch, not the batch; and is not there without."""
    encoder, params = make(tmp_path, kind)

    @jax.jit
    def apply(params, *inputs):
        return encoder.apply({"params": params}, *inputs)

    dropout_seeds = row_seeds(jax.random.key(0), jnp.arange(4))
    hidden = apply(params, *alone, dropout_seeds)
    assert np.abs(hidden - apply(params, *alone)).max() > 0.1
    assert_same(apply(params, *(x[2:3] for x in alone), dropout_seeds[2:3])[0, :8], hidden[2, :8])


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "modernbert"])  # every kind of layer
def test_mixing_rows(tmp_path, kind, alone):
    """Above a layer, rows are mixed as after that many layers of the encoder alone."""
    encoder, params = make(tmp_path, kind)
    ids, mask, types = (x[:, :8] for x in alone)
    union = np.maximum(mask, mask[::-1])

    def mix(x):
        return 0.75 * x + 0.25 * x[::-1]

    @jax.jit
    def run(layer):
        options = {"mixup_fn": mix, "mixup_layer": layer, "mixed_mask": union}
        return encoder.apply(
            {"params": params},
            ids,
            mask,
            types,
            **options,
            capture_intermediates=lambda module, _: module.name == "layer_1",
        )

    hidden, captured = run(2)
    last = captured["intermediates"]["layer_1"]["__call__"][0]
    expected = mix(last * mask[:, :, None])
    if kind == "modernbert":
        expected = layers.layer_norm(1e-5, None, False).apply(
            {"params": params["final_norm"]}, expected
        )
    assert_same(hidden, expected)
    assert np.abs(run(1)[0] - hidden).max() > 1e-3
    with pytest.raises(BadInput, match="cannot be mixed"):
        encoder.apply({"params": params}, ids, mask, types, segments=mask, mixup_fn=mix)


def test_names_follow_the_layers(model):
    """So that config.optim.freeze and layer_decay know the depth of every parameter."""
    name, _, params, _ = model
    names = optim.path_names({"encoder": params})
    factors = jax.tree.leaves(optim.layer_factors({"encoder": params}, 0.5, 2))
    for path, factor in zip(names, factors, strict=True):
        depth = {"embeddings": 0, "layer_0": 1, "layer_1": 2, "final_norm": 3}
        depth |= {"embeddings_projection": 0, "embeddings_relative": 3}
        assert factor == 0.5 ** (3 - depth[path.split("/")[1]]), path
    assert params["embeddings"]["word"]["embedding"].shape[0] == 40


@pytest.mark.parametrize("kind", OPTIONS)
def test_build_and_train(tmp_path, kind, alone):
    """models.build: logits in bfloat16 with dropout and remat, every parameter with a gradient."""
    make(tmp_path, kind, num_hidden_layers=1, n_layers=1)
    batch = dict(zip(INPUTS, (x[:, :8] for x in alone), strict=True))
    batch["row"] = np.arange(4, dtype=np.int32)
    batch["attention_mask"] = batch["attention_mask"] * np.array([[1], [1], [1], [0]], np.int32)
    classifier = build(tmp_path, dropout=0.2, dtype="bfloat16", remat=True)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0), batch)
    rng = np.random.default_rng(2)
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)

    def loss(params):
        logits = classifier.apply(params, batch, jax.random.key(1), True)
        return (logits[:, 0, 0] * np.arange(1, 5, dtype=np.float32)).sum(), logits

    gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert logits.shape == (4, 1, 2) and logits.dtype == "float32"
    for path, leaf in jax.tree.leaves_with_path(gradient):
        where = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), where
        if "['key']['bias']" not in where:  # shifts all scores of a query alike: no effect
            assert np.abs(leaf).max() > 0, where


@pytest.mark.parametrize("kind", OPTIONS)
def test_too_long_a_batch_is_bad_input(tmp_path, kind):
    if kind == "deberta-v2":
        encoder, params = make(tmp_path, kind, position_biased_input=False)
        ids = jnp.full((1, 20), 5)
        del params["embeddings"]["word"]  # not needed with words
        words = jnp.zeros((1, 20, 8))
        shape = jax.eval_shape(
            lambda: encoder.apply({"params": params}, ids, ids, ids, word_embeddings=words)
        )
        assert shape.shape == (1, 20, 16)  # distances have no end
    encoder, params = make(tmp_path, kind)
    ids = jnp.full((1, 17), 5)
    with pytest.raises(BadInput, match="17 tokens long .* only 16 positions"):
        jax.eval_shape(lambda: encoder.apply({"params": params}, ids, ids, ids))


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("roberta", {"position_embedding_type": "relative_key"}, "position_embedding_type="),
        ("electra", {"hidden_act": "mish"}, "hidden_act='mish' is not supported"),
        ("distilbert", {"activation": "mish"}, "activation='mish' is not supported"),
        ("distilbert", {"dim": 18}, "dim must be a multiple of n_heads"),
        ("mpnet", {"relative_attention_num_buckets": 16}, "=16 must be .* at least 32"),
        ("deberta-v2", {"pos_att_type": "c2p|p2p"}, "pos_att_type='p2p' is not supported"),
        ("deberta-v2", {"norm_rel_ebd": "batch"}, "norm_rel_ebd='batch' is not supported"),
        ("deberta-v2", {"conv_kernel_size": 4}, "conv_kernel_size=4 must be odd"),
        ("deberta-v2", {"attention_head_size": 8}, "attention_head_size=8 is not supported"),
        ("deberta-v2", {"conv_groups": 5}, "multiple of conv_groups"),
        ("deberta-v2", {"conv_act": "mish"}, "conv_act='mish'"),
        ("deberta-v2", {"pos_att_type": 3}, "value of the wrong kind"),
        ("modernbert", {"layer_types": ["full_attention"]}, "kind of every layer"),
        ("modernbert", {"layer_types": ["full_attention", "x"]}, "layer_types='x'"),
        ("modernbert", {"global_attn_every_n_layers": 0}, "global_attn_every_n_layers=0"),
        ("modernbert", {"rope_scaling": {"rope_type": "yarn"}}, "rope_type='default'"),
        ("modernbert", {"rope_parameters": [1]}, "value of the wrong kind"),
        ("modernbert", {"num_attention_heads": 16}, "must be even"),
        ("modernbert", {"global_rope_theta": "1e4"}, "global_rope_theta='1e4' must be a number"),
    ],
)
def test_unsupported_option_is_bad_input(tmp_path, kind, changes, message):
    with pytest.raises(BadInput, match=message):
        make(tmp_path, kind, **changes)


def test_an_unknown_architecture_names_the_known_ones(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    with pytest.raises(BadInput, match="'albert'; known are bert, roberta, .*deberta-v2"):
        read_config(tmp_path)
    assert set(OPTIONS) | {"xlm-roberta", "camembert"} == set(ARCHITECTURES)


def test_attention_on_an_accelerator_is_the_same(monkeypatch):
    """Forced on the CPU: jax.nn.dot_product_attention with every kind of bias and an empty row."""
    rng = np.random.default_rng(0)
    query, key, value = rng.normal(size=(3, 2, 5, 4, 8)).astype(np.float32)
    mask = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    segments = np.array([[1, 1, 2, 0, 0], [0, 0, 0, 0, 0]])
    dropout_seeds = row_seeds(jax.random.key(0), jnp.arange(2))
    distances = rng.normal(size=(2, 4, 5, 5)).astype(np.float32)
    for bias in (
        layers.attention_bias(mask),
        layers.attention_bias(mask, segments),
        layers.attention_bias(mask, segments) + distances,
    ):
        expected = layers.dot_product_attention(query, key, value, bias, 0.1, None, 3, scale=0.2)
        dropped = layers.dot_product_attention(
            query, key, value, bias, 0.1, dropout_seeds, 3, scale=0.2
        )
        with monkeypatch.context() as patch:
            patch.setattr(layers, "on_accelerator", lambda: True)
            fused = layers.dot_product_attention(query, key, value, bias, 0.1, None, 3, scale=0.2)
            assert_same(fused, expected)
            # Active dropout cannot be fused: the same masks on every device.
            again = layers.dot_product_attention(
                query, key, value, bias, 0.1, dropout_seeds, 3, scale=0.2
            )
            np.testing.assert_array_equal(again, dropped)
    weights = np.einsum("bqhd,bkhd->bhqk", query, key) * 0.2 + distances
    weights[0, :, 0, 2:] = -1e9
    weights = np.exp(weights[0, :, 0] - weights[0, :, 0].max(-1, keepdims=True))
    by_hand = np.einsum("hk,khd->hd", weights / weights.sum(-1, keepdims=True), value[0])
    assert_same(expected[0, 0], by_hand.reshape(-1))


def test_positions_restart_in_every_segment():
    segments = jnp.array([[1, 1, 1, 2, 3, 3, 0, 0], [1, 2, 2, 2, 2, 2, 2, 2]])
    mask = (segments > 0).astype(jnp.int32)
    expected = [[0, 1, 2, 0, 0, 1, 0, 0], [0, 0, 1, 2, 3, 4, 5, 6]]
    np.testing.assert_array_equal(layers.positions(mask, segments), expected)
    counted = jnp.array([[1, 0, 1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 1, 1, 1, 1]])
    expected = [[0, 1, 1, 0, 0, 1, 0, 0], [0, 0, 1, 2, 2, 3, 4, 5]]
    np.testing.assert_array_equal(layers.positions(counted, segments), expected)


few = hypothesis.settings(max_examples=10, deadline=None, derandomize=True)


@few
@hypothesis.given(length=st.integers(1, 9), seed=st.integers(0, 99))
def test_shift_is_a_gather(length, seed):
    scores = np.random.default_rng(seed).normal(size=(2, 3, length, 2 * length - 1))
    scores = scores.astype(np.float32)
    index = length - 1 - np.arange(length)[:, None] + np.arange(length)[None]
    expected = np.take_along_axis(scores, np.broadcast_to(index, (2, 3, length, length)), -1)
    np.testing.assert_array_equal(layers.shift(jnp.asarray(scores)), expected)


def naive_bucket(distance, buckets, longest):
    """DeBERTa's log buckets, one distance at a time."""
    mid = buckets // 2
    if abs(distance) <= mid:
        return distance
    steps = np.log(np.float32(abs(distance)) / np.float32(mid))
    steps = steps / np.log(np.float32((longest - 1) / mid)) * np.float32(mid - 1)
    return int(np.sign(distance) * (mid + np.ceil(steps)))


@few
@hypothesis.given(
    kinds=st.sampled_from([(), ("c2p",), ("p2c",), ("p2c", "c2p")]),
    share=st.booleans(),
    buckets=st.sampled_from([-1, 4, 6]),
    longest=st.integers(4, 12),
    length=st.integers(1, 8),
    attn=st.sampled_from([1, 2]),
    seed=st.integers(0, 99),
)
def test_disentangled_attention_is_the_naive_one(
    kinds, share, buckets, longest, length, attn, seed
):
    """Score by score in NumPy, float64, from the definition: rows of the table by distance."""
    config = deberta.DebertaConfig(
        hidden_size=4,
        num_attention_heads=attn,
        relative_attention=True,
        pos_att_type=kinds,
        share_att_key=share,
        position_buckets=buckets,
        max_relative_positions=longest,
    )
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1, length, 4)).astype(np.float32)
    table = rng.normal(size=(2 * config.span, 4)).astype(np.float32)
    distances = length - 1 - np.arange(2 * length - 1)
    relative = table[deberta.rows_of_distances(config, distances)]
    module = deberta.DisentangledAttention(config, "float32", 0)
    bias = jnp.zeros((1, 1, 1, length))
    shapes = jax.eval_shape(module.init, jax.random.key(0), x, bias, None, relative)["params"]
    params = jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), shapes)
    found = module.apply({"params": params}, x, bias, None, relative)

    def project(x, name):
        return x.astype(float) @ params[name]["kernel"] + params[name]["bias"]

    query, key, value = (project(x[0], name) for name in ("query", "key", "value"))
    table_key, table_query = (
        project(table, side if share else f"position_{side}")
        if share or kind in kinds
        else np.zeros_like(table)
        for side, kind in (("key", "c2p"), ("query", "p2c"))
    )
    head = 4 // attn
    mixed = np.zeros((length, 4))
    for part in (slice(h * head, (h + 1) * head) for h in range(attn)):
        for i in range(length):
            scores = np.zeros(length)
            for j in range(length):
                bucket = i - j if buckets < 0 else naive_bucket(i - j, buckets, longest)
                row = int(np.clip(bucket + config.span, 0, 2 * config.span - 1))
                scores[j] = query[i, part] @ key[j, part]
                if "c2p" in kinds:
                    scores[j] += query[i, part] @ table_key[row, part]
                if "p2c" in kinds:
                    scores[j] += key[j, part] @ table_query[row, part]
            scores /= np.sqrt(head * (1 + len(kinds)))
            weights = np.exp(scores - scores.max())
            mixed[i, part] = weights / weights.sum() @ value[:, part]
    np.testing.assert_allclose(found[0], project(mixed, "output"), atol=2e-4)


@few
@hypothesis.given(
    taps=st.sampled_from([1, 3, 5]), groups=st.sampled_from([1, 2, 4]), seed=st.integers(0, 99)
)
def test_the_convolution_stays_inside_a_text(taps, groups, seed):
    config = deberta.DebertaConfig(
        hidden_size=8, num_attention_heads=1, conv_kernel_size=taps, conv_groups=groups
    )
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1, 7, 8)).astype(np.float32)
    segments = np.sort(rng.integers(1, 4, (1, 7)), axis=1)
    params = {
        "kernel": rng.normal(size=(taps, 8 // groups, 8)).astype(np.float32),
        "bias": rng.normal(size=8).astype(np.float32),
    }
    found = deberta.Convolution(config, "float32").apply({"params": params}, x, segments)
    expected = np.tile(params["bias"].astype(float), (7, 1))
    width = 8 // groups
    for i in range(7):
        for tap in range(taps):
            j = i + tap - taps // 2
            if 0 <= j < 7 and segments[0, i] == segments[0, j]:
                for out in range(8):
                    group = out // width * width
                    expected[i, out] += (
                        x[0, j, group : group + width] @ params["kernel"][tap, :, out]
                    )
    assert_same(found[0], expected)


def test_rotation_depends_on_the_distance_only():
    rng = np.random.default_rng(0)
    query, key = rng.normal(size=(2, 1, 1, 1, 8))

    def score(i, j):
        one, two = (
            modernbert.rotate(
                x.astype(np.float32), modernbert.angles(jnp.array([[place]]), 8, 100.0)
            )
            for x, place in ((query, i), (key, j))
        )
        return (one * two).sum()

    np.testing.assert_allclose(score(3, 5), score(20, 22), rtol=1e-4)
    assert abs(score(3, 5) - score(3, 6)) > 1e-3
    # By complex numbers: dimensions i and i + 4 are one number, turned by place * theta ** (-i/4).
    turned = (query[..., :4] + 1j * query[..., 4:]) * np.exp(1j * 3 * 100.0 ** (-np.arange(4) / 4))
    found = modernbert.rotate(
        query.astype(np.float32), modernbert.angles(jnp.array([[3]]), 8, 100.0)
    )
    assert_same(found, np.concatenate([turned.real, turned.imag], -1))


def test_relative_bias_of_mpnet_is_a_table_lookup():
    table = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)
    found = mpnet.RelativeBias(32, 4).apply({"params": {"table": {"embedding": table}}}, 40)
    place = np.arange(40)
    expected = table[mpnet.buckets(place[None] - place[:, None])]
    np.testing.assert_array_equal(found[0], expected.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "model_type, options, tokens",
    [
        ("bert", {}, 40),
        ("roberta", {"pad_token_id": 1}, 38),
        ("mpnet", {}, 38),
        ("deberta-v2", {"position_biased_input": True}, 40),
        ("deberta-v2", {"position_biased_input": False}, None),
    ],
)
def test_the_longest_text_is_what_the_positions_allow(model_type, options, tokens):
    config = ARCHITECTURES[model_type][0].from_json({"max_position_embeddings": 40, **options})
    assert config.max_tokens == tokens


@pytest.mark.parametrize("layers", [1, 2])
def test_states_of_the_lowest_layers_take_their_place(model, alone, states, layers):
    _, encoder, params, _ = model
    apply = jax.jit(
        lambda params, *inputs, states=None, stop=None: encoder.apply(
            {"params": params}, *inputs, states=states, first_layer=layers, stop_layer=stop
        ),
        static_argnames="stop",
    )
    below = apply(params, *alone, stop=layers)
    kept = {f"layer_{number}" for number in range(layers)} | {"embeddings", "embeddings_projection"}
    above = jax.tree.map(np.copy, params)
    for name in kept & params.keys():  # never read again
        above[name] = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), params[name])
    hidden = apply(above, *alone, states=below)
    for row, expected in enumerate(states):
        assert_same(hidden[row, : len(expected)], expected)
