"""Measures train steps with all layers trained, with frozen ones, and with their states stored.

    python experiments/speed/frozen.py              # writes frozen.json, then the table
    python experiments/speed/frozen.py --table      # prints the table

The three kinds of steps take turns in one process, on the same batch.
"""

import functools
import json
import os
import sys
from pathlib import Path

import jax
import numpy as np
from bookkeeping import FREEZE, LENGTH, MODEL, compiled_step, in_turns, random_batch
from tabulate import tabulate

from ssl_guard import algorithms, models
from ssl_guard.runtime import provenance
from ssl_guard.runtime.files import write_json

RECORD = Path(__file__).with_suffix(".json")
KINDS = {"trained": ((), 0), "frozen": (FREEZE, 0), "stored": (FREEZE, 3)}  # freeze, stored layers
POOL, CALLS = 1_000, 5  # timed calls, after one warm-up call
METHODS = ("supervised", "fixmatch")


def measure_steps(name: str) -> dict[str, list[float]]:
    """Times train steps of KINDS in turns, in seconds."""
    algorithm = algorithms.build(name)
    batch = random_batch(np.random.default_rng(0), POOL, LENGTH, (1000, 20000))
    used = {"labelled", *algorithm.views}
    batch = {
        key: value for key, value in batch.items() if key in used or not isinstance(value, dict)
    }
    calls, states, batches = {}, {}, {}
    for kind, (freeze, layers) in KINDS.items():
        model = models.build(MODEL, num_classes=2, cached_layers=layers)
        params = models.init_from_pretrained(model, MODEL, jax.random.key(0), batch["labelled"])
        if layers:
            lower = functools.partial(
                models.hidden_states, model.encoder, params["encoder"], stop_layer=layers
            )
            batch = {
                key: view | {"states": jax.jit(lower, static_argnums=(1, 2))(view, None, False)}
                if isinstance(view, dict)
                else view
                for key, view in batch.items()
            }
        batches[kind] = jax.device_put(batch)
        calls[kind], states[kind] = compiled_step(
            model, algorithm, params, pool=POOL, freeze=freeze
        )
    return in_turns(calls, states, batches, CALLS)


def table() -> str:
    """Tabulates medians and the ratio of paired steps as GitHub Markdown."""
    record = json.loads(RECORD.read_text())
    rows = []
    for name, found in record["methods"].items():
        seconds = {kind: np.array(values) for kind, values in found["step_seconds"].items()}
        row = [name, *(f"{1e3 * np.median(values):.0f}" for values in seconds.values())]
        for kind in ("trained", "frozen"):
            ratios = seconds[kind] / seconds["stored"]
            row.append(f"{np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}]")
        rows.append(row)
    titles = ["step, ms", *KINDS, "trained / stored [rounds]", "frozen / stored [rounds]"]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    if "--table" not in sys.argv:
        done = {}
        for name in METHODS:
            load = os.getloadavg()[0]  # before measuring; shows a busy machine
            done[name] = {"load_average": load, "step_seconds": measure_steps(name)}
        settings = {"model": MODEL, "kinds": KINDS, "length": LENGTH}
        write_json(RECORD, settings | {"methods": done, "provenance": provenance.collect()})
    print(table())
