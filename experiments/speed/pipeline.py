"""Measures tokens per second of the input pipeline, with and without a train step, and memory.

    python experiments/speed/pipeline.py speed      # on a quiet machine; writes pipeline.json
    python experiments/speed/pipeline.py memory     # adds the memory of a million rows
    python experiments/speed/pipeline.py --table    # prints the table

Rows are random tokens with lengths like those of prompts (median 25, 10% above 150, truncated at
256). The step is UDA's with MiniLM and the settings of configs/uda.py, 16 labelled and 16
unlabelled rows. Batches are made in the loop, as in training, or ahead by grain's prefetch thread.
"""

import functools
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grain
import numpy as np
from tabulate import tabulate

from ssl_guard.data import pipeline
from ssl_guard.data.records import Records
from ssl_guard.data.shards import open_shards, write_shards
from ssl_guard.runtime import provenance
from ssl_guard.runtime.files import write_json

RECORD = Path(__file__).with_suffix(".json")
BUCKETS = (64, 128, 192, 256)
WAYS = {
    "4 buckets": {"sort_by_length": True},
    "packing, 1 shape": {"pack_groups": 1, "num_shapes": 1},
}
LABELLED, POOL, MILLION = 2_000, 20_000, 1_000_000
ALONE, STEPS, ROUNDS, AHEAD = 1000, 4, 3, 4  # batches; steps of a round; batches made ahead


def generated(rows: int) -> Iterator[dict]:
    """Yields records of random tokens."""
    rng = np.random.default_rng(rows)
    for index in range(rows):
        length = int(np.clip(rng.lognormal(np.log(25), 1.4), 7, 256))
        yield {
            "id": f"row {index}",
            "input_ids": rng.integers(1000, 30000, length, np.int32),
            "second": length,
            "cut": 0,
            "label": index % 2,
            "index": index,
            "copy": 0,
        }


def write(folder: str, pool: int) -> None:
    """Writes the labelled, the weak and the strong view."""
    for view, rows in (("labelled", LABELLED), ("weak", pool), ("strong", pool)):
        write_shards(Path(folder) / view, view, generated(rows), num_shards=4, made_from={})


def read(folder: str) -> list[Records]:
    """Opens and checks the three views."""
    return [
        open_shards(Path(folder) / view, view, made_from={}, rebuild="")
        for view in ("labelled", "weak", "strong")
    ]


def batches_of(views: list[Records], way: dict, *, steps: int, batch: int = 16):
    """Returns the pipeline's batches."""
    sizes = {"labelled_batch": 16, "unlabelled_batch": batch}
    return pipeline.train_batches(
        *views, seed=0, steps=steps, **sizes, buckets=BUCKETS, pad_id=0, **way
    )


def train_step():
    """Returns UDA's compiled step and its initial state."""
    import jax

    from configs import uda
    from ssl_guard import algorithms, models, steps
    from ssl_guard.evaluation import scorer
    from ssl_guard.steps import optim

    config = uda.get_config()
    folder = models.resolve(config.model.name)
    model = scorer.build_model(config, folder)
    params = scorer.initial_params(config, model, folder)
    algorithm = algorithms.build("uda", **config.uda)
    tx = optim.adamw(
        params,
        schedule=lambda step: config.optim.lr,
        weight_decay=config.optim.weight_decay,
        layer_decay=config.optim.layer_lr_decay,
        num_layers=model.config.num_hidden_layers,
        clip_norm=config.optim.clip_norm,
        freeze=tuple(config.optim.freeze),
    )
    state = steps.init_state(
        jax.random.key(0),
        params,
        algorithm=algorithm,
        tx=tx,
        pool_size=POOL,
        num_classes=2,
        num_heads=1,
        labelled_size=LABELLED,
    )
    step = functools.partial(
        steps.train_step,
        apply=model.apply,
        algorithm=algorithm,
        tx=tx,
        total_steps=1000,
        freeze=tuple(config.optim.freeze),
    )
    return jax.jit(step, donate_argnums=0), state


def alone(batches) -> dict:
    """Measures tokens and CPU seconds of making batches alone."""
    iterator = iter(batches)
    next(iterator)
    begin, tokens = time.process_time(), 0
    for batch in itertools.islice(iterator, ALONE):
        tokens += pipeline.token_counts(batch)[0]
    return {"tokens": tokens, "cpu_seconds": time.process_time() - begin, "batches": ALONE}


def beside(step, state, batches) -> tuple[dict, object]:
    """Measures tokens, shapes, wall seconds, and this thread's CPU seconds of making batches."""
    import jax

    tokens, cpu, shapes = 0, 0.0, set()
    begin, iterator = time.perf_counter(), iter(batches)
    for _ in range(STEPS):
        before = time.thread_time()
        batch = next(iterator)
        cpu += time.thread_time() - before
        tokens += pipeline.token_counts(batch)[0]
        shapes.add(batch["weak"]["input_ids"].shape)
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    seconds = time.perf_counter() - begin
    measured = {"tokens": tokens, "seconds": seconds, "cpu_seconds": cpu, "shapes": len(shapes)}
    return measured, state


def speed() -> dict:
    """Measures every way of batching: alone, and with the step, made in the loop and ahead."""
    step, state = train_step()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write(folder, POOL)
        views = read(folder)
        for name, way in WAYS.items():
            batches, rounds = batches_of(views, way, steps=ALONE + 1), {"loop": [], "ahead": []}
            first, state = beside(step, state, batches)  # compiles
            for _ in range(ROUNDS):
                ahead = grain.experimental.ThreadPrefetchIterDataset(
                    batches, prefetch_buffer_size=AHEAD
                )
                for kind, source in (("loop", batches), ("ahead", ahead)):
                    measured, state = beside(step, state, source)
                    rounds[kind].append(measured)
            found[name] = {"alone": alone(batches), "first": first, **rounds}
    return found


def resident(*arguments: str) -> dict:
    """Runs a process and returns its output with its peak resident memory in MiB."""
    run = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, capture_output=True, text=True
    )
    return json.loads(run.stdout)


def memory() -> dict:
    """Measures writing three views of a million rows, and an epoch of batches."""
    with tempfile.TemporaryDirectory() as folder:
        return {kind: resident(kind, folder) for kind in ("import", "write", "read")}


def child(kind: str, folder: str) -> dict:
    """Runs one process of `memory`."""
    begin, rows = time.monotonic(), 0
    if kind == "write":
        write(folder, MILLION)
    if kind == "read":
        for batch in batches_of(read(folder), {}, steps=MILLION // 250, batch=250):
            rows += len(batch["index"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"peak_mib": peak, "seconds": time.monotonic() - begin, "rows": rows}


def table() -> str:
    """Tabulates throughput of pipeline and step, and the memory of a million rows."""
    record = json.loads(RECORD.read_text())
    lines = []
    for name, cells in record["speed"].items():
        given = cells["alone"]["tokens"] / cells["alone"]["cpu_seconds"]

        def taken(kind, cells=cells):
            return np.median([cell["tokens"] / cell["seconds"] for cell in cells[kind]])

        compiling = cells["first"]["seconds"] - np.median([c["seconds"] for c in cells["loop"]])
        busy = [cell["cpu_seconds"] / cell["seconds"] for cell in cells["loop"]]
        lines.append(
            [
                name,
                f"{given:,.0f}",
                f"{taken('loop'):,.0f}",
                f"{taken('ahead'):,.0f}",
                f"{given / taken('loop'):,.0f}",
                f"{100 * np.median(busy):.2f}",
                f"{compiling / cells['first']['shapes']:.0f}",
            ]
        )
    headers = ["batches", "pipeline alone, tokens/s", "train step, tokens/s"]
    headers += [
        f"with {AHEAD} batches ahead",
        "ratio",
        "of a core while training, %",
        "compiling a shape, s",
    ]
    text = tabulate(lines, headers, tablefmt="github", disable_numparse=True)
    peaks = {kind: f"{cell['peak_mib']:,.0f}" for kind, cell in record["memory"].items()}
    return (
        f"{text}\n\n"
        f"Largest resident memory, of {MILLION:,} rows with a weak and a strong view each: "
        f"{peaks['write']} MiB to write the shards, {peaks['read']} MiB to open them and make an "
        f"epoch of batches; the imports take {peaks['import']} MiB of it."
    )


def main(kind: str) -> None:
    measured = {"speed": speed, "memory": memory}[kind]()
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    write_json(RECORD, record | {kind: measured, "provenance": provenance.collect()})


if __name__ == "__main__":
    if "--table" in sys.argv:
        print(table())
    elif len(sys.argv) == 3:
        print(json.dumps(child(*sys.argv[1:])))
    else:
        main(sys.argv[1])
