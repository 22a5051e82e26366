import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from ssl_guard.augment import ops
from ssl_guard.augment.llm import chat
from ssl_guard.errors import BadInput
from tests.augment.llm.server import Server, answer

RUN = """
import json, sys, numpy as np
from ssl_guard.augment import ops
url, cache = sys.argv[1:]
op = ops.build("llm", (), {"model": "m", "cache": cache, "base_url": url, "concurrency": 4})
texts = [f"text {i}" for i in range(40)]
print(json.dumps(op(texts, [np.random.default_rng(i) for i in range(40)])))
"""


def run(server, cache, **more):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, server.url, str(cache)], stdout=subprocess.PIPE, **more
    )


def test_after_a_kill_only_what_was_in_flight_is_asked_again(tmp_path):
    cache = tmp_path / "cache.jsonl"
    reached = threading.Event()

    def behave(source, n):
        if server.requests >= 17:
            reached.set()
        if reached.is_set() and not killed.is_set():
            killed.wait(10)  # in flight when the process dies
        return 200, answer("re " + source), {}

    killed = threading.Event()
    with Server(behave) as server:
        process = run(server, cache)
        assert reached.wait(30)
        deadline = time.monotonic() + 10
        while server._at_once < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        in_flight = set(server.counts) - kept(cache)
        assert 1 <= len(in_flight) <= 4
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        killed.set()
        answered = kept(cache)
        out, _ = run(server, cache).communicate(timeout=60)
        assert json.loads(out) == [f"re text {i}" for i in range(40)]
        again = {text for text, count in server.counts.items() if count == 2}
        assert again == in_flight and not again & answered
        assert len(server.counts) == 40 and server.requests == 40 + len(in_flight)


def kept(cache):
    if not cache.exists():
        return set()
    lines = cache.read_bytes().splitlines(keepends=True)
    texts = [json.loads(line)["text"] for line in lines if line.endswith(b"\n")]
    return {text.removeprefix("re ") for text in texts}


def test_two_processes_do_not_share_a_cache(tmp_path):
    arguments = {"model": "m", "cache": str(tmp_path / "cache"), "base_url": "http://127.0.0.1:9"}
    op = ops.build("llm", (), arguments)
    with Server() as server:
        process = run(server, tmp_path / "cache", stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1 and b"is in use: wait" in errors
        assert server.requests == 0
    assert op.usage.requests == 0


def test_results_do_not_depend_on_the_batch(tmp_path):
    texts = [f"text {i}" for i in range(9)]

    def rngs(ids):
        return [np.random.default_rng([3, i]) for i in ids]

    def behave(source, n):
        seed = server.seen[-1][1]["seed"]
        return 200, answer(f"re {source} {seed}"), {}

    with Server(behave) as server:
        arguments = {"model": "m", "base_url": server.url, "concurrency": 1}
        op = ops.build("llm", (), arguments | {"cache": str(tmp_path / "a")})
        together = op(texts, rngs(range(9)))
        other = ops.build("llm", (), arguments | {"cache": str(tmp_path / "b")})
        apart = [other([texts[i]], rngs([i]))[0] for i in reversed(range(9))]
    assert together == apart[::-1] and len(set(together)) == 9


def test_what_goes_into_a_manifest(tmp_path):
    op = ops.build(
        "llm",
        (),
        {"model": "m", "revision": "r", "cache": str(tmp_path / "a"), "base_url": "http://h/v1"},
    )
    template = chat.load_template("rewrite_prompt")
    assert json.loads(json.dumps(op.manifest)) == {
        "template": {"name": "rewrite_prompt", "version": 1, "sha256": template.sha256},
        "model": {
            "name": "m",
            "revision": "r",
            "temperature": 0.7,
            "top_p": 0.95,
            "max_tokens": 512,
        },
    }


def test_an_unknown_argument(tmp_path):
    with pytest.raises(BadInput, match="'llm' cannot be used: .*topp"):
        ops.build("llm", (), {"model": "m", "topp": 1, "cache": str(tmp_path / "a")})
    assert not list(tmp_path.iterdir())
