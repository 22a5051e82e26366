"""The list of commands and what each prints before it reads any data."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_guard.__main__ import COMMANDS
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import calibrators
from ssl_guard.runtime import cli

HEAVY = {"jax", "flax", "orbax", "tensorflow_datasets", "transformers", "sklearn", "matplotlib"}


def run(*arguments, module="ssl_guard", **how):
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **how)


def test_no_command_lists_all_with_a_line_each():
    done = run()
    assert done.returncode == 0 and not done.stderr
    lines = done.stdout.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(COMMANDS)
    assert all(len(line) < 100 for line in lines)


def test_an_unknown_command_names_the_nearest():
    done = run("calibrat")
    assert done.returncode == 2 and "did you mean calibrate?" in done.stderr


def test_every_file_of_the_room_is_a_command():
    files = {path.stem for path in Path("ssl_guard/commands").glob("*.py")} - {"__init__"}
    modules = {module.rpartition(".")[2] for module, _ in COMMANDS.values()}
    assert modules == files | {"main"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_starts_with_an_example_and_imports_no_heavy_library(name):
    code = (
        "import sys, ssl_guard.__main__ as m\n"
        f"sys.argv = ['ssl_guard', {name!r}, '--help']\n"
        "try: m.main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"found = {HEAVY} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    purpose, _, example, *_ = done.stdout.splitlines()
    assert purpose.endswith(".") and example.startswith("    python -m ssl_guard")
    assert "\n  --" in done.stdout and "--alsologtostderr" not in done.stdout


def test_help_of_training_shows_how_to_override_the_config():
    text = run("--help", module="ssl_guard.main").stdout
    assert "--config.train.steps=" in text.split("Flags:")[0]
    assert text == run("train", "--help").stdout


@pytest.mark.parametrize("arguments", [[], ["evaluate", "--help"], ["data", "list", "--nostatus"]])
def test_a_closed_pipe_ends_quietly(arguments):
    command = [sys.executable, "-m", "ssl_guard", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_mlm_takes_its_own_config():
    done = run("mlm", "--config=configs/uda.py", "--workdir=x")
    assert done.returncode == 2 and "mlm takes configs/mlm.py" in done.stderr


def test_a_scorer_or_profile_that_cannot_be_is_refused_before_scoring():
    done = run("evaluate", "--workdir=x", "--corpora=test", "--scorers=foo")
    assert done.returncode == 2 and "neither hf:FOLDER nor moderation:URL" in done.stderr
    done = run("evaluate", "--workdir=x", "--corpora=test", "--profile=strict")
    assert done.returncode == 2 and "--profile selects thresholds of a --policy" in done.stderr


STUDENT = "--config=configs/self_training.py"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["teach", "--to=x", "--teachers=y"], "--config is missing"),
        (["teach", STUDENT, "--teachers=y"], "--to is missing"),
        (["teach", STUDENT, "--to=x"], "no teacher is given"),
        (["teach", STUDENT, "--to=x", "--config.teach.share=2"], "in (0, 1]"),
        (["teach", STUDENT, "--to=x", "--config.teach.neighbors=2"], "config.teach.neighbours?"),
        (["self_train", "--workdir=x"], "--config is missing"),
        (["self_train", STUDENT], "--workdir is missing"),
        (["self_train", "--config=configs/uda.py", "--workdir=x"], "use configs/self_training.py"),
    ],
)
def test_teaching_without_what_it_needs(arguments, words):
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["train", "evaluate", "report", "data"])
def test_a_word_that_is_no_flag_is_refused(name):
    done = run(name, "config.train.steps=1")
    assert done.returncode == 2 and "write --config.train.steps=1" in done.stderr


@pytest.mark.parametrize(
    "word, meant",
    [
        ("config.train.steps=1", "--config.train.steps=1"),
        ("\u2014config.train.steps=1", "--config.train.steps=1"),
        ("\u2013verbosity=1", "--verbosity=1"),
        ("verbosity=1", "--verbosity=1"),
    ],
)
def test_a_flag_without_two_dashes_is_known(word, meant):
    assert cli._meant_as_flag(word) and f"write {meant}." in cli._stray(word)


def test_words_that_are_no_flags(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.a=1").mkdir()
    for word in ("runs/uda", "runs/a=b", "config.a=1", "rows.csv?label=a", "verbosity"):
        assert not cli._meant_as_flag(word), word


def test_dashes_in_the_name_of_a_flag():
    for given, read in {
        "--target-fpr=0.1-0": "--target_fpr=0.1-0",
        "--config.optim.weight-decay=1": "--config.optim.weight_decay=1",
        "--dry-run": "--dry_run",
        "-x-y": "-x-y",
        "runs/my-run": "runs/my-run",
    }.items():
        assert cli._underscored(given) == read


@pytest.mark.parametrize(
    "given, near",
    [
        ("configs/udaa.py", "configs/uda.py"),
        ("configs/uda.yp:smoke", "configs/uda.py"),
        ("uda", "configs/uda.py"),
        ("cfg/fixmach.py", "configs/fixmatch.py"),
        ("configs/augment/edda.py", "configs/augment/eda.py"),
    ],
)
def test_a_config_file_that_is_not_there_names_the_nearest(given, near, monkeypatch):
    for words in ([f"--config={given}"], ["--config", given]):
        monkeypatch.setattr(sys, "argv", ["ssl_guard.main", *words])
        assert f"did you mean {near}?" in cli._unreadable("config", FileNotFoundError("gone"))
    monkeypatch.setattr(sys, "argv", ["ssl_guard.main", "--config=qqqqq.py"])
    assert cli._unreadable("config", FileNotFoundError("gone")).endswith("a file of configs/.")


def test_a_name_given_twice():
    assert cli.pairs("columns", ["label=a", "id=b"]) == {"label": "a", "id": "b"}
    with pytest.raises(BadInput, match="--columns gives a name twice"):
        cli.pairs("columns", ["label=a", "label=b"])


FINISHED = """
import os, signal, sys, time
from ssl_guard.runtime import preemption
preemption.listen()
if sys.argv[1] == "finished":
    preemption.finish()
os.kill(os.getpid(), signal.SIGINT)
time.sleep(1)
"""


@pytest.mark.parametrize("state, code", [("finished", 0), ("running", 130)])
def test_a_signal_after_the_end_does_not_make_a_run_a_stopped_one(state, code):
    done = subprocess.run([sys.executable, "-c", FINISHED, state], capture_output=True, timeout=120)
    assert done.returncode == code and (b"stopped by SIGINT" in done.stderr) == (code == 130)


def test_the_installed_script_is_the_same_program():
    tree = ast.parse(Path("setup.py").read_text())
    keywords = {k.arg: k.value for node in ast.walk(tree) if isinstance(node, ast.Call)
                for k in node.keywords}  # fmt: skip
    (script,) = ast.literal_eval(keywords["entry_points"])["console_scripts"]
    name, target = script.split(" = ")
    module, function = target.split(":")
    assert name == "ssl-guard"
    assert getattr(importlib.import_module(module), function).__module__ == "ssl_guard.__main__"


def test_calibrators_of_the_flag_are_those_of_the_library():
    from ssl_guard.commands import calibrate

    assert list(calibrate.CALIBRATORS) == list(calibrators.FITS)


@pytest.mark.parametrize(
    "given, config",
    [
        (["--config=configs/uda.py", "--workdir=x"], ["--config=configs/uda.py"]),
        (["--config", "configs/uda.py", "--config.seed=1"],
         ["--config=configs/uda.py", "--config.seed=1"]),
        ([], ["--config=CONFIG"]),
    ],
)  # fmt: skip
def test_the_command_that_repairs_keeps_the_config(given, config, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ssl_guard.main", *given])
    assert cli.again("prepare") == " ".join(["python -m ssl_guard prepare", *config])
