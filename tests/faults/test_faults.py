"""The short form of the kill matrix, and a run that a signal stops.

`make faults` aims at every phase and sends every signal.
"""

import os
import re
import signal

import pytest

from tests.faults import kill_matrix
from tests.faults.kill_matrix import PHASES, fingerprint, finish, start

FAULTS = "FAULTS" in os.environ
AIMS = PHASES if FAULTS else ("step", "save", "evaluation", "restore")
SIGNALS = [("step", signal.SIGINT)]
if FAULTS:
    SIGNALS += [("first compile", signal.SIGTERM), ("evaluation", signal.SIGTERM)]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """The folder of the inputs and the undisturbed run, and one trial for each phase."""
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", "")  # one device, of the processes that are started first here
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
        record = folder / "trials.jsonl"
        yield folder, kill_matrix.matrix(folder, len(AIMS), record, AIMS)


def test_every_killed_run_ends_bit_equal(matrix):
    _, trials = matrix
    assert all(trial["different"] == [] for trial in trials)
    assert sum(len(trial["killed in"]) for trial in trials) >= len(AIMS) // 2
    assert all(trial["bytes compared"] > 50_000 for trial in trials)


def test_a_difference_is_seen(matrix, tmp_path):
    """The comparison above is no stronger than this: one bit of one file, one row, one array."""
    folder, _ = matrix
    expected = fingerprint(folder / "reference")
    fields = {tuple(re.findall(r"\w+", name)[:2]) for name in expected}
    for field in ("params", "ema_params", "opt_state", "algo_state", "rng", "watch"):
        assert ("state", field) in fields
    assert {"noted", "report", "metrics 0", "predictions.jsonl"} <= expected.keys()
    for name in expected:
        changed = expected | {name: expected[name] + b"x"}
        assert kill_matrix.differences(changed, expected) == [name]


def prepare(matrix, folder, *, cold=False):
    """A folder with the data, and unless cold the compiled programs, of the reference run."""
    source, _ = matrix
    for name in ("data",) if cold else ("data", "cache"):
        kill_matrix.shutil.copytree(source / "reference" / name, folder / name)
    folder.mkdir(exist_ok=True)
    return source / "inputs", source / "reference"


@pytest.mark.parametrize("phase, number", SIGNALS)
def test_a_signal_ends_the_run_with_a_code_of_its_own(matrix, tmp_path, phase, number):
    """With a checkpoint if a step has been done, at once if none has, and resumes bit for bit."""
    inputs, reference = prepare(matrix, tmp_path, cold=phase == "first compile")
    process = start(inputs, tmp_path)
    for _, now in kill_matrix.watch(tmp_path, process):
        if now == phase:
            os.kill(process.pid, number)
            break
    process.join()
    assert process.exitcode == 128 + number
    said = (tmp_path / "log").read_text()
    name = signal.Signals(number).name
    assert f"ssl_guard: stopped by {name}: run the same command to resume.\n" in said
    assert "Traceback" not in said
    saved = list((tmp_path / "run" / "checkpoints").glob("[0-9]*/manifest.json"))
    assert len(saved) == (phase != "first compile")
    finish(inputs, tmp_path)
    assert kill_matrix.differences(fingerprint(tmp_path), fingerprint(reference)) == []
