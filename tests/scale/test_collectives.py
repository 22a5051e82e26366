"""Counts the collectives in the compiled step of a real encoder."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.speed import placement
from ssl_guard import algorithms, models, steps
from ssl_guard.runtime import sharding

pytestmark = pytest.mark.usefixtures("optimised")

SIZE = {
    "model_type": "bert",
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
    "intermediate_size": 64,
    "max_position_embeddings": 16,
}
ROWS, LENGTH, POOL = 16, 8, 64 * 1024
SMALL = 64 * ROWS  # bytes: a few numbers of every row of the batch, such as its index
ACTIVATION = 4 * ROWS * LENGTH * SIZE["hidden_size"]  # bytes of one view between two layers
MESHES = {  # the state of the pool is split wherever rows are
    "data": {"data": 8},
    "fsdp": {"fsdp": 8},
    "tensor": {"tensor": 8},
}


def batch():
    def view():
        ids = np.ones((ROWS, LENGTH), np.int32)
        row = np.arange(ROWS, dtype=np.int32)
        return {"input_ids": ids, "attention_mask": ids, "token_type_ids": ids * 0, "row": row}

    ones, row = np.ones(ROWS, np.float32), np.arange(ROWS, dtype=np.int32)
    return {
        "labelled": view() | {"label": row * 0, "weight": ones, "index": row},
        "weak": view(),
        "strong": view(),
        "index": row,
        "weight": ones,
        "hidden_label": row * 0,
    }


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """said(name of a mesh) -> (its collectives, bytes of the parameters)."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(SIZE))
    model, algorithm, tx = models.build(folder), algorithms.build("flexmatch"), optax.adamw(0.1)

    def new_state():
        params = model.init(jax.random.key(0), batch()["weak"])
        state = steps.init_state(
            jax.random.key(0),
            params,
            algorithm=algorithm,
            tx=tx,
            pool_size=POOL,
            num_classes=2,
            num_heads=1,
            labelled_size=ROWS,
        )
        return sharding.pad_pool(state)

    shapes = jax.eval_shape(new_state)

    def compiled(name):
        mesh = sharding.make_mesh(**({"data": 1} | MESHES[name]))
        places = sharding.shardings(sharding.shard_template(shapes, mesh, shard_pool=True))
        step = functools.partial(
            steps.train_step,
            apply=sharding.gather_fsdp_params(model.apply, mesh),
            algorithm=algorithm,
            tx=tx,
            total_steps=10,
        )
        jitted = jax.jit(
            step,
            in_shardings=(places, sharding.split_rows(mesh)),
            out_shardings=(places, sharding.replicated(mesh)),
            donate_argnums=0,
        )
        program = jitted.lower(shapes, jax.eval_shape(lambda: jax.tree.map(jnp.asarray, batch())))
        parameters = 4 * sum(leaf.size for leaf in jax.tree.leaves(shapes.params))
        return placement.collectives(program.compile().as_text()), parameters

    return compiled


def test_data_parallel_steps_add_gradients_up_and_send_nothing_else(said):
    """Two gradients: labelled and strong rows go through the model apart, and XLA may add up over
    the devices before it adds the two. Nothing as long as the pool moves."""
    found, parameters = said("data")
    assert found.keys() == {"all-reduce", "all-gather"}
    assert parameters < sum(found["all-reduce"]) < 2 * parameters + SMALL
    assert sum(found["all-gather"]) < SMALL


def test_fsdp_fetches_each_parameter_once_and_never_the_rows(said):
    found, parameters = said("fsdp")
    assert found.keys() <= {"all-reduce", "all-gather", "reduce-scatter"}
    assert 0.9 * parameters < sum(found["all-gather"]) < parameters + SMALL
    gradients = sum(found["all-reduce"]) + 8 * sum(found.get("reduce-scatter", [0]))
    assert parameters < gradients < 2 * parameters + SMALL


def test_tensor_parallel_layers_add_up_their_outputs(said):
    """Forwards the outputs of attention and feed-forward layer, for three views; backwards the
    gradients of what feed-forward layer, query, key and value read, for the two that teach."""
    found, _ = said("tensor")
    assert found.keys() == {"all-reduce"}
    activations = 3 * 2 + 2 * 4
    assert 0 <= sum(found["all-reduce"]) - activations * ACTIVATION < SMALL
