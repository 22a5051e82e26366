"""llama.cpp without the library. The real one is tested in tests/llm."""

import sys
from pathlib import Path

import numpy as np
import pytest

from ssl_guard.augment.llm import local, rewrite
from ssl_guard.errors import BadInput


def test_a_missing_library_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    op = rewrite.llm((), model=str(path), backend="llama_cpp", cache=str(tmp_path / "cache"))
    with pytest.raises(BadInput, match="the backend 'llama_cpp' needs"):
        op(["a"], [np.random.default_rng(0)])


def test_a_file_is_known_by_its_content_wherever_it_lies(tmp_path):
    ops = []
    for folder, content in (("a", b"GGUF 1"), ("b", b"GGUF 1"), ("c", b"GGUF 2")):
        path = tmp_path / folder / "model.gguf"
        path.parent.mkdir()
        path.write_bytes(content)
        cache = str(tmp_path / folder / "cache")
        ops.append(rewrite.llm((), model=str(path), backend="llama_cpp", cache=cache))
    keys = [op.keys(["text"], [np.random.default_rng(0)])[0] for op in ops]
    assert keys[0] == keys[1] != keys[2]


def test_a_model_that_is_not_there(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"")
    for name in ("no-such-wheel", str(tmp_path / "other.gguf"), str(tmp_path / "model.bin")):
        with pytest.raises(BadInput, match="neither a .gguf file nor an installed wheel"):
            local.find_gguf(name)
    with pytest.raises(BadInput, match="neither"):
        local.find_gguf(str(Path(tmp_path)))
