"""Checks a whole run: it unpickles nothing and writes no secret and no text.

A run of its own process trains on a user's file, is evaluated and reported, with an audit hook
(PEP 578) that sees what no reading of the source can: what the libraries do on the run's behalf.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.tiny import write_encoder

KEY, TEXT = "sk-planted-5d1c", "zyzzyva"  # a secret, and a word of every prompt and response
WATCHED = """
import importlib.util, json, runpy, sys

events = []
package = importlib.util.find_spec("ssl_guard").submodule_search_locations[0]

def hook(event, arguments):
    if event == "pickle.find_class":
        events.append([event, ".".join(map(str, arguments))])
    elif event in ("exec", "compile", "marshal.loads", "os.system"):
        caller = sys._getframe(1).f_code.co_filename
        if caller.startswith(package):
            events.append([event, caller])

sys.addaudithook(hook)
path, command, *sys.argv[2:] = sys.argv[1:]
sys.argv[1:2] = [command]
try:
    runpy.run_module("ssl_guard", run_name="__main__", alter_sys=True)
finally:
    with open(path, "a") as file:
        file.writelines(json.dumps(event) + "\\n" for event in events)
        file.write(json.dumps(["ran", command]) + "\\n")
"""


def run(folder, command, *arguments):
    secrets = {name: KEY for name in ("OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY")}
    return subprocess.run(
        [sys.executable, "-c", WATCHED, str(folder / "events"), command, *arguments],
        env=os.environ | secrets | {"XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of a run and of what it printed, evaluated and reported."""
    folder = tmp_path_factory.mktemp("watched")
    rng = np.random.default_rng(0)
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    rows = [
        {
            "id": f"row-{number}",
            "prompt": f"{TEXT} {' '.join(rng.permutation(words)[:6])} {number}",
            "response": f"{TEXT} {' '.join(rng.permutation(words)[:4])}",
            "label": number % 2,
        }
        for number in range(160)
    ]
    for name, part in (("mine", rows[:120]), ("exam", rows[120:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    workdir = f"--workdir={folder / 'run'}"
    done = [
        run(
            folder,
            "train",
            "--config=configs/uda.py:smoke",
            workdir,
            f"--config.data.dir={folder / 'data'}",
            f"--config.data.corpus={folder / 'mine.jsonl'}",
            "--config.data.calibration=20",
            f"--config.model.name={write_encoder(folder / 'encoder')}",
            f"--config.compilation_cache={os.path.abspath('.jax_cache/tests')}",
        ),
        run(folder, "evaluate", workdir, f"--corpora={folder / 'exam.jsonl'}"),
        run(folder, "report", str(folder / "run"), f"--out={folder / 'report'}"),
    ]
    assert [process.returncode for process in done] == [0, 0, 0], done
    return folder, "".join(process.stdout + process.stderr for process in done)


def test_nothing_is_unpickled_and_no_string_is_executed(runs):
    folder, _ = runs
    events = [json.loads(line) for line in (folder / "events").read_text().splitlines()]
    assert [name for event, name in events if event == "ran"] == ["train", "evaluate", "report"]
    assert not [event for event in events if event[0] != "ran"]


def test_the_hook_sees_an_unpickled_object(tmp_path):
    """The guard of the test above."""
    script = WATCHED.split("path, command")[0] + (
        "import pickle; pickle.loads(pickle.dumps(json.JSONDecoder)); print(len(events))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "1\n"


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_no_secret_and_no_text_is_left_behind(runs):
    """Prepared data hold the texts, of course; no other file does, and nothing has the key."""
    folder, printed = runs
    assert KEY not in printed and TEXT not in printed
    assert len(files(folder / "run")) > 10 and len(files(folder / "report")) > 2
    for path in files(folder):
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        if path.is_relative_to(folder / "run") or path.is_relative_to(folder / "report"):
            assert TEXT.encode() not in content, path


def test_provenance_names_what_the_run_was_made_from(runs):
    folder, _ = runs
    (start,) = json.loads((folder / "run" / "provenance.json").read_text())["starts"]
    views = {"labelled", "unlabelled", "unlabelled-tfidf", "dev", "test", "calibration"}
    assert start["shards_sha256"].keys() == views
    assert start["step"] == 0 and start["machine"]["devices"] and start["packages"]["jax"]
