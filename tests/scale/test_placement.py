"""Tests the placement of arrays on a mesh by names and shapes, without computing."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from experiments.speed import placement
from ssl_guard import algorithms, models, steps
from ssl_guard import config as config_module
from ssl_guard.errors import BadInput
from ssl_guard.models.architectures import ARCHITECTURES
from ssl_guard.runtime import sharding
from ssl_guard.steps import optim

SIZE = {
    "vocab_size": 51,  # odd, as they are
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
OPTIONS = {
    "distilbert": {"dim": 32, "n_layers": 1, "n_heads": 4, "hidden_dim": 48},
    "electra": {"embedding_size": 16},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "share_att_key": False,
        "conv_kernel_size": 3,
        "embedding_size": 16,
    },
    "modernbert": {"attention_bias": True, "mlp_bias": True, "local_attention": 8},
}
WHOLE = "output_0/kernel"  # of the classifier: a column for every class


def mesh_of(data, fsdp, tensor):
    devices = jax.devices()[: data * fsdp * tensor]
    return sharding.make_mesh(devices, data=data, fsdp=fsdp, tensor=tensor)


def by_name(placed):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(placed)
    }


@pytest.fixture(params=ARCHITECTURES)
def shapes(request, tmp_path):
    """The shapes of a classifier's parameters."""
    values = {"model_type": request.param} | SIZE | OPTIONS.get(request.param, {})
    (tmp_path / "config.json").write_text(json.dumps(values))
    model = models.build(tmp_path)
    ids = jnp.zeros((1, 1), jnp.int32)
    one = {"input_ids": ids, "attention_mask": ids, "token_type_ids": ids, "row": ids[0]}
    return jax.eval_shape(model.init, jax.random.key(0), one)


def test_every_large_parameter_is_split(shapes):
    """By fsdp all matrices and tables; by tensor those of attention and feed-forward."""
    fsdp, tensor = (
        by_name(sharding.shard_template(shapes, mesh_of(*axes))) for axes in ((1, 2, 1), (1, 1, 2))
    )
    for name, leaf in by_name(shapes).items():
        split = leaf.ndim > 1 and not name.endswith(WHOLE)
        halves = 2 if split else 1
        size = math.prod(fsdp[name].sharding.shard_shape(leaf.shape))
        assert size * halves == leaf.size, name
        inside = "/attention/" in name or "/feed_forward/" in name
        halves = 2 if split and inside else 1
        if leaf.ndim > 1:
            size = math.prod(tensor[name].sharding.shard_shape(leaf.shape))
            assert size * halves == leaf.size, name


def test_columns_then_rows():
    """A pair of products needs one sum over the tensor axis: the first is split by what comes out,
    with its bias, and the second by what goes in."""
    kernel = jax.ShapeDtypeStruct((8, 8), "float32")
    layer = {
        "attention": {name: {"kernel": kernel} for name in ("query", "output")},
        "feed_forward": {
            "up": {"kernel": kernel, "bias": jax.ShapeDtypeStruct((8,), "float32")},
            "down": {"kernel": kernel, "bias": jax.ShapeDtypeStruct((8,), "float32")},
        },
    }
    specs = {
        name: leaf.sharding.spec
        for name, leaf in by_name(sharding.shard_template(layer, mesh_of(1, 2, 2))).items()
    }
    assert specs == {
        "attention/query/kernel": P("fsdp", "tensor"),
        "attention/output/kernel": P("tensor", "fsdp"),
        "feed_forward/up/kernel": P("fsdp", "tensor"),
        "feed_forward/up/bias": P("tensor"),
        "feed_forward/down/kernel": P("tensor", "fsdp"),
        "feed_forward/down/bias": P(),
    }


def test_what_does_not_divide_is_whole():
    odd = {"attention": {"query": {"kernel": jax.ShapeDtypeStruct((6, 7), "float32")}}}
    (leaf,) = jax.tree.leaves(sharding.shard_template(odd, mesh_of(1, 2, 2)))
    assert leaf.sharding.spec == P("fsdp", None)


def state_of(algorithm, pool, heads=2, **sizes):
    """The state of a run of one matrix."""
    params = {"feed_forward": {"up": {"kernel": jnp.ones((8, 8))}}}
    tx = optim.adamw(
        params,
        schedule=lambda step: 0.1,
        weight_decay=0.1,
        layer_decay=0.5,
        num_layers=1,
        clip_norm=1.0,
        freeze=(),
    )
    return steps.init_state(
        jax.random.key(0),
        params,
        algorithm=algorithm,
        tx=tx,
        pool_size=pool,
        num_classes=3,
        num_heads=heads,
        ema_decay=0.9,
        **sizes,
    )


def test_moments_and_average_lie_with_their_parameters():
    state = state_of(algorithms.build("fixmatch"), 10)
    placed = by_name(sharding.shard_template(jax.eval_shape(lambda: state), mesh_of(1, 2, 2)))
    matrices = {name: leaf.sharding.spec for name, leaf in placed.items() if leaf.ndim == 2}
    assert set(matrices.values()) == {P("fsdp", "tensor")}
    assert len(matrices) == 4  # the parameter, its average, Adam's two moments
    whole = [leaf for name, leaf in placed.items() if name not in matrices]
    assert whole and all(leaf.sharding.is_fully_replicated for leaf in whole)


KINDS = {"marginmatch": [{"threshold": t} for t in ("fixed", "agreement", "virtual")]}


@pytest.mark.parametrize(
    "name, arguments",
    [(name, kind) for name in algorithms.ALGORITHMS for kind in KINDS.get(name, [{}])],
)
def test_the_pool_is_what_grows_with_it(name, arguments):
    """Exactly the arrays whose shape depends on the pool's size are split, if asked for."""
    algorithm = algorithms.build(name, **arguments)
    small, large = (
        by_name(
            jax.eval_shape(
                lambda pool=pool: state_of(algorithm, pool, labelled_size=9, width=5).algo_state
            )
        )
        for pool in (10, 20)
    )
    grown = {f"algo_state/{key}" for key in large if small[key].shape != large[key].shape}
    shapes = jax.eval_shape(
        lambda: sharding.pad_pool(state_of(algorithm, 10, labelled_size=9, width=5))
    )
    placed = by_name(sharding.shard_template(shapes, mesh_of(2, 2, 2), shard_pool=True))
    split = {key for key in placed if placed[key].sharding.spec == P(("data", "fsdp"))}
    assert split == grown
    assert all(len(placed[key]) == sharding.POOL_MULTIPLE for key in grown if placed[key].ndim)
    placed = by_name(sharding.shard_template(shapes, mesh_of(2, 2, 2)))
    assert all(placed[key].sharding.is_fully_replicated for key in grown)


def test_padding_repeats_the_last_row():
    state = {"algo_state": {"label": jnp.array([[1, 2], [-1, -1]]), "count": jnp.arange(2)}}
    padded = sharding.pad_pool(state)["algo_state"]
    assert padded["label"].shape == (1024, 2) and (padded["label"][1:] == -1).all()
    assert padded["count"].shape == (2,)
    again = sharding.pad_pool({"algo_state": padded})["algo_state"]
    assert again["label"].shape == (1024, 2)


def test_bytes_per_device():
    state = {
        "algo_state": {"margins": jax.ShapeDtypeStruct((4096, 3, 2), "float32")},
        "params": {"feed_forward": {"up": {"kernel": jax.ShapeDtypeStruct((8, 16), "float32")}}},
        "step": jax.ShapeDtypeStruct((), "int32"),
    }
    mesh = mesh_of(2, 2, 2)
    placed = sharding.shard_template(state, mesh, shard_pool=True)
    assert placement.bytes_per_device(placed) == 1024 * 6 * 4 + 4 * 8 * 4 + 4
    placed = sharding.shard_template(state, mesh)
    assert placement.bytes_per_device(placed) == 4096 * 6 * 4 + 4 * 8 * 4 + 4


def test_a_row_of_the_batch_is_where_the_pipeline_says():
    """Devices in the order of their rows, whatever the order they are named in."""
    mesh = sharding.make_mesh(jax.devices()[::-1], fsdp=2, tensor=2)
    assert mesh.shape == {"data": 2, "fsdp": 2, "tensor": 2}
    rows = np.arange(16)
    batch = sharding.put_batch({"row": rows}, mesh)["row"]
    for shard in batch.addressable_shards:
        start = shard.device.id // 2 * 4
        np.testing.assert_array_equal(shard.data, rows[start : start + 4])
    again = sharding.put_global_batch({"row": rows}, mesh)["row"]
    assert again.sharding == batch.sharding
    np.testing.assert_array_equal(again, rows)


@pytest.mark.parametrize(
    "axes, reason",
    [
        ({"data": 3}, "data 3, fsdp 1, tensor 1. does not fill 8 devices"),
        ({"fsdp": 3}, "does not fill 8 devices"),
        ({"data": 4}, "does not fill 8 devices"),
        ({"fsdp": 16}, "does not fill 8 devices"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices(axes, reason):
    with pytest.raises(BadInput, match=reason):
        sharding.make_mesh(**axes)


@pytest.mark.parametrize(
    "tensor, slices", [(1, [0, 1, 2, 3]), (2, [0, 1, 2, 3]), (4, [0, 0, 1, 1]), (8, [0, 0, 0, 0])]
)
def test_processes_that_a_tensor_axis_joins_read_the_same_rows(tensor, slices, monkeypatch):
    """Four processes of two devices each."""
    mesh = sharding.make_mesh(tensor=tensor)
    monkeypatch.setattr(jax, "local_device_count", lambda: 2)
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    for number, place in enumerate(slices):
        monkeypatch.setattr(jax, "process_index", lambda number=number: number)
        count = {"process_index": place, "process_count": max(slices) + 1}
        assert sharding.own_slice(mesh) == count


def test_counts_of_one_process_are_the_batchs():
    assert sharding.total(sharding.make_mesh(), 3, 2.5) == [3, 2.5]


@pytest.mark.parametrize("axes", [{"fsdp": -1}, {"tensor": 0}, {"data": -2}])
def test_a_mesh_that_no_run_can_have(axes):
    config = config_module.default()
    with config.unlocked():
        config.mesh.update(axes)
    with pytest.raises(BadInput, match="config.mesh .* at least 1, or one -1"):
        config_module.check(config)


def test_batches_that_the_mesh_does_not_divide():
    mesh = mesh_of(2, 2, 2)
    sharding.check_batch_sizes(mesh, size=4)
    with pytest.raises(BadInput, match="config.size = 6 does not divide over 4 devices: make"):
        sharding.check_batch_sizes(mesh, size=6)
    with pytest.raises(BadInput, match="config.size = 4 does not divide over 4 devices in 2 parts"):
        sharding.check_batch_sizes(mesh, parts=2, size=4)


def test_another_mesh_is_no_other_config(tmp_path):
    config = config_module.default()
    (tmp_path / "config.json").write_text(json.dumps(config_module.as_json(config)))
    config.mesh.fsdp, config.mesh.shard_pool = 4, True
    config_module.refuse_other(tmp_path, config)
    config.train.grad_accum_steps = 2
    with pytest.raises(BadInput, match="train.grad_accum_steps"):
        config_module.refuse_other(tmp_path, config)


@pytest.mark.parametrize("name, packed", [("vat", False), ("fixmatch", True)])
def test_what_cannot_be_accumulated(name, packed):
    batch, algorithm = {"labelled": {"text": None} if packed else {}}, algorithms.build(name)
    with pytest.raises(BadInput, match="config.train.grad_accum_steps = 1"):
        steps.train_step(
            state_of(algorithm, 10),
            batch,
            apply=lambda *_: None,
            stages=True,
            algorithm=algorithm,
            tx=optax.sgd(0.1),
            total_steps=1,
            accumulate=2,
        )


def test_bytes_of_collectives():
    program = """
  %a = f32[8,16]{1,0} all-reduce(%x), channel_id=1
  ROOT %b = (f32[4]{0}, bf16[2,2]{1,0}) all-reduce(%y, %z), replica_groups={}
  %c = s32[] all-gather-start(%w), dimensions={0}
  %d = pred[3]{0} collective-permute(%v)
  %e = f32[9]{0} add(%a, %all-reduce.1)
"""
    assert placement.collectives(program) == {
        "all-reduce": [8 * 16 * 4, 4 * 4 + 4 * 2],
        "all-gather": [4],
        "collective-permute": [3],
    }
