"""A text's logits and gradients are those of a row of its own, with dropout as well."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from ssl_guard import algorithms, steps
from ssl_guard.data import packing
from ssl_guard.errors import BadInput
from ssl_guard.models import build
from ssl_guard.runtime import sharding

TOLERANCE = 1e-5  # float32
LENGTHS = np.array([16, 1, 7, 9, 2, 2, 12, 3])
TARGET = np.arange(48, dtype=np.float32).reshape(8, 2, 3) / 48


def views(groups=1, seed=0):
    """The same eight texts unpacked, each padded to 16, and packed."""
    rng = np.random.default_rng(seed)
    records = [
        {
            "input_ids": rng.integers(1, 40, n).astype(np.int32),
            "second": int(rng.integers(0, n + 1)),
        }
        for n in LENGTHS
    ]
    rows = max(1, 4 // groups)  # of a group
    row, start, need = packing.balanced(LENGTHS.reshape(groups, -1), rows)
    packed = packing.lay_out(
        records,
        (row + rows * np.arange(groups)[:, None]).ravel(),
        start.ravel(),
        rows=rows * groups,
        length=int(need.max()),
        pad_id=0,
        first_row=0,
    )
    place = np.arange(16)
    real = place < LENGTHS[:, None]
    ids = np.zeros((8, 16), np.int32)
    ids[real] = np.concatenate([record["input_ids"] for record in records])
    second = np.array([[record["second"]] for record in records])
    return {
        "input_ids": ids,
        "attention_mask": real.astype(np.int32),
        "token_type_ids": (real & (place >= second)).astype(np.int32),
        "row": np.arange(8, dtype=np.int32),
    }, packed


@pytest.fixture
def model(write_config, random_like, request):
    folder = write_config()
    classifier = build(folder, num_classes=3, num_heads=2, dropout=0.2, pooling=request.param)
    shapes = jax.eval_shape(classifier.init, jax.random.key(0), views()[0])
    return classifier, random_like(shapes, 0.3)


@pytest.mark.parametrize(("model", "train"), [("cls", False), ("mean", True)], indirect=["model"])
def test_logits_and_gradients_are_those_of_unpacked_rows(model, train):
    classifier, params = model
    alone, packed = views()
    assert len(packed["text"]) == 4

    def loss(params, batch):
        logits = classifier.apply(params, batch, jax.random.key(1), train)
        return (logits * TARGET).sum(), logits

    results = [jax.jit(jax.grad(loss, has_aux=True))(params, b) for b in (alone, packed)]
    (gradient, logits), (other_gradient, other) = results
    assert np.ptp(logits) > 0.5
    np.testing.assert_allclose(other, logits, atol=TOLERANCE)
    scale = optax.tree.norm(gradient)
    for name, (a, b) in zip(
        map(jax.tree_util.keystr, (path for path, _ in jax.tree.leaves_with_path(gradient))),
        zip(jax.tree.leaves(gradient), jax.tree.leaves(other_gradient), strict=True),
        strict=True,
    ):
        np.testing.assert_allclose(b, a, atol=TOLERANCE * scale, err_msg=name)


@pytest.mark.parametrize("model", ["mean"], indirect=True)
def test_neighbours_in_the_row_are_never_seen(model):
    classifier, params = model
    _, packed = views()
    apply = jax.jit(classifier.apply, static_argnums=3)
    others = packed | {"input_ids": np.where(packed["text"] == 2, packed["input_ids"], 39)}
    a, b = (apply(params, batch, None, False) for batch in (packed, others))
    np.testing.assert_array_equal(a[2], b[2])
    assert (np.abs(np.asarray(a - b)).max(axis=(1, 2)) > 1e-4).sum() == 7


@pytest.mark.parametrize("model", ["mean"], indirect=True)
def test_a_text_without_tokens_is_finite(model):
    classifier, params = model
    _, packed = views()
    absent = packed | {"row": np.array([0, 1, 2, 3, 4, 5, 6, 8], np.int32)}
    logits = classifier.apply(params, absent, None, False)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("model", ["mean"], indirect=True)
def test_a_train_step_is_the_same_on_one_device_on_eight_and_inside_shard_map(model):
    """FixMatch on packed views: its numbers are those of unpacked ones in every layout."""
    classifier, params = model
    algorithm, tx = algorithms.build("fixmatch", threshold=0.0), optax.sgd(0.1)
    state = steps.init_state(
        jax.random.key(3),
        params,
        algorithm=algorithm,
        tx=tx,
        pool_size=20,
        num_classes=3,
        num_heads=2,
    )
    step = functools.partial(
        steps.train_step, apply=classifier.apply, algorithm=algorithm, tx=tx, total_steps=10
    )

    def batch(packed, groups):
        labelled, weak, strong = (views(groups, seed)[packed] for seed in range(3))
        ones, numbers = np.ones(8, np.float32), np.arange(8, dtype=np.int32)
        return {
            "labelled": labelled | {"label": numbers % 3, "weight": ones, "index": numbers},
            "weak": weak,
            "strong": strong,
            "index": numbers,
            "weight": ones,
            "hidden_label": numbers % 3,
        }

    expected, metrics = jax.jit(step)(state, batch(0, 1))
    mesh = sharding.make_mesh()
    placed = sharding.put_batch(batch(1, 8), mesh)
    eight, eight_metrics = jax.jit(step, out_shardings=sharding.replicated(mesh))(state, placed)
    mapped, _ = jax.jit(
        jax.shard_map(
            functools.partial(step, axis_name="data"),
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec("data")),
            out_specs=(PartitionSpec(), PartitionSpec()),
            check_vma=False,
        )
    )(state, placed)
    for name, (total, weight) in metrics.items():
        np.testing.assert_allclose(eight_metrics[name][0], total, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(eight_metrics[name][1], weight)
    for other in (eight, mapped):
        for a, b in zip(
            jax.tree.leaves(expected.params), jax.tree.leaves(other.params), strict=True
        ):
            np.testing.assert_allclose(b, a, atol=TOLERANCE)
    assert not np.allclose(
        expected.params["head"]["dense_0"]["kernel"], params["head"]["dense_0"]["kernel"]
    )


@pytest.mark.parametrize("model", ["mean"], indirect=True)
def test_methods_that_work_inside_the_model_refuse_packed_rows(model):
    classifier, params = model
    _, packed = views()
    for change in ({"word_embeddings": jnp.zeros((4, 16, 16))}, {"mixup_fn": lambda x: x}):
        with pytest.raises(BadInput, match="set config.data.packing = False"):
            classifier.stages.features(params, packed, None, False, **change)
    tx = optax.sgd(0.1)
    for name in ("vat", "mixtext", "mixmatch"):
        algorithm = algorithms.build(name)
        state = steps.init_state(
            jax.random.key(0),
            params,
            algorithm=algorithm,
            tx=tx,
            pool_size=4,
            num_classes=2,
            num_heads=1,
        )
        with pytest.raises(BadInput, match="texts must have rows of their own"):
            steps.train_step(
                state,
                {"labelled": packed},
                apply=classifier.apply,
                stages=classifier.stages,
                algorithm=algorithm,
                tx=tx,
                total_steps=1,
            )


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 40}
KINDS = {
    "roberta": {"pad_token_id": 0, "intermediate_size": 24},
    "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 4, "hidden_dim": 24},
    "electra": {"embedding_size": 8, "intermediate_size": 24},
    "mpnet": {"pad_token_id": 0, "intermediate_size": 24},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 4,
        "pos_att_type": ["c2p", "p2c"],
        "intermediate_size": 24,
    },
    "modernbert": {"intermediate_size": 24, "local_attention": 4, "num_hidden_layers": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_architecture_packs_with_its_dropout(tmp_path, random_like, kind):
    config = {"model_type": kind, "max_position_embeddings": 40, **SMALL, **KINDS[kind]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    classifier = build(tmp_path, num_classes=3, num_heads=2, dropout=0.2)
    alone, packed = views()
    params = random_like(jax.eval_shape(classifier.init, jax.random.key(0), alone), 0.3)
    logits, other = (
        jax.jit(classifier.apply, static_argnums=3)(params, batch, jax.random.key(1), True)
        for batch in (alone, packed)
    )
    assert np.ptp(logits) > 0.1
    np.testing.assert_allclose(other, logits, atol=TOLERANCE)
