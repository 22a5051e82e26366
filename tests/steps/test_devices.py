"""The train step on meshes: any split of rows, parameters and pool gives the same numbers.

The full product of methods and meshes is `make scale`.
"""

import functools
import math
import os
import re
from pathlib import Path

import jax
import pytest

from ssl_guard import models
from ssl_guard.runtime import sharding
from tests.toy import METHODS, POOL, STAGES, apply, assert_same, batches, drive, make

SCALE = "SCALE" in os.environ
UNJITTED = ("fixmatch", "multimatch", "mixtext")  # logits alone, pool state, inside the model
ACCUMULATED = ("uda", "multimatch", "multihead_cotraining")
# Methods that call `across`: their shards have to communicate.
COMMUNICATING = (
    "mixmatch",
    "remixmatch",
    "simmatch",
    "setfit",
    "tmix",
    "mixtext",
    "flexmatch",
    "freematch",
    "softmatch",
    "adamatch",
    "dash",
    "marginmatch agreement",
    "marginmatch virtual",
    "multimatch",
)


def test_methods_that_communicate_are_listed():
    """Those whose source uses `across` beyond the signatures that all methods share."""
    found = set()
    for name in METHODS:
        path = Path(f"ssl_guard/algorithms/{name.split()[0]}.py")
        used = re.sub(r"def \w+\([^)]*\)", "", path.read_text())
        if re.search(r"\bacross\b", used):
            found.add(name)
    assert found == set(COMMUNICATING)


@pytest.fixture(scope="module", params=METHODS)
def reference(request):
    """The step, a fresh state and what three steps give on one device: jitted, and un-jitted too
    for one method of each kind (all of them in `make scale`)."""
    name = request.param
    step, state = make(name, **METHODS[name])
    found = drive(jax.jit(step), state)
    if name in UNJITTED or SCALE:
        expected = drive(step, state)
        assert_same(found, expected)
        return step, state, expected
    return step, state, found


def on_a_mesh(reference, shape, shard_pool, accumulate=1):
    """Asserts that the mesh of this shape gives the reference's numbers."""
    step, state, expected = reference
    axes = dict(zip(sharding.AXES, shape, strict=True))
    mesh = sharding.make_mesh(jax.devices()[: math.prod(shape)], **axes)
    stages = models.Stages(*(sharding.gather_fsdp_params(stage, mesh) for stage in STAGES))
    step = functools.partial(
        step, apply=sharding.gather_fsdp_params(apply, mesh), stages=stages, accumulate=accumulate
    )
    state = sharding.pad_pool(state)
    places = sharding.shardings(
        sharding.shard_template(jax.eval_shape(lambda: state), mesh, shard_pool=shard_pool)
    )
    jitted = jax.jit(
        step,
        in_shardings=(places, sharding.split_rows(mesh)),
        out_shardings=(places, sharding.replicated(mesh)),
    )
    found = drive(jitted, jax.device_put(state, places), lambda b: sharding.put_batch(b, mesh))
    assert_same(without_padding(found), expected)


def without_padding(found):
    """Returns the result of `drive` with the rows of the real pool alone."""
    params, ema_params, algo_state, history = found
    sizes = {sharding.POOL_MULTIPLE: POOL}
    algo_state = jax.tree.map(lambda x: x[: sizes.get(len(x), len(x))] if x.ndim else x, algo_state)
    return params, ema_params, algo_state, history


def test_eight_devices_equal_one(reference):
    """Rows, parameters and the state of the pool are split."""
    on_a_mesh(reference, (2, 2, 2), True)


@pytest.mark.parametrize("reference", METHODS if SCALE else ACCUMULATED, indirect=True)
def test_accumulated_on_two_devices_equals_one(reference):
    """Four parts of a batch; a method inside the model sees it whole."""
    parts = 4 if reference[0].keywords["algorithm"].forward is None else 1
    on_a_mesh(reference, (2, 1, 1), False, parts)


@pytest.mark.skipif(not SCALE, reason="make scale")
def test_four_devices_equal_one(reference):
    if not any(POOL in x.shape for x in jax.tree.leaves(reference[1].algo_state)):
        pytest.skip("two and eight are enough for a method that keeps nothing of the pool")
    on_a_mesh(reference, (2, 2, 1), True)


@pytest.mark.parametrize("reference", METHODS if SCALE else COMMUNICATING, indirect=True)
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
    "reference",
    ["freematch", "marginmatch virtual", "mixtext", "multimatch"] if SCALE else ["multimatch"],
    indirect=True,
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
