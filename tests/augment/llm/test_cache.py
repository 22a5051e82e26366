import json
import logging
import subprocess
import sys

import pytest

from ssl_guard.augment.llm import cache as cache_module
from ssl_guard.augment.llm.cache import Attempt, Cache
from ssl_guard.errors import BadInput

ATTEMPTS = [
    Attempt("k1", "ok", "one", prompt_tokens=10, completion_tokens=5, cost=0.5),
    Attempt("k2", "refused", detail="", prompt_tokens=7, completion_tokens=1, cost=0.25),
    Attempt("k3", "failed", detail="HTTP 500"),
    Attempt("k3", "failed", detail="ReadError", prompt_tokens=9, cost=0.125, uncertain=True),
    Attempt("k3", "unreachable", detail="ConnectError"),
    Attempt("k3", "ok", "thrée\n\ud800", prompt_tokens=1, completion_tokens=2, cost=1.0),
]


def filled(path, attempts=ATTEMPTS):
    cache = Cache(path)
    for attempt in attempts:
        cache.append(attempt)
    cache.sync()
    return cache


def test_answers_and_account_survive(tmp_path):
    path = tmp_path / "new folder" / "cache.jsonl"
    cache = filled(path)
    assert cache.answers == {"k1": "one", "k3": "thrée\n\ud800"}
    assert cache.now == cache.ever
    cache.close()
    again = Cache(path)
    assert again.answers == cache.answers
    assert again.ever == cache.ever and again.now == cache_module.Usage()
    ever = again.ever
    assert (ever.requests, ever.answered, ever.prompt_tokens, ever.completion_tokens) == (
        5,
        3,
        18,
        8,
    )
    assert (ever.cost, ever.most_cost, ever.most_tokens) == (1.75, 1.875, 35)
    assert (ever.uncertain_requests, ever.uncertain_tokens, ever.uncertain_cost) == (1, 9, 0.125)
    assert ever.outcomes == {"ok": 2, "refused": 1, "failed": 2, "unreachable": 1}
    assert path.stat().st_mode & 0o077 == 0  # readable by the owner only


def test_torn_at_every_byte_of_the_last_line(tmp_path, caplog):
    whole = tmp_path / "whole"
    filled(whole).close()
    data = whole.read_bytes()
    start = data.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(data)):
        path = tmp_path / f"{cut}"
        path.write_bytes(data[:cut])
        caplog.clear()
        with caplog.at_level(logging.INFO):
            cache = Cache(path)
        assert cache.answers == {"k1": "one"}
        assert path.read_bytes() == data[:start]
        aside = path.with_name(f"{cut}.torn")
        if cut == start:
            assert not aside.exists() and not caplog.records
        else:
            assert aside.read_bytes() == data[start:cut] + b"\n"
            assert len(caplog.records) == 1 and "thr" not in caplog.text
        cache.append(ATTEMPTS[-1])
        cache.close()
        assert path.read_bytes() == data
        again = Cache(path)
        assert again.answers["k3"] == "thrée\n\ud800"
        again.close()


def test_a_damaged_line_is_refused_by_its_number(tmp_path):
    path = tmp_path / "cache.jsonl"
    filled(path).close()
    lines = path.read_bytes().splitlines(keepends=True)
    entry = json.loads(lines[0])
    damaged = [
        lines[0].replace(b"one", b"two"),
        lines[0][:-5] + b"\n",
        b"\n",
        b"\x00\xff\n",
        b"[1, 2]\n",
        b"[" * 100_000 + b"\n",
        json.dumps({**entry, "more": 1}).encode() + b"\n",
    ]
    for number in (1, len(lines)):
        for line in damaged:
            path.write_bytes(b"".join([*lines[: number - 1], line, *lines[number:]]))
            before = path.read_bytes()
            with pytest.raises(BadInput, match=rf"cache.jsonl, line {number} is damaged: restore"):
                Cache(path)
            assert path.read_bytes() == before


def test_an_ok_without_text_and_a_text_without_ok_are_damage(tmp_path):
    for attempt in (Attempt("k", "ok"), Attempt("k", "refused", "text"), Attempt("k", "fine")):
        path = tmp_path / "cache"
        path.unlink(missing_ok=True)
        entry = cache_module.dataclasses.asdict(attempt)
        path.write_text(json.dumps({"crc": cache_module._crc(entry), **entry}) + "\n")
        with pytest.raises(BadInput, match="line 1 is damaged"):
            Cache(path)


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "cache.jsonl"
    cache = filled(path)
    with pytest.raises(BadInput, match="is in use"):
        Cache(path)
    other = "from ssl_guard.augment.llm.cache import Cache; import sys; Cache(sys.argv[1])"
    run = subprocess.run([sys.executable, "-c", other, str(path)], capture_output=True, text=True)
    assert run.returncode == 1 and "is in use" in run.stderr
    assert cache.answers
    cache.close()
    del cache
    dropped = Cache(path)
    del dropped  # releases the lock too
    Cache(path).close()


def test_a_cache_that_cannot_be_opened(tmp_path):
    with pytest.raises(BadInput, match="cannot be opened: Is a directory"):
        Cache(tmp_path)


def test_fsync_is_shared_but_never_later_than_a_second(tmp_path, monkeypatch):
    synced, clock = [], [0.0]
    monkeypatch.setattr(cache_module.os, "fsync", lambda fd: synced.append(clock[0]))
    monkeypatch.setattr(cache_module.time, "monotonic", lambda: clock[0])
    cache = Cache(tmp_path / "cache")
    for _ in range(35):
        clock[0] += 0.125
        cache.append(ATTEMPTS[0])
    assert synced == [1.0, 2.0, 3.0, 4.0]
    cache.sync()
    assert synced[-1] == 4.375
