"""The operation `llm`: a chat model rewrites a text as a template asks.

The label survives if the model follows the template; the gates check that. Harmful and harmless
texts get the same template, so no label is used.
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
    """Estimated cost of rewriting `rows` texts, of which `cached` need no request.

    Tokens are those of the requests, at 4 bytes each, with answers as long as their texts. cost: in
    the currency of the prices.
    """

    rows: int
    cached: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


class Rewriter:
    """A Rewrite, see ops.py: rewriter(texts, rngs) -> views, None without a usable answer.

    cached: number of requests answered from the cache. Locks the cache file for this process.
    """

    def __init__(self, template: chat.Template, model: chat.Model, backend, limits, cache: Cache):
        self.template, self.model, self.cached = template, model, 0
        self._backend, self._limits, self._cache = backend, limits, cache

    def __call__(
        self, texts: Sequence[str], rngs: Sequence[np.random.Generator]
    ) -> list[str | None]:
        """Sends the requests that are not in the cache. Raises BadInput if the run should stop."""
        requests = self._requests(texts, rngs)
        missing = self._missing(requests)
        self.cached += sum(request.key not in missing for request in requests)
        if missing:
            self._backend.ask(list(missing.values()), self._cache)
        return [self._cache.answers.get(request.key) for request in requests]

    @property
    def account(self) -> Account:
        """Usage since this rewriter was made."""
        return self._cache.now

    @property
    def manifest(self) -> dict:
        """Template and model, for the manifest of a set."""
        template = {"name": self.template.name, "version": self.template.version}
        return {
            "template": template | {"sha256": self.template.sha256},
            "model": dataclasses.asdict(self.model),
        }

    def estimate(self, texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> Estimate:
        """Estimates the cost of a call. Sends nothing and needs no API key."""
        requests = self._requests(texts, rngs)
        missing = self._missing(requests).values()
        prompt = sum(request.tokens for request in missing)
        longest = self.model.max_tokens
        completion = sum(min(chat.tokens(request.source), longest) for request in missing)
        cost = self._limits.cost(prompt, completion)
        return Estimate(len(requests), len(requests) - len(missing), prompt, completion, cost)

    def keys(self, texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str]:
        """Returns the cache keys of a call, hexadecimal."""
        return [request.key for request in self._requests(texts, rngs)]

    def _requests(self, texts, rngs) -> list[chat.Request]:
        # A generator belongs to one row, copy and part, and so does the key made with its draw.
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
    """Returns the rewriter. Ignores `texts`.

    model: the endpoint's name of the model; for llama_cpp a .gguf file, or a wheel that holds one.
    cache: file of all answers and their cost.
    template: name of a file in templates/.
    backend: "endpoint", an OpenAI-compatible server such as `vllm serve`, or "llama_cpp".
    key_env: environment variable with the endpoint's API key, "" for none.
    revision: of the model, part of the cache key; for llama_cpp it is the file's sha256.
    The other arguments are fields of chat.Model and client.Limits.

    Raises BadInput for invalid values.
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
            raise BadInput(f"the augmentation 'llm' has {name} = {value}; it must be at least 1.")
    if timeout <= 0 or temperature < 0 or not 0 < top_p <= 1:
        raise BadInput(
            f"the augmentation 'llm' has timeout = {timeout}, temperature = {temperature}, top_p = "
            f"{top_p}: timeout must be above 0, temperature at least 0, and top_p in (0, 1]."
        )
    if min(dataclasses.astuple(limits)) < 0:
        raise BadInput("a limit or a price of the augmentation 'llm' is negative; 0 means none.")
    for name, given in (("model", model), ("cache", cache)):
        if not given:
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
