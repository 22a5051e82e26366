"""Measures step time and communication for every way to split a run over a mesh.

    python experiments/speed/scaling.py              # missing entries, then the table
    python experiments/speed/scaling.py --table      # prints the table

Eight devices are simulated on the CPU and share the cores of one machine, so times show overhead
and no speed-up. Bytes are read from the compiled program.
"""

import functools
import json
import os
import sys
import tempfile
import time
from pathlib import Path

if "--table" not in sys.argv:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import numpy as np
import optax
import placement
from bookkeeping import BATCH, random_batch
from tabulate import tabulate

from ssl_guard import algorithms, models, steps
from ssl_guard.runtime import provenance, sharding
from ssl_guard.runtime.files import write_json

RECORD = Path(__file__).with_suffix(".json")
SIZE = {
    "model_type": "bert",
    "vocab_size": 4096,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "intermediate_size": 512,
    "max_position_embeddings": 64,
}
LENGTH, POOL, HEADS, STEPS = 32, 102_400, 3, 5
CELLS = {  # name: (data, fsdp, tensor), split pool, parts of a batch
    "1 device": ((1, 1, 1), False, 1),
    **{f"data {n}": ((n, 1, 1), False, 1) for n in (2, 4, 8)},
    "data 8, pool split": ((8, 1, 1), True, 1),
    **{f"fsdp {n}": ((1, n, 1), False, 1) for n in (2, 4, 8)},
    **{f"tensor {n}": ((1, 1, n), False, 1) for n in (2, 4, 8)},
    "2 x 2 x 2, pool split": ((2, 2, 2), True, 1),
    "data 8, accumulate 2": ((8, 1, 1), False, 2),
}


def measure_cell(shape: tuple[int, int, int], shard_pool: bool, parts: int) -> dict:
    """Measures MultiMatch, which has the most state per pool example."""
    axes = dict(zip(sharding.AXES, shape, strict=True))
    mesh = sharding.make_mesh(jax.devices()[: int(np.prod(shape))], **axes)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(SIZE))
        model = models.build(folder, num_heads=HEADS)
    algorithm, tx = algorithms.build("multimatch"), optax.adamw(1e-4)
    batch = random_batch(np.random.default_rng(0), POOL, LENGTH, (0, SIZE["vocab_size"]))

    def new_state():
        params = model.init(jax.random.key(0), batch["weak"])
        state = steps.init_state(
            jax.random.key(1),
            params,
            algorithm=algorithm,
            tx=tx,
            pool_size=POOL,
            num_classes=2,
            num_heads=HEADS,
        )
        return sharding.pad_pool(state)

    placed = sharding.shard_template(jax.eval_shape(new_state), mesh, shard_pool=shard_pool)
    places = sharding.shardings(placed)
    step = jax.jit(
        functools.partial(
            steps.train_step,
            apply=sharding.gather_fsdp_params(model.apply, mesh),
            algorithm=algorithm,
            tx=tx,
            total_steps=1000,
            steps_per_epoch=POOL // BATCH,
            accumulate=parts,
        ),
        in_shardings=(places, sharding.split_rows(mesh)),
        out_shardings=(places, sharding.replicated(mesh)),
        donate_argnums=0,
    )
    state = jax.jit(new_state, out_shardings=places)()
    batch = sharding.put_batch(batch, mesh)
    program = step.lower(state, batch).compile()
    seconds = []
    for _ in range(STEPS + 1):
        begin = time.perf_counter()
        state, metrics = jax.block_until_ready(program(state, batch))
        seconds.append(time.perf_counter() - begin)
    return {
        "seconds": seconds[1:],
        "collectives": placement.collectives(program.as_text()),
        "parameter_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(state.params)),
        "state_bytes_per_device": placement.bytes_per_device(placed),
        "load_average": os.getloadavg()[0],
    }


def measure(path: Path) -> None:
    """Measures the cells missing in the record, and writes it after each."""
    record = {"size": SIZE, "batch": BATCH, "length": LENGTH, "pool": POOL, "cells": {}}
    if path.exists():
        record = json.loads(path.read_text())
    for name, cell in CELLS.items():
        if name not in record["cells"]:
            record["cells"][name] = measure_cell(*cell)
            write_json(path, record | {"provenance": provenance.collect()})
            print(name, "done", file=sys.stderr)


def table() -> str:
    """Tabulates median times, and communication as MB and number of operations."""
    rows = []
    for name, found in json.loads(RECORD.read_text())["cells"].items():
        parts = found["collectives"]
        shown = [
            f"{sum(parts[kind]) / 1e6:.2f} ({len(parts[kind])})" if kind in parts else "-"
            for kind in placement.COLLECTIVES
        ]
        rows.append(
            [
                name,
                f"{1e3 * np.median(found['seconds']):.0f}",
                f"{found['state_bytes_per_device'] / 1e6:.1f}",
                *shown,
            ]
        )
    titles = ["", "step, ms", "state, MB per device", *placement.COLLECTIVES]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    if "--table" not in sys.argv:
        measure(RECORD)
    print(table())
