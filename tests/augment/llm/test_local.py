"""vLLM needs a GPU: its place is taken by a module with the part of its interface that is used. The
real llama.cpp is tested in tests/llm."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from ssl_guard.augment.llm import local, rewrite
from ssl_guard.errors import BadInput

CONTEXT = 2000  # characters that the stand-in takes


class LLM:
    """vllm.LLM of vLLM 0.11: chat() takes conversations, answers in their order, or raises
    ValueError for all of them if one is too long."""

    made = []

    def __init__(self, model, revision=None):
        self.made.append((model, revision))
        self.batches = []

    def chat(self, messages, sampling_params, use_tqdm):
        assert len(messages) == len(sampling_params) and use_tqdm is False
        self.batches.append(len(messages))
        texts = [conversation[-1]["content"] for conversation in messages]
        if any(len(text) > CONTEXT for text in texts):
            raise ValueError("The decoder prompt is longer than the maximum model length.")
        return [self._output(*pair) for pair in zip(texts, sampling_params, strict=True)]

    def _output(self, text, sampling):
        source = text.splitlines()[-2]
        finish = "length" if source == "long" else "stop"
        completion = types.SimpleNamespace(
            text=f" re {source} {sampling.seed}", finish_reason=finish, token_ids=(1, 2, 3)
        )
        return types.SimpleNamespace(outputs=[completion], prompt_token_ids=[0] * 7)


@pytest.fixture
def vllm(monkeypatch):
    module = types.ModuleType("vllm")
    module.LLM = LLM
    module.SamplingParams = lambda **arguments: types.SimpleNamespace(**arguments)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(LLM, "made", [])


def test_vllm_answers_in_order_and_finds_what_is_too_long(vllm, tmp_path):
    op = rewrite.llm((), model="m", revision="abc", backend="vllm", cache=str(tmp_path / "cache"))
    assert LLM.made == []  # loaded when something is asked
    texts = ["one", "two", "x" * 3000, "long", "five"]
    rngs = lambda: [np.random.default_rng(i) for i in range(5)]  # noqa: E731
    seeds = [int(rng.integers(2**31)) for rng in rngs()]
    expected = [f"re one {seeds[0]}", f"re two {seeds[1]}", None, None, f"re five {seeds[4]}"]
    assert op(texts, rngs()) == expected
    assert LLM.made == [("m", "abc")]
    assert op._backend._engine.batches == [5, 2, 3, 1, 2]
    account = op.account
    assert account.outcomes == {"ok": 3, "rejected": 1, "truncated": 1}
    assert (account.prompt_tokens, account.completion_tokens) == (28, 12)
    assert op(texts, rngs()) == expected  # the two holes alone are asked again
    assert LLM.made == [("m", "abc")] and op._backend._engine.batches[5:] == [2, 1, 1]


def test_vllm_downloads_nothing_that_is_not_pinned(vllm, tmp_path):
    op = rewrite.llm((), model="someone/m", backend="vllm", cache=str(tmp_path / "cache"))
    with pytest.raises(BadInput, match="'someone/m' would be downloaded as it is today"):
        op(["a"], [np.random.default_rng(0)])
    assert LLM.made == []


@pytest.mark.parametrize(("backend", "module"), [("vllm", "vllm"), ("llama_cpp", "llama_cpp")])
def test_a_missing_library_is_named(backend, module, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    op = rewrite.llm((), model=str(path), backend=backend, cache=str(tmp_path / "cache"))
    with pytest.raises(BadInput, match=f"the backend '{backend}' needs"):
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
