"""Measures the cost of per-example state at a million examples as a share of a train step.

    python experiments/speed/bookkeeping.py              # missing entries, then the table
    python experiments/speed/bookkeeping.py --table      # prints the table

Steps with the small and the large pool take turns in one process, with donated state; so do the
method's `target` alone (bookkeeping and masks on given logits) and FixMatch's. The step that ends
an epoch, which computes quantiles over the pool, is timed as `target` alone.
"""

import functools
import json
import os
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tabulate import tabulate

from ssl_guard import algorithms, models, steps
from ssl_guard.runtime import provenance
from ssl_guard.runtime.files import write_json
from ssl_guard.steps import optim

RECORD = Path(__file__).with_suffix(".json")
MODEL, BATCH, LENGTH, TOTAL = "all-MiniLM-L6-v2", 16, 128, 1_000_000
FREEZE = ("encoder/embeddings", "encoder/layer_[012]")  # as in the configs; makes the step cheapest
POOLS = {"small": 1_000, "large": 1_000_000}
STEPS, CALLS, ENDS = 5, 60, 3  # timed calls, after one warm-up call
VARIANTS = {  # name: (algorithm, hyper-parameters, heads)
    "fixmatch": ("fixmatch", {}, 1),
    "flexmatch": ("flexmatch", {}, 1),
    "marginmatch, fixed": ("marginmatch", {"threshold": "fixed"}, 1),
    "marginmatch, agreement": ("marginmatch", {"threshold": "agreement"}, 1),
    "marginmatch, virtual": ("marginmatch", {"threshold": "virtual"}, 1),
    "multimatch, 3 heads": ("multimatch", {}, 3),
}


def random_batch(rng: np.random.Generator, pool: int, length: int, tokens: tuple) -> dict:
    """Makes BATCH rows of `length` tokens in every view, without padding.

    tokens: lower and upper bound of the token ids.
    """

    def view():
        ids = rng.integers(*tokens, (BATCH, length)).astype(np.int32)
        ones, row = np.ones_like(ids), np.arange(BATCH, dtype=np.int32)
        zeros = np.zeros_like(ids)
        return {"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros, "row": row}

    ones = np.ones(BATCH, np.float32)
    labels = rng.integers(0, 2, BATCH).astype(np.int32)
    return {
        "labelled": view() | {"label": labels, "weight": ones, "index": np.arange(BATCH)},
        "weak": view(),
        "strong": view(),
        "index": rng.permutation(pool)[:BATCH].astype(np.int32),
        "weight": ones,
        "hidden_label": -np.ones(BATCH, np.int32),
    }


def timed(call, state, *arguments) -> tuple[float, object]:
    """Times call(state, ...) -> (state, ...); returns seconds and the state."""
    begin = time.perf_counter()
    state = jax.block_until_ready(call(state, *arguments))[0]
    return time.perf_counter() - begin, state


def compiled_step(model, algorithm, params, *, pool: int, freeze: tuple[str, ...], heads: int = 1):
    """Compiles a train step that donates its state; returns the step and a first state."""
    tx = optim.adamw(
        params,
        schedule=functools.partial(
            optim.warmup_cosine, peak=1e-5, warmup_steps=10, total_steps=TOTAL
        ),
        weight_decay=5e-4,
        layer_decay=0.75,
        num_layers=model.config.num_hidden_layers,
        clip_norm=1.0,
        freeze=freeze,
    )
    step = functools.partial(
        steps.train_step,
        apply=model.apply,
        stages=model.stages,
        algorithm=algorithm,
        tx=tx,
        total_steps=TOTAL,
        steps_per_epoch=TOTAL,  # so no epoch ends
        freeze=freeze,
    )
    state = steps.init_state(
        jax.random.key(1),
        params,
        algorithm=algorithm,
        tx=tx,
        pool_size=pool,
        num_classes=2,
        num_heads=heads,
    )
    return jax.jit(step, donate_argnums=0), state


def in_turns(calls: dict, states: dict, batches: dict, rounds: int) -> dict[str, list[float]]:
    """Times train steps in turns, in seconds, after one warm-up round."""
    seconds = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name in calls:
            spent, states[name] = timed(calls[name], states[name], batches[name])
            seconds[name].append(spent)
    return {name: values[1:] for name, values in seconds.items()}


def measure_steps(algorithm, heads: int) -> dict[str, list[float]]:
    """Times train steps at both pools, in turns, in seconds."""
    model = models.build(MODEL, num_classes=2 + algorithm.extra_classes, num_heads=heads)
    rng, calls, states, batches = np.random.default_rng(0), {}, {}, {}
    for name, pool in POOLS.items():
        batches[name] = jax.device_put(random_batch(rng, pool, LENGTH, (1000, 20000)))
        params = models.init_from_pretrained(model, MODEL, jax.random.key(0), batches[name]["weak"])
        calls[name], states[name] = compiled_step(
            model, algorithm, params, pool=pool, freeze=FREEZE, heads=heads
        )
    return in_turns(calls, states, batches, STEPS)


def measure_target(algorithm, heads: int, base) -> dict:
    """Times `target` at both pools, the base's `target`, and calls that end an epoch."""
    rng = np.random.default_rng(0)
    clock = functools.partial(
        algorithms.StepInfo, jnp.int32(5), jnp.float32(0.5), jnp.int32(1), rng=jax.random.key(0)
    )

    def call(state, logits, batch, clock, algorithm):
        return algorithm.target(state, logits, batch, clock, algorithms.NO_COLLECTIVES)

    seconds, sizes, ends, compared = {}, {}, [], {}
    for name, pool, method in [*((n, p, algorithm) for n, p in POOLS.items()), ("base", 1, base)]:
        shape = (BATCH, heads, 2 + method.extra_classes)
        logits = {
            view: jnp.asarray(rng.normal(size=shape) * 3, jnp.float32)
            for view in ("labelled", "weak", "strong")
        }
        index = rng.integers(pool, size=BATCH) if pool < BATCH else rng.permutation(pool)[:BATCH]
        batch = {"index": jnp.asarray(index, jnp.int32), "weight": jnp.ones(BATCH)}
        state = jax.tree.map(jnp.copy, method.init_state(pool, 2, heads))
        sizes[name] = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        function = jax.jit(functools.partial(call, algorithm=method), donate_argnums=0)
        compared[name] = [function, state, logits, batch]
        seconds[name] = []
    for _ in range(CALLS + 1):
        for name, (function, state, logits, batch) in compared.items():
            spent, compared[name][1] = timed(function, state, logits, batch, clock(jnp.bool(False)))
            seconds[name].append(spent)
    function, state, logits, batch = compared["large"]
    for _ in range(ENDS):
        spent, state = timed(function, state, logits, batch, clock(jnp.bool(True)))
        ends.append(spent)
    return {
        "target_seconds": {name: values[1:] for name, values in seconds.items()},
        "epoch_end_seconds": ends,
        "state_bytes": sizes["large"],
    }


def measure(path: Path) -> None:
    """Measures the variants missing in the record, and writes it after each."""
    record = {"model": MODEL, "batch": BATCH, "length": LENGTH, "pools": POOLS, "variants": {}}
    if path.exists():
        record = json.loads(path.read_text())
    base = algorithms.build("fixmatch")
    for name, (method, hyper_parameters, heads) in VARIANTS.items():
        if name in record["variants"]:
            continue
        algorithm = algorithms.build(method, **hyper_parameters)
        record["variants"][name] = {
            "load_average": os.getloadavg()[0],  # before measuring; shows a busy machine
            **measure_target(algorithm, heads, base),
            "step_seconds": measure_steps(algorithm, heads),
        }
        write_json(path, record | {"provenance": provenance.collect()})
        print(name, "done", file=sys.stderr)


def table() -> str:
    """Tabulates medians as GitHub Markdown."""
    record = json.loads(RECORD.read_text())
    steps_per_epoch = record["pools"]["large"] // record["batch"]
    rows = []
    for name, found in record["variants"].items():
        small, large = (np.median(found["step_seconds"][pool]) for pool in ("small", "large"))
        target = np.median(found["target_seconds"]["large"])
        end = np.median(found["epoch_end_seconds"])
        share = (target + end / steps_per_epoch) / large
        rows.append(
            [
                name,
                f"{found['state_bytes'] / 1e6:.0f}",
                f"{1e3 * small:.0f}",
                f"{1e3 * large:.0f}",
                f"{large / small:.3f}",
                f"{1e3 * target:.2f}",
                f"{1e3 * np.median(found['target_seconds']['base']):.2f}",
                f"{end:.2f}",
                f"{100 * share:.3f}",
            ]
        )
    titles = [
        "",
        "state, MB",
        "step, ms: pool 1e3",
        "pool 1e6",
        "ratio",
        "bookkeeping alone, ms",
        "FixMatch's, ms",
        "end of an epoch, s",
        "bookkeeping, % of a step",
    ]
    return tabulate(rows, titles, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    if "--table" not in sys.argv:
        measure(RECORD)
    print(table())
