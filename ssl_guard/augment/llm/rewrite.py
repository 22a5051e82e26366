"""The operation `llm`: a text goes out in a template, and what a chat model writes comes back.

The label survives as far as the model does what the template asks; that is what the gates are for.
The template is the same for harmful and harmless texts, so no label is looked at.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ssl_guard.augment.llm import chat, client, local
from ssl_guard.augment.llm.cache import Account, Cache
from ssl_guard.errors import BadInput
from ssl_guard.runtime import files

BACKENDS = ("endpoint", "llama_cpp")


class Estimate(NamedTuple):
    """What rows would cost: how many, how many of them are in the cache, and the rest's tokens.

    Tokens are of 4 bytes, and an answer is taken to be as long as its text. cost is in the currency
    of the prices.
    """

    rows: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


class Rewriter:
    """A Rewrite, see ops.py: rewriter(texts, rngs) -> texts, None where there is no usable one.

    cached: requests that needed no asking. The cache file is this process's until it ends.
    """

    def __init__(self, template: chat.Template, model: chat.Model, backend, limits, cache: Cache):
        self.template, self.model, self.cached = template, model, 0
        self._backend, self._limits, self._cache = backend, limits, cache

    def __call__(
        self, texts: Sequence[str], rngs: Sequence[np.random.Generator]
    ) -> list[str | None]:
        """Asks what the cache does not have. Raises BadInput where a run had better stop."""
        requests = self._requests(texts, rngs)
        missing = self._missing(requests)
        self.cached += sum(request.key not in missing for request in requests)
        if missing:
            self._backend.ask(list(missing.values()), self._cache)
        return [self._cache.answers.get(request.key) for request in requests]

    @property
    def account(self) -> Account:
        """Requests, tokens, cost and outcomes since this rewriter was made."""
        return self._cache.now

    @property
    def manifest(self) -> dict:
        """What decides the answers, for a set's manifest."""
        template = {"name": self.template.name, "version": self.template.version}
        return {
            "template": template | {"sha256": self.template.sha256},
            "model": dataclasses.asdict(self.model),
        }

    def estimate(self, texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> Estimate:
        """What a call with these would cost; nothing is asked and no key is needed."""
        requests = self._requests(texts, rngs)
        missing = self._missing(requests).values()
        prompt = sum(request.tokens for request in missing)
        longest = self.model.max_tokens
        completion = sum(min(chat.tokens(request.source), longest) for request in missing)
        cost = self._limits.cost(prompt, completion)
        return Estimate(len(requests), len(requests) - len(missing), prompt, completion, cost)

    def keys(self, texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str]:
        """The cache keys that a call with these would use, hexadecimal."""
        return [request.key for request in self._requests(texts, rngs)]

    def _requests(self, texts, rngs) -> list[chat.Request]:
        # The row's rng stands for its id, copy and part, so its draw makes the key theirs.
        return [
            chat.make_request(self.template, self.model, text, int(rng.integers(2**31)))
            for text, rng in zip(texts, rngs, strict=True)
        ]

    def _missing(self, requests) -> dict[str, chat.Request]:
        return {r.key: r for r in requests if r.key not in self._cache.answers}


def llm(
    texts: Iterable[str],
    *,
    model: str,
    cache: str,
    template: str = "rewrite_prompt",
    backend: str = "endpoint",
    base_url: str = "",
    key_env: str = "",
    revision: str = "",
    temperature: float = 0.7,
    top_p: float = 0.95,
    max_tokens: int = 512,
    concurrency: int = 16,
    requests_per_minute: float = 0,
    tokens_per_minute: float = 0,
    timeout: float = 120,
    attempts: int = 6,
    deadline: float = 0,
    max_cost: float = 0,
    max_total_tokens: int = 0,
    prompt_price: float = 0,
    completion_price: float = 0,
) -> Rewriter:
    """The operation for ops.OPS; `texts` is not looked at.

    model: the endpoint's name for it, or a .gguf file or a wheel that holds one (llama_cpp)
    cache: the file that keeps every answer and what it cost
    template: the name of a file in templates/
    backend: endpoint (any OpenAI-compatible server, at base_url) or llama_cpp
    key_env: the environment variable that holds the endpoint's key, "" for an endpoint without
    revision: of the model, a part of the cache key; a .gguf file's is its sha256
    the rest of the draws: chat.Model; of limits, budget and prices: client.Limits

    Raises BadInput for values that cannot be used.
    """
    limits = client.Limits(
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        timeout=timeout,
        attempts=attempts,
        deadline=deadline,
        max_cost=max_cost,
        max_total_tokens=max_total_tokens,
        prompt_price=prompt_price,
        completion_price=completion_price,
    )
    least = {"max_tokens": max_tokens, "concurrency": concurrency, "attempts": attempts}
    for name, value in least.items():
        if value < 1:
            raise BadInput(f"the augmentation 'llm' has {name} = {value}; give 1 or more.")
    if timeout <= 0 or temperature < 0 or not 0 < top_p <= 1:
        raise BadInput(
            f"the augmentation 'llm' has timeout = {timeout}, temperature = {temperature}, top_p = "
            f"{top_p}: give a timeout above 0, a temperature of 0 or more, and a share for top_p."
        )
    if min(dataclasses.astuple(limits)) < 0:
        raise BadInput("a limit or a price of the augmentation 'llm' is negative; 0 means none.")
    for name, value in (("model", model), ("cache", cache)):
        if not value:
            raise BadInput(f"the augmentation 'llm' needs the argument {name}.")
    if backend not in BACKENDS:
        raise BadInput(f"there is no backend {backend!r}; choose one of {', '.join(BACKENDS)}.")
    if backend == "llama_cpp":
        path = local.find_gguf(model)
        model, revision = path.name, files.sha256_file(path)
    drawn = chat.Model(model, revision, temperature, top_p, max_tokens)
    asked = (
        client.Endpoint(base_url, key_env, drawn, limits)
        if backend == "endpoint"
        else local.LlamaCpp(path, drawn)
    )
    return Rewriter(chat.load_template(template), drawn, asked, limits, Cache(cache))
