"""One process at a time on a workdir; the lock of a dead one is free."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ssl_guard import config
from ssl_guard.errors import BadInput
from ssl_guard.runtime import lock
from ssl_guard.train import workdir

HOLDER = """
import sys
from ssl_guard.runtime import lock
with lock.held(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_process_is_refused_and_a_dead_one_holds_nothing(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout.readline() == "held\n"
        said = rf"in use by process {other.pid} on {re.escape(socket.gethostname())} since 20\d\d-"
        with pytest.raises(BadInput, match=said), lock.held(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
    assert (tmp_path / "owner.json").exists()  # it had no time to put it away
    with lock.held(tmp_path):
        owner = json.loads((tmp_path / "owner.json").read_text())
        assert owner["pid"] == os.getpid()
    assert not (tmp_path / "owner.json").exists()


def test_it_is_freed_by_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), lock.held(tmp_path / "new"):
            1 / 0  # noqa: B018


def test_a_run_takes_the_lock(tmp_path):
    prepared = SimpleNamespace(shards_sha256={}, hashes={})
    with (
        lock.held(tmp_path),
        pytest.raises(BadInput, match="in use by process"),
        workdir.opened(tmp_path, config.default(), prepared),
    ):
        pass
    with (
        workdir.opened(tmp_path, config.default(), prepared),
        pytest.raises(BadInput, match="in use by process"),
        lock.held(tmp_path),
    ):
        pass
