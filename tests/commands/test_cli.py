"""The command line as a user meets it: exit codes and one-sentence errors."""

import subprocess
import sys

import pytest


def run(*arguments, module="ssl_guard.main"):
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--config=configs/uda.py", "--workdir=x", "--config.uda.temprature=1"],
         "did you mean config.uda.temperature?"),
        (["--config=configs/uda.py", "--workdir=x", "--config.optm.lr=1"],
         "did you mean config.optim.lr?"),
        (["--config", "configs/uda.py", "--workdir=x", "--config.lr=1"],
         "did you mean config.optim.lr?"),
        (["--config=configs/uda.py:smok", "--workdir=x"], "smoke"),
        (["--config=configs/udaa.py", "--workdir=x"], "configs/udaa.py"),
        (["--config=configs/uda.py"], "--workdir is missing"),
        (["--workdir=x"], "--config is missing"),
        (["--config=configs/uda.py", "--workdir=x", "--config.optim.lr=high"], "high"),
    ],
)  # fmt: skip
def test_bad_arguments_end_in_one_sentence(arguments, words):
    done = run(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_report_usage():
    done = run("report", module="ssl_guard")
    assert done.returncode == 2 and "usage" in done.stderr
