"""Times steps of our classifier for encoders.py, in one process per precision."""

import json
import sys
import tempfile
from pathlib import Path

import encoder_cells as cells
import jax
import optax

from ssl_guard import models
from ssl_guard.runtime import compilation


def build(cell: dict):
    """Makes the step of a cell."""
    size, train = cell["size"], cell["mode"] == "train"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(cells.config(size)))
        model = models.build(folder, pooling="cls", dropout=0.1, dtype=cell["dtype"])
    batch = jax.device_put(cells.batch(size, cell["length"]))
    params = jax.jit(model.init)(jax.random.key(0), batch)
    if not train:
        apply = jax.jit(lambda params, batch: model.apply(params, batch, None, False))
        params = model.for_scoring(params)  # once for all batches, as in evaluation
        return lambda: apply(params, batch).block_until_ready()

    tx = optax.adamw(1e-5, weight_decay=0.01)

    def loss(params, batch, rng):
        logits = model.apply(params, batch, rng, True)[:, 0]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    def update(params, opt_state, batch, rng):
        grads = jax.grad(loss)(params, batch, rng)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, jax.random.fold_in(rng, 0)

    step = jax.jit(update, donate_argnums=(0, 1))
    state = [params, tx.init(params), jax.random.key(1)]

    def one():
        state[:] = step(state[0], state[1], batch, state[2])
        jax.block_until_ready(state)

    return one


if __name__ == "__main__":
    compilation.configure(dtype=sys.argv[1], compilation_cache="")
    cells.serve(build)
