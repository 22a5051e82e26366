"""Measures per-example state of growing pools: bytes per device, and time.

    python experiments/speed/pool.py              # missing entries, then the tables
    python experiments/speed/pool.py --table      # prints the tables

Bytes are computed from shapes and shardings. Times are of a method's `target` (bookkeeping and
masks on given logits) on one device, in an ordinary step and in one that ends an epoch.
"""

import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import placement
from bookkeeping import BATCH, VARIANTS, timed
from jax.sharding import AbstractMesh
from tabulate import tabulate

from ssl_guard import algorithms
from ssl_guard.runtime import provenance, sharding
from ssl_guard.runtime.files import write_json

RECORD = Path(__file__).with_suffix(".json")
SIZES, MEASURED = [10**n for n in range(4, 10)], [10**n for n in range(4, 8)]
DEVICES = (1, 8, 64)
CALLS, ENDS = 30, 3


def state_bytes(algorithm, heads: int, pool: int, devices: int) -> int:
    """Returns the bytes of the state per device, with the pool split over all devices."""
    mesh = AbstractMesh((devices, 1, 1), sharding.AXES)

    def new_state():
        state = algorithm.init_state(pool, 2, heads)
        return sharding.pad_pool({"algo_state": state})

    return placement.bytes_per_device(
        sharding.shard_template(jax.eval_shape(new_state), mesh, shard_pool=True)
    )


def measure_pool(algorithm, heads: int, pool: int) -> dict[str, list[float]]:
    """Times ordinary calls of `target` and calls that end an epoch, with donated state."""
    rng = np.random.default_rng(0)
    shape = (BATCH, heads, 2 + algorithm.extra_classes)
    logits = {
        view: jnp.asarray(rng.normal(size=shape) * 3, jnp.float32)
        for view in ("labelled", "weak", "strong")
    }
    index = jnp.asarray(rng.permutation(pool)[:BATCH], jnp.int32)
    batch = {"index": index, "weight": jnp.ones(BATCH)}
    clock = functools.partial(
        algorithms.StepInfo, jnp.int32(5), jnp.float32(0.5), jnp.int32(1), rng=jax.random.key(0)
    )
    target = jax.jit(
        lambda state, clock: algorithm.target(
            state, logits, batch, clock, algorithms.NO_COLLECTIVES
        ),
        donate_argnums=0,
    )
    state = jax.tree.map(jnp.copy, algorithm.init_state(pool, 2, heads))
    seconds = {"step": [], "epoch_end": []}
    for name, count in (("step", CALLS), ("epoch_end", ENDS)):
        for call in range(count + 1):
            spent, state = timed(target, state, clock(jnp.bool(name == "epoch_end")))
            if call:  # the first call compiles
                seconds[name].append(spent)
    return seconds


def measure(path: Path) -> None:
    """Measures the variants missing in the record, and writes it after each."""
    record = json.loads(path.read_text()) if path.exists() else {"batch": BATCH, "variants": {}}
    for name, (method, hyper_parameters, heads) in VARIANTS.items():
        if name not in record["variants"]:
            algorithm = algorithms.build(method, **hyper_parameters)
            record["variants"][name] = {
                str(pool): measure_pool(algorithm, heads, pool) for pool in MEASURED
            }
            write_json(path, record | {"provenance": provenance.collect()})
            print(name, "done", file=sys.stderr)


def table() -> str:
    """Tabulates bytes for the smallest and the largest method, and median times."""
    rows = []
    for name in ("flexmatch", "multimatch, 3 heads"):
        method, hyper_parameters, heads = VARIANTS[name]
        algorithm = algorithms.build(method, **hyper_parameters)
        for devices in DEVICES:
            sizes = [state_bytes(algorithm, heads, pool, devices) for pool in SIZES]
            rows.append([f"{name}, {devices} devices", *(_shown(size) for size in sizes)])
    titles = ["bytes per device: pool of", *(f"1e{len(str(pool)) - 1}" for pool in SIZES)]
    text = tabulate(rows, titles, tablefmt="github", disable_numparse=True)
    rows = []
    for name, found in json.loads(RECORD.read_text())["variants"].items():
        for kind, label in (("step", "step"), ("epoch_end", "end of an epoch")):
            times = [1e3 * np.median(found[str(pool)][kind]) for pool in MEASURED]
            rows.append([f"{name}, {label}", *(f"{ms:,.2f}" for ms in times)])
    titles = ["ms: pool of", *(f"1e{len(str(pool)) - 1}" for pool in MEASURED)]
    return f"{text}\n\n{tabulate(rows, titles, tablefmt='github', disable_numparse=True)}"


def _shown(size: int) -> str:
    unit = next(i for i, limit in enumerate((1e6, 1e9, np.inf)) if size < limit)
    return f"{size / (1e3, 1e6, 1e9)[unit]:.3g} {('kB', 'MB', 'GB')[unit]}"


if __name__ == "__main__":
    if "--table" not in sys.argv:
        measure(RECORD)
    print(table())
