"""Kills real runs at random instants of every phase, resumes them, and compares bit for bit.

    python -m tests.faults.kill_matrix --trials=200 --record=experiments/faults/trials.jsonl

A trial starts `ssl_guard.main` in a process of its own, sends it SIGKILL a random time after the
begin of a phase, starts it again (and may kill it again), and lets the last start run to its end.
What is on the disk then must be that of a run that nobody disturbed: parameters, averages,
optimiser, the method's state, keys, position of the data, metrics.jsonl, report, predictions, split
and shards. The phase of a kill is read from what the dead process has left on the disk. Processes
are forked from one that has imported the packages. A record that is there is continued.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from ssl_guard.runtime.files import write_json

STEPS, EVERY = 6, 3  # an evaluation, and with it a save, at each third step
PHASES = (
    "preparation",
    "augmentation",
    "first compile",
    "step",
    "save",
    "evaluation",
    "restore",
    "report",
)
IMPORTED = ["ssl_guard.main", "transformers.models.auto.tokenization_auto"]  # before the forks
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] " + " ".join(f"w{i}" for i in range(60))


def write_inputs(folder: Path) -> None:
    """A tiny encoder with random weights, and rows of words."""
    import jax
    from safetensors.numpy import save_file

    from ssl_guard import models
    from ssl_guard.models import convert

    encoder = folder / "encoder"
    encoder.mkdir(parents=True)
    config = {
        "model_type": "bert",
        "vocab_size": len(WORDS.split()),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 32,
        "type_vocab_size": 2,
    }
    (encoder / "config.json").write_text(json.dumps(config))
    (encoder / "vocab.txt").write_text(WORDS.replace(" ", "\n"))
    model = models.build(encoder)
    token = np.zeros((1, 1), np.int32)
    shapes = jax.eval_shape(model.encoder.init, jax.random.key(0), token, token, token)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), shapes)
    save_file(convert.to_hf(params, model.config.hf_names), encoder / "model.safetensors")
    with (folder / "rows.jsonl").open("w") as file:
        for i in range(220):
            prompt, response = (" ".join(rng.choice(WORDS.split()[5:], 10)) for _ in range(2))
            row = {"id": f"r{i}", "prompt": prompt, "response": response}
            file.write(json.dumps(row | ({"label": ["safe", "unsafe"][i % 2]} if i < 160 else {})))
            file.write("\n")


def arguments(inputs: Path, folder: Path) -> list[str]:
    """The command line of a run in `folder`."""
    values = {
        "data.dir": folder / "data",
        "data.corpus": inputs / "rows.jsonl",
        "data.labelled": 16,
        "data.dev": 64,
        "data.test": 32,
        "data.calibration": 16,
        "data.max_length": 32,
        "data.buckets": "(32,)",
        "model.name": inputs / "encoder",
        "flexmatch.threshold": 0.55,
        "optim.lr": 0.01,
        "optim.freeze": "()",
        "optim.ema_decay": 0.9,
        "train.steps": STEPS,
        "train.eval_every_steps": EVERY,
        "eval.batch": 8,
        "eval.bootstrap_samples": 20,
        "compilation_cache": folder / "cache",
    }
    flags = [f"--config.{key}={value}" for key, value in values.items()]
    config = ["--config=configs/flexmatch.py:smoke", f"--workdir={folder / 'run'}"]
    return ["ssl_guard.main", *config, *flags]


def command(argv: list[str], log: Path) -> None:
    """The body of a process: the command line program, its output in a file."""
    from ssl_guard import main
    from ssl_guard.runtime import cli

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = argv
    cli.run(main.main)


def start(inputs: Path, folder: Path):
    """A process of the run in `folder`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=command, args=(arguments(inputs, folder), folder / "log"))
    process.start()
    return process


def phase_of(folder: Path, pid: int) -> str:
    """The phase of the process, by what is on the disk; "start" between two phases."""
    run, data = folder / "run", folder / "data"
    if (run / "report.json").exists():
        return "done"
    owner, metrics = run / "owner.json", run / "metrics.jsonl"
    if f'"pid": {pid},' not in _read(owner):
        if any(data.glob("shards/*/unlabelled-tfidf")):
            return "start"
        sides = list(data.glob("shards/*/calibration"))
        return "augmentation" if sides else "preparation"
    steps = list((run / "checkpoints").glob("[0-9]*"))
    whole = [path for path in steps if (path / "manifest.json").exists()]
    if not metrics.exists() or metrics.stat().st_mtime_ns < owner.stat().st_mtime_ns:
        return "restore" if whole else "start"
    if len(whole) < len(steps):
        return "save"
    rows = _read(metrics).count("\n")
    if rows == 0:
        return "first compile"
    if rows == STEPS and f"{STEPS}" in {path.name for path in whole}:
        return "report"
    return "evaluation" if (rows + 1) % EVERY == 0 else "step"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def watch(folder: Path, process, *, until: float = 300.0):
    """(time, phase) as the phases of a living process change."""
    phase, began = None, time.monotonic()
    while process.is_alive():
        try:
            now = phase_of(folder, process.pid)
        except FileNotFoundError:  # it was renamed between two looks
            continue
        if now != phase:
            phase = now
            yield time.monotonic(), phase
        if time.monotonic() - began > until:
            raise TimeoutError(f"{folder}: no end after {until} s")
        time.sleep(0.002)


def finish(inputs: Path, folder: Path) -> dict[str, list[float]]:
    """Runs to the end; how long each visit of a phase took, in seconds."""
    process = start(inputs, folder)
    changes = [*watch(folder, process), (time.monotonic(), None)]
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"exit code {process.exitcode}: {_read(folder / 'log')[-3000:]}")
    visits: dict[str, list[float]] = {}
    for (began, phase), (ended, _) in zip(changes, changes[1:], strict=False):
        visits.setdefault(phase, []).append(ended - began)
    return visits


def strike(
    inputs: Path, folder: Path, phase: str, visit: int, delay: float, number: int = signal.SIGKILL
) -> str | None:
    """Starts the run and sends a signal `delay` seconds into the given visit of a phase.

    Returns the phase that it came in; None if the run ended before.
    """
    process = start(inputs, folder)
    for _, now in watch(folder, process):
        if now == phase:
            if visit == 0:
                time.sleep(delay)
                break
            visit -= 1
    struck = phase_of(folder, process.pid)
    (process.kill if number == signal.SIGKILL else process.terminate)()
    process.join()
    if number == signal.SIGKILL:  # the dead do not go on
        struck = phase_of(folder, process.pid)
    elif struck != "done" and process.exitcode not in (128 + number, 0):
        raise RuntimeError(f"exit code {process.exitcode}: {_read(folder / 'log')[-3000:]}")
    return None if struck == "done" else struck


def trial(inputs: Path, reference: Path, folder: Path, phase: str, durations: dict, rng) -> dict:
    """One trial that aims at a phase: {"killed in": phases, "terminated in": phases}."""
    folder.mkdir()
    if phase not in ("preparation", "augmentation"):
        shutil.copytree(reference / "data", folder / "data")
    if phase != "first compile":
        shutil.copytree(reference / "cache", folder / "cache")

    def aim(phase: str, number: int) -> str | None:
        visits = durations[phase]
        visit = int(rng.integers(len(visits)))
        struck = strike(inputs, folder, phase, visit, rng.uniform(0, visits[visit]), number)
        if struck != phase:  # this machine has become faster than its reference run
            visits[visit] /= 2
        return struck

    killed, terminated = [], []
    if phase == "restore":  # which takes a checkpoint
        killed.append(strike(inputs, folder, "step", len(durations["step"]) - 1, 0.0))
    killed.append(aim(phase, signal.SIGKILL))
    while rng.random() < 0.4:
        again = str(rng.choice(["step", "evaluation", "save", "restore", "report"]))
        if rng.random() < 0.5:
            killed.append(aim(again, signal.SIGKILL))
        else:
            terminated.append(aim(again, signal.SIGTERM))
    finish(inputs, folder)
    return {
        "killed in": [phase for phase in killed if phase],
        "terminated in": [phase for phase in terminated if phase],
    }


def fingerprint(folder: Path) -> dict[str, bytes]:
    """Everything that must be the same, by name, as bytes."""
    import jax
    from orbax.checkpoint import v1 as ocp

    run, newest = folder / "run", folder / "run" / "checkpoints" / str(STEPS)
    with warnings.catch_warnings(action="ignore"):  # it prefers to be told the shardings
        tree = ocp.load_checkpointables(newest, {"state": None})["state"]
        noted = ocp.checkpointables_metadata(newest).custom_metadata
    found = {"noted": json.dumps(noted, sort_keys=True).encode()}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        found[f"state{jax.tree_util.keystr(path)}"] = np.asarray(leaf).tobytes()
    report = json.loads((run / "report.json").read_text())
    kept = {name: value for name, value in report.items() if name not in ("training", "provenance")}
    found["report"] = json.dumps(kept, sort_keys=True).encode()
    for number, line in enumerate((run / "metrics.jsonl").read_text().splitlines()):
        row = {k: v for k, v in json.loads(line).items() if not k.startswith("time/")}
        found[f"metrics {number}"] = json.dumps(row, sort_keys=True).encode()
    for name in ("predictions.jsonl", "calibration.jsonl"):
        found[name] = (run / name).read_bytes()
    for path in sorted((folder / "data").rglob("*.tfrecord*")):
        # A folder with a dot is what a killed writer has left of a view; nothing reads it.
        if path.suffix != ".json" and not path.parent.name.startswith("."):
            found[str(path.relative_to(folder))] = path.read_bytes()
    for path in (folder / "data" / "splits").iterdir():
        found[path.name] = path.read_bytes()
    return found


def differences(ours: dict[str, bytes], theirs: dict[str, bytes]) -> list[str]:
    """The names of what is not the same."""
    return sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )


def undisturbed(inputs: Path, reference: Path, warm: Path) -> dict[str, list[float]]:
    """Makes the inputs and the run to compare with; how long each visit of a phase takes, with
    the compiled programs at hand where a trial has them."""
    write_inputs(inputs)
    reference.mkdir()
    durations = finish(inputs, reference)
    for name in ("data", "cache"):
        shutil.copytree(reference / name, warm / name)
    again = finish(inputs, warm)
    (warm / "run" / "report.json").unlink()
    resumed = finish(inputs, warm)
    durations |= {phase: again[phase] for phase in ("step", "evaluation", "save", "report")}
    return durations | {"restore": resumed["restore"]}


def matrix(folder: Path, trials: int, record: Path, aims: tuple[str, ...] = PHASES) -> list[dict]:
    """Runs trials until the record has so many, and returns them all.

    Each aims at the phase that has had the fewest kills so far.
    """
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    inputs, reference = folder / "inputs", folder / "reference"
    if not (folder / "durations.json").exists():
        write_json(folder / "durations.json", undisturbed(inputs, reference, folder / "warm"))
    durations = json.loads((folder / "durations.json").read_text())
    expected = fingerprint(reference)
    done = [json.loads(line) for line in _read(record).splitlines()]
    for number in range(len(done), trials):
        rng = np.random.default_rng(number)
        kills = Counter(phase for found in done for phase in found["killed in"])
        phase = min(aims, key=lambda name: kills[name])
        place = folder / f"trial-{number}-{os.getpid()}"
        began = time.monotonic()
        struck = trial(inputs, reference, place, phase, durations, rng)
        ours = fingerprint(place)
        found = {
            "aim": phase,
            **struck,
            "different": differences(ours, expected),
            "bytes compared": sum(map(len, ours.values())),
            "seconds": round(time.monotonic() - began, 1),
        }
        done.append(found)
        with record.open("a") as file:
            file.write(json.dumps(found) + "\n")
        if not found["different"]:
            shutil.rmtree(place)
    return done


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--record", type=Path, default=Path("experiments/faults/trials.jsonl"))
    parser.add_argument(
        "--folder", type=Path, required=True, help="of the runs; empty, or of the same"
    )
    given = parser.parse_args()
    results = matrix(given.folder, given.trials, given.record)
    print(Counter(phase for found in results for phase in found["killed in"]))
    sys.exit(any(found["different"] for found in results))
