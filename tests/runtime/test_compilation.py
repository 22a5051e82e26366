"""The compilation cache after a kill."""

import os
import zlib

import pytest

from ssl_guard.runtime import compilation


@pytest.fixture
def cache(tmp_path):
    """A folder with a whole program, one cut off, and an empty one."""
    data = zlib.compress(os.urandom(4000))
    for name, content in {"whole": data, "cut": data[:2000], "empty": b""}.items():
        (tmp_path / f"{name}-cache").write_bytes(content)
    return tmp_path


def programs(cache):
    return sorted(path.name for path in cache.glob("*-cache"))


def test_programs_that_a_kill_cut_off_are_deleted(cache, monkeypatch):
    monkeypatch.setattr(compilation, "_unpacker", lambda: zlib.decompress)
    compilation.drop_half_written(cache)
    assert programs(cache) == ["whole-cache"]


def test_only_younger_programs_are_unpacked(cache, monkeypatch):
    monkeypatch.setattr(compilation, "_unpacker", lambda: zlib.decompress)
    compilation.drop_half_written(cache)
    last = (cache / "looked").stat().st_mtime_ns
    for name, seconds in {"older-cache": -5, "younger-cache": 5}.items():
        (cache / name).write_bytes(b"half")
        os.utime(cache / name, ns=(0, last + seconds * 10**9))
    compilation.drop_half_written(cache)
    assert programs(cache) == ["older-cache", "whole-cache"]


def test_what_jax_writes_can_be_unpacked():
    from jax._src import compilation_cache

    data = compilation_cache.compress_executable(b"a program")
    assert compilation._unpacker()(data) == b"a program"
