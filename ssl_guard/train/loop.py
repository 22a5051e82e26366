"""The training loop of every method that takes steps."""

import collections
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from ssl_guard.data import pipeline
from ssl_guard.errors import BadInput
from ssl_guard.runtime import preemption, sharding
from ssl_guard.runtime.checkpoint import Checkpoints
from ssl_guard.runtime.files import write_json
from ssl_guard.runtime.metrics import merge
from ssl_guard.runtime.writer import Writer

# Metrics on the progress bar and on the line of an evaluation.
SHOWN = {
    "loss/supervised": "sup",
    "loss/unlabelled": "unlab",
    "loss/mlm": "mlm",
    "pseudo/mask_rate": "masked",
    "time/steps_per_second": "steps/s",
    "dev/raw/f1": "dev F1",
    "dev/raw/auprc": "AUPRC",
    "dev/ema/f1": "ema dev F1",
    "dev/ema/auprc": "AUPRC",
    "held_out/loss": "held-out loss",
}


@dataclasses.dataclass
class Window:
    """Totals since the last row of metrics. Checkpoints keep them, so a run can stop at any step.

    pending: metrics of each step
    tokens, computed: tokens of this process, without and with padding
    skipped: number of consecutive skipped steps up to the last row
    """

    pending: list[dict] = dataclasses.field(default_factory=list)
    tokens: int = 0
    computed: int = 0
    skipped: int = 0

    def as_json(self) -> dict:
        """Converts to JSON values; Window(**values) restores the same bits."""
        pending = [
            {name: [np.asarray(x).tolist() for x in pair] for name, pair in part.items()}
            for part in jax.device_get(self.pending)
        ]
        return vars(self) | {"pending": pending}


class Plan(NamedTuple):
    """The keys of config.train that the loop reads."""

    steps: int
    eval_every_steps: int
    log_every_steps: int
    max_nonfinite_steps: int
    tensorboard: bool


class Compiled(NamedTuple):
    """A compiled step and the state that it updates.

    template: jax.ShapeDtypeStruct of every array of the state, with its sharding
    step_fn(state, batch) -> (state, metrics as (sum, weight) pairs)
    new_state() -> the state before the first step
    """

    template: Any
    step_fn: Callable
    new_state: Callable[[], Any]


def compile_step(
    step_fn: Callable, init: Callable, params: Any, mesh: jax.sharding.Mesh, *, shard_pool=False
) -> Compiled:
    """Places the state on the mesh and compiles the step.

    step_fn(state, batch) -> (state, metrics); init(params) -> the state before the first step.
    """
    template = sharding.shard_template(jax.eval_shape(init, params), mesh, shard_pool=shard_pool)
    places = sharding.shardings(template)
    step = jax.jit(
        step_fn,
        in_shardings=(places, sharding.split_rows(mesh)),
        out_shardings=(places, sharding.replicated(mesh)),
        donate_argnums=0,
    )
    new_state = jax.jit(init, out_shardings=places)
    return Compiled(template, step, lambda: new_state(jax.device_get(params)))


def fit(
    compiled: Compiled,
    batches: Any,
    evaluate: Callable[[Any, int, dict], tuple[dict, dict, float]],
    monitor: Callable[[Any, list[dict]], tuple[Any, dict]] = lambda state, rows: (state, {}),
    *,
    schedule: Callable[[int], Any],
    records: tuple,
    mesh: jax.sharding.Mesh,
    plan: Plan,
    name: str,
    files: Path,
    checkpoints: Checkpoints,
) -> tuple[int, Any, dict]:
    """Trains to the last step and returns (step, state, meta) of the best checkpoint.

    batches: of pipeline.train_batches
    evaluate(state, step, row) -> (metrics to add to the row, meta of the checkpoint, selection
        score, larger is better)
    monitor(state, rows so far) -> (state, metrics to add to the last row)
    schedule(updates) -> learning rate
    records: the labelled rows, and the pool or None, to name rows by id
    name: shown on the progress bar

    A signal is noticed before a step and during an evaluation. The state is then saved together
    with the open window of metrics, and Preempted is raised. Raises BadInput after
    plan.max_nonfinite_steps non-finite steps in a row.
    """
    # Resume order: 1. state, 2. position of the data, 3. the open window, 4. rows of metrics.
    template, step_fn, new_state = compiled
    batches, window = iter(batches), Window()
    resumed = checkpoints.resume(template)
    if resumed is None:
        state = new_state()
    else:
        state, position, meta = resumed
        batches.set_state(position)
        window = Window(**meta["progress"])
    start = saved = int(state.step)
    kept = plan.max_nonfinite_steps + plan.log_every_steps
    recent: collections.deque[tuple] = collections.deque(maxlen=kept)
    logged = since = time.monotonic()

    def save(step, meta, selection):
        meta = meta | {"progress": window.as_json()}
        data = batches.get_state()
        checkpoints.save(step, state, data=data, meta=meta, selection=selection)

    with (
        Writer(
            files, resume_step=start - len(window.pending), tensorboard=plan.tensorboard
        ) as writer,
        tqdm(
            total=plan.steps,
            initial=start,
            desc=name,
            disable=not sys.stderr.isatty(),
            leave=False,
        ) as bar,
    ):
        try:
            # `step` updates are done. A full window is logged first: if a signal interrupted its
            # evaluation, the resumed run starts with it.
            for step in range(start, plan.steps + 1):
                evaluates = step % plan.eval_every_steps == 0 or step == plan.steps
                logs = evaluates or step % plan.log_every_steps == 0
                if logs and window.pending:
                    pending = jax.device_get(window.pending)
                    skipped = _skipped(pending, window.skipped, plan.max_nonfinite_steps)
                    if skipped[-1] == plan.max_nonfinite_steps:
                        last = step - len(pending) + len(skipped)
                        raise _diverged(files, records, last, skipped[-1], recent)
                    now = time.monotonic()
                    row = merge(pending)
                    tokens, computed = sharding.total(mesh, window.tokens, window.computed)
                    row |= {
                        "optim/lr": float(schedule(step - 1)),
                        **_spike(row, writer.rows),
                        "time/seconds": now - logged,  # includes the last evaluation and save
                        "time/steps_per_second": len(pending) / (now - since),
                        "time/tokens_per_second": tokens / (now - since),
                        "data/padding_share": 1 - tokens / computed,
                    }
                    bar.set_postfix_str(_short(row))
                    if evaluates:
                        found, meta, selection = evaluate(state, step, row)
                        row |= found
                        tqdm.write(f"step {step}/{plan.steps}  {_short(row)}", file=sys.stderr)
                    state, found = monitor(state, [*writer.rows, {"step": step, **row}])
                    writer.write(step, row | found)
                    window = Window(skipped=skipped[-1])
                    if evaluates:
                        save(step, meta, selection)
                        saved = step
                    logged, since = now, time.monotonic()

                if step < plan.steps:
                    preemption.check(step)
                    batch = next(batches)
                    recent.append((step + 1, batch["labelled"]["index"], batch.get("index")))
                    tokens, computed = pipeline.token_counts(batch)
                    batch = sharding.put_batch(batch, mesh)
                    with jax.transfer_guard("disallow"):
                        state, metrics = step_fn(state, batch)
                    preemption.hold()
                    window.pending.append(metrics)
                    window.tokens += tokens
                    window.computed += computed
                    bar.update()
        except preemption.Preempted:
            if step > saved:
                save(step, {}, None)
            checkpoints.wait()
            raise
    checkpoints.wait()
    preemption.release()
    best = checkpoints.best
    assert best is not None  # the last step has been evaluated and saved
    state, _, meta = checkpoints.restore(best, template)
    return best, state, meta


def _skipped(pending: list[dict], before: int, limit: int) -> list[int]:
    """Counts consecutive skipped steps after each step of a window; stops at `limit`."""
    counts = []
    for part in pending:
        before = before + 1 if part["skipped"][0] else 0
        counts.append(before)
        if before == limit:
            break
    return counts


def _spike(row: dict, rows: list[dict]) -> dict:
    """Returns {"loss/spike": loss / median loss of the last 20 rows}; 1 for the first row, {} if
    all steps of the row were skipped."""
    if "loss/total" not in row:
        return {}
    before = [r["loss/total"] for r in rows[-20:] if "loss/total" in r] or [row["loss/total"]]
    return {"loss/spike": row["loss/total"] / float(np.median(before))}


def _diverged(files: Path, records: tuple, last: int, count: int, recent) -> BadInput:
    """Writes the row ids of the `count` skipped steps up to `last` to skipped.json.

    recent: (step, positions of its labelled rows, positions in the pool or None) of recent batches.
    """

    def ids(records, positions):
        return [] if positions is None else [row["id"] for row in records.gather(positions)]

    labelled, pool = records
    rows = {
        step: ids(labelled, mine) + ids(pool, others)
        for step, mine, others in recent
        if last - count < step <= last
    }
    write_json(files / "skipped.json", rows)
    first: list[str] = next(iter(rows.values()), [])
    return BadInput(
        f"the loss or its gradient is not a number in steps {last - count + 1} to {last}: lower "
        f"config.optim.lr, or check the rows of these batches ({', '.join(first)} in the first, "
        f"all in {files}/skipped.json); they did not change the last checkpoint."
    )


def _short(row: dict) -> str:
    return "  ".join(f"{short} {row[name]:.3f}" for name, short in SHOWN.items() if name in row)
