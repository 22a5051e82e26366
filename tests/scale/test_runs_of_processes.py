"""Real processes on the loopback interface: one run, whoever computes it.

CI has two processes; `make scale` also has four.
"""

import json
import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from ssl_guard import models
from ssl_guard.models import convert
from ssl_guard.runtime.files import read_jsonl

TINY = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
MAIN, WORKER = ["-m", "ssl_guard.main"], ["tests/scale/worker.py"]
RTOL = 2e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory, minilm):
    """A tiny model with MiniLM's tokenizer, and a file of harmless rows."""
    folder = tmp_path_factory.mktemp("scale")
    start, model = folder / "start", folder / "model"
    start.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        if (minilm / name).exists():
            (start / name).write_bytes((minilm / name).read_bytes())
    (start / "config.json").write_text(json.dumps(TINY))
    classifier = models.build(start)
    ids = np.zeros((1, 1), np.int32)
    one = {"input_ids": ids, "attention_mask": ids, "token_type_ids": ids, "row": ids[0]}
    params = jax.jit(classifier.init)(jax.random.key(0), one)["encoder"]
    convert.save_pretrained(model, params, classifier.config, start)

    rng = np.random.default_rng(0)
    with (folder / "rows.jsonl").open("w") as file:
        for i, topic in enumerate(rng.permutation(160)):
            bad = int(rng.integers(2))
            row = {
                "prompt": f"Question {topic} about garden {i} and pond {i * 7} please",
                "response": "Never, thanks." if bad else "Of course, with pleasure.",
            }
            file.write(json.dumps(row | ({"label": bad} if i >= 60 else {})) + "\n")
    return folder


def run(folder, name, *, processes, devices, command=MAIN, code=0, keys=None, **mesh):
    """Runs the command in so many processes of so many devices each, until all have ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    changes = {
        "data.dir": folder / "data",
        "data.corpus": folder / "rows.jsonl",
        "model.name": folder / "model",
        "data.labelled": 16,
        "data.dev": 20,
        "data.test": 24,
        "train.steps": 4,
        "train.eval_every_steps": 2,
        "flexmatch.threshold": 0.5,
        "optim.lr": 0.01,
        "optim.freeze": "()",
        "compilation_cache": folder / "cache",
    }
    changes |= (keys or {}) | {f"mesh.{axis}": value for axis, value in mesh.items()}
    arguments = [
        *command,
        "--config=configs/flexmatch.py:smoke",
        f"--workdir={folder / name}",
        *(f"--config.{key}={value}" for key, value in changes.items()),
    ]
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.getcwd(),
        "HF_HUB_OFFLINE": "1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "NPROC": "16",  # XLA's threads: collectives that wait for each other would use up two
    }
    started = []
    for number in range(processes):
        several = [
            f"--coordinator_address={address}",
            f"--num_processes={processes}",
            f"--process_id={number}",
        ]
        line = [sys.executable, *arguments, *(several if processes > 1 else [])]
        with (folder / f"{name}.{number}.log").open("w") as log:
            started.append(subprocess.Popen(line, env=environment, stdout=log, stderr=log))
    codes = [process.wait(timeout=300) for process in started]
    logs = "\n".join((folder / f"{name}.{n}.log").read_text()[-3000:] for n in range(processes))
    assert all((found == 0) == (code == 0) for found in codes), logs
    return folder / name


def final_state(workdir):
    """The newest checkpoint's arrays by name, on one device of this process."""
    newest = max((workdir / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here),
        ocp.checkpointables_metadata(newest).metadata["state"],
    )
    state = ocp.load_checkpointables(newest, {"state": template})["state"]
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    }


def assert_same_run(workdir, expected):
    ours, theirs = final_state(workdir), final_state(expected)
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values, rtol=RTOL, atol=1e-6, err_msg=name)
    for row, other in zip(
        read_jsonl(workdir / "metrics.jsonl"), read_jsonl(expected / "metrics.jsonl"), strict=True
    ):
        assert row.keys() == other.keys()
        for name in row:
            if not name.startswith("time/"):
                np.testing.assert_allclose(
                    row[name], other[name], rtol=1e-4, atol=1e-5, err_msg=name
                )
    reports = [json.loads((path / "report.json").read_text()) for path in (workdir, expected)]
    ours, theirs = (report["test"]["raw"] for report in reports)
    assert ours.keys() == theirs.keys()
    for name, score in theirs.items():
        assert ours[name] == pytest.approx(score, rel=1e-4, abs=1e-5), name


@pytest.fixture(scope="module")
def alone(folder):
    return run(folder, "alone", processes=1, devices=1)


def test_two_processes_end_what_one_began(folder, alone):
    """One process of four devices dies in step 3; two of two devices, with another mesh, go on from
    its checkpoint of step 2."""
    run(folder, "two", processes=1, devices=4, command=[*WORKER, "3"], code=1, fsdp=2, tensor=2)
    run(folder, "two", processes=2, devices=2, data=1, fsdp=4, shard_pool=True)
    assert_same_run(folder / "two", alone)


@pytest.mark.skipif("SCALE" not in os.environ, reason="make scale")
def test_two_processes_fit_the_head_that_one_fits(folder):
    """At a learning rate of 0, the last weights are the first ones."""
    keys = {"model.head_init": "logistic", "optim.lr": 0.0, "train.steps": 2}
    alone = run(folder, "fitted", processes=1, devices=1, keys=keys)
    two = run(folder, "fitted by two", processes=2, devices=2, keys=keys, fsdp=2)
    assert_same_run(two, alone)


@pytest.mark.skipif("SCALE" not in os.environ, reason="make scale")
@pytest.mark.parametrize("began, ended", [(4, 2), (2, 4), (4, 1)])
def test_any_number_of_processes_ends_what_another_began(folder, alone, began, ended):
    name = f"{began}-{ended}"
    meshes = {1: {"fsdp": 2}, 2: {"tensor": 4}, 4: {"fsdp": 2, "shard_pool": True}}
    worker = [*WORKER, "3"]
    run(folder, name, processes=began, devices=2, command=worker, code=1, **meshes[began])
    run(folder, name, processes=ended, devices=2, **meshes[ended])
    assert_same_run(folder / name, alone)
