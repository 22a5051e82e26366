"""What devices say to each other, read from the compiled step of a real encoder."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_guard import algorithms, models, sharding, steps

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
MESHES = {
    "data": ({"data": 8}, False),
    "pool": ({"data": 8}, True),
    "fsdp": ({"fsdp": 8}, False),
    "tensor": ({"tensor": 8}, False),
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
    """said(name of a mesh) -> (its collectives, the parameters' shapes), compiled once."""
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

    @functools.cache
    def compiled(name):
        axes, shard_pool = MESHES[name]
        mesh = sharding.make_mesh(**({"data": 1} | axes))
        places = sharding.shardings(sharding.place(shapes, mesh, shard_pool=shard_pool))
        step = functools.partial(
            steps.train_step,
            apply=sharding.whole(model.apply, mesh),
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
        return sharding.collectives(program.compile().as_text()), shapes.params

    return compiled


def test_print(said):
    for name in MESHES:
        found, params = said(name)
        print(name, {k: (len(v), sum(v), sorted(v)) for k, v in found.items()})
        print(sum(x.size for x in jax.tree.leaves(params)) * 4, flush=True)
