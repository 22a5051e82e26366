"""Sends requests to an OpenAI-compatible endpoint within rate limits and a budget.

Every attempt is written to the cache with the server's token counts. Failed attempts are retried
after a backoff with full jitter
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). Retry-After delays all
requests, since it applies to the whole API account.
"""

import asyncio
import contextlib
import dataclasses
import functools
import json
import math
import os
import time
import urllib.parse
from collections.abc import Sequence
from typing import NamedTuple

import httpx2
import pydantic_core
import tenacity

from ssl_guard.augment.llm import chat
from ssl_guard.augment.llm.cache import Attempt, Cache
from ssl_guard.augment.llm.chat import Model, Request
from ssl_guard.errors import BadInput
from ssl_guard.runtime.http import BUSY, MAX_WAIT_SECONDS, Busy, retries, retry_after

BACKOFF_SECONDS = 0.5  # the first wait is drawn from 0 to this
MAX_RETRY_AFTER_SECONDS = 600.0  # above this the quota is used up: the run stops
# Statuses, and error codes in the body, after which every request would fail.
HOPELESS = {
    401: "check the key in {}",
    402: "pay the bill",
    403: "check the key in {}",
    404: "check base_url and model",
}
NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Rate limits and budget. 0 means no limit, except for the fields with a comment.

    requests_per_minute, tokens_per_minute: hold in every window of 60 seconds.
    timeout: seconds per attempt. attempts: per request.
    deadline: seconds from the first request to the last.
    max_cost, max_total_tokens: of the whole cache file, including earlier runs. No attempt starts
    that could exceed them if all requests in flight got answers of full length; prompt tokens are
    estimated.
    prompt_price, completion_price: per million tokens.
    """

    concurrency: int  # at least 1
    requests_per_minute: float
    tokens_per_minute: float
    timeout: float  # more than 0
    attempts: int  # at least 1
    deadline: float
    max_cost: float
    max_total_tokens: int
    prompt_price: float
    completion_price: float

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Returns the cost in the currency of the prices."""
        million = prompt_tokens * self.prompt_price + completion_tokens * self.completion_price
        return million / 1e6


class Pace:
    """Rate limiter, first come first served, by virtual scheduling (GCRA, ITU-T I.371).

    Uses 96% of the rate and lets up to 3% of a minute accumulate while idle, so no 60 seconds see
    more than 99% of the limit. Amounts can be corrected afterwards, since a request's tokens are
    known only from its answer; installable rate limiters cannot do that.
    """

    USED, SAVED_SECONDS = 0.96, 1.8

    def __init__(self, per_minute: float):
        self._per_second = self.USED * per_minute / 60 if per_minute else math.inf
        self._next, self._turn = math.nan, asyncio.Lock()

    def open(self) -> None:
        """Prepares for the running event loop. Call it in each loop before take()."""
        if math.isnan(self._next):
            self._next = asyncio.get_running_loop().time()
        self._turn = asyncio.Lock()

    async def take(self, amount: float) -> None:
        """Waits until the amount may pass."""
        clock = asyncio.get_running_loop().time
        async with self._turn:
            while (wait := self._next - clock()) > 0:
                await asyncio.sleep(min(wait, 0.1))  # correct() may change the time meanwhile
            self._next = max(self._next, clock() - self.SAVED_SECONDS) + amount / self._per_second

    def correct(self, amount: float) -> None:
        """Adds an amount, possibly negative, to what has passed."""
        self._next += amount / self._per_second

    def hold(self, seconds: float) -> None:
        """Lets nothing pass for some seconds."""
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)


class Endpoint:
    """A server with /chat/completions under base_url.

    key_env: environment variable with the API key. It is read when requests are sent and is used
    only in their header.
    """

    def __init__(self, base_url: str, key_env: str, model: Model, limits: Limits):
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._host = urllib.parse.urlsplit(base_url).hostname  # a URL can hold a password
        if urllib.parse.urlsplit(base_url).scheme not in ("http", "https") or not self._host:
            raise BadInput("base_url is not a URL: give one such as https://api.example.com/v1.")
        self._key_env, self._model, self._limits = key_env, model, limits
        self._requests = Pace(limits.requests_per_minute)
        self._tokens = Pace(limits.tokens_per_minute)
        self._reserved_tokens, self._reserved_cost = 0, 0.0  # upper bound of what is in flight
        self._end = math.inf  # of the run, once it has begun
        self._last: Attempt | None = None
        self._stop: BadInput | None = None

    def ask(self, requests: Sequence[Request], cache: Cache) -> None:
        """Sends all requests and writes every attempt to the cache.

        Raises BadInput, after the attempts in flight have ended, if the API key or the model is
        rejected, the budget or the deadline is reached, no request was answered, or the disk is
        full.
        """
        headers = {"Content-Type": "application/json"}
        if self._key_env:
            if not (key := os.environ.get(self._key_env, "").strip()):
                raise BadInput(f"set the environment variable {self._key_env} to the API key.")
            headers["Authorization"] = f"Bearer {key}"
        if self._limits.deadline and self._end == math.inf:
            self._end = time.monotonic() + self._limits.deadline
        before, self._last = cache.now.answered, None
        asyncio.run(self._ask_all(requests, cache, headers))
        cache.sync()
        last = self._last
        unanswered = not self._stop and cache.now.answered == before
        # If others were answered, a rejection is due to the request itself.
        if unanswered and last and not (cache.ever.answered and last.outcome == chat.REJECTED):
            self._halt(f"answered none of {len(requests)} requests (the last: {last.detail})")
        if self._stop:
            raise self._stop

    async def _ask_all(self, requests, cache, headers):
        self._requests.open()
        self._tokens.open()
        slots = asyncio.Semaphore(self._limits.concurrency)
        connections = httpx2.AsyncClient(
            headers=headers,
            timeout=self._limits.timeout,
            limits=httpx2.Limits(max_connections=self._limits.concurrency),
            verify=_certificates(),
        )
        async with connections as http, asyncio.TaskGroup() as group:
            for request in requests:
                group.create_task(self._ask_one(http, slots, request, cache))

    async def _ask_one(self, http, slots, request, cache):
        backoff = tenacity.wait_random_exponential(BACKOFF_SECONDS, MAX_WAIT_SECONDS)
        attempts = tenacity.AsyncRetrying(**retries(self._limits.attempts, backoff))
        async with slots:
            # After the last attempt the request stays unanswered; a later run sends it again.
            with contextlib.suppress(Busy):
                await attempts(self._attempt, http, request, cache)

    async def _attempt(self, http, request, cache):
        limits = self._limits
        longest = request.tokens + self._model.max_tokens
        expected = request.tokens + min(chat.tokens(request.source), self._model.max_tokens)
        cost = limits.cost(request.tokens, self._model.max_tokens)
        await self._requests.take(1)
        await self._tokens.take(expected)
        if self._is_over(cache, longest, cost):
            self._requests.correct(-1)  # waiting tasks must see at once that it is over
            self._tokens.correct(-expected)
            return
        self._reserved_tokens += longest
        self._reserved_cost += cost
        try:
            status, attempt, wait = await self._post(http, request)
        finally:
            self._reserved_tokens -= longest
            self._reserved_cost -= cost
        self._last = attempt
        try:
            cache.append(attempt)
        except BadInput as full:
            self._stop = full
            return
        self._tokens.correct(attempt.prompt_tokens + attempt.completion_tokens - expected)
        failed = attempt.outcome in (chat.FAILED, chat.UNREACHABLE)
        if status in HOPELESS:
            self._halt(f"answered HTTP {status}: {HOPELESS[status].format(self._key_env)}")
        elif attempt.detail in NO_QUOTA or (failed and wait > MAX_RETRY_AFTER_SECONDS):
            self._halt("reports that the quota is used up")
        elif failed:
            self._requests.hold(wait)
            raise Busy

    async def _post(self, http, request) -> tuple[int, Attempt, float]:
        """Returns (HTTP status or 0, the attempt, Retry-After in seconds)."""
        model = self._model
        body = {
            "model": model.name,
            "messages": request.messages,
            "temperature": model.temperature,
            "top_p": model.top_p,
            "max_tokens": model.max_tokens,
            "seed": request.seed,
        }
        try:
            # The timeout of httpx2 is per read, so a slow server could exceed it in total.
            async with asyncio.timeout(self._limits.timeout):
                response = await http.post(self._url, content=json.dumps(body))
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            return 0, Attempt(request.key, chat.UNREACHABLE, detail=type(error).__name__), 0.0
        except (httpx2.RequestError, TimeoutError) as error:
            detail = type(error).__name__
            return 0, self._uncertain(request, chat.FAILED, model.max_tokens, detail=detail), 0.0
        wait = retry_after(response.headers.get("Retry-After"), time.time())
        return response.status_code, self._read(request, response), wait

    def _read(self, request, response) -> Attempt:
        try:
            # Its nesting is bounded, while deep JSON takes json to the recursion limit, where
            # whatever the garbage collector finalizes fails too.
            body = pydantic_core.from_json(response.content)
            body = body if isinstance(body, dict) else {}
        except ValueError:
            body = {}
        usage = _Counts.of(body)
        if not response.is_success:
            code = body["error"].get("code") if isinstance(body.get("error"), dict) else None
            outcome = chat.FAILED if response.status_code in BUSY else chat.REJECTED
            outcome = chat.REFUSED if code == "content_filter" else outcome
            detail = code if code in NO_QUOTA else f"HTTP {response.status_code}"
            return self._counted(request, outcome, usage or _Counts(0, 0), detail=detail)
        try:
            choice = body["choices"][0]  # the server may return more than one
            text, finish = choice["message"]["content"], choice["finish_reason"]
            if choice["message"].get("refusal"):
                finish = "content_filter"
            outcome, text = chat.judge(request, text, finish)
        except (LookupError, TypeError, AttributeError):
            outcome, text = chat.FAILED, None
        detail = "unreadable answer" if outcome == chat.FAILED else ""
        if usage:
            return self._counted(request, outcome, usage, text=text, detail=detail)
        completion = chat.tokens(text) if text else self._model.max_tokens
        return self._uncertain(request, outcome, completion, text=text, detail=detail)

    def _counted(self, request, outcome, usage, **rest) -> Attempt:
        cost = self._limits.cost(*usage)
        return Attempt(
            request.key,
            outcome,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cost=cost,
            **rest,
        )

    def _uncertain(self, request, outcome, completion_tokens, **rest) -> Attempt:
        usage = _Counts(request.tokens, completion_tokens)
        return dataclasses.replace(self._counted(request, outcome, usage, **rest), uncertain=True)

    def _is_over(self, cache, tokens, cost) -> bool:
        """Returns True if no further attempt may start, and sets self._stop to the reason."""
        limits, spent = self._limits, cache.ever
        if not self._stop:
            tokens += spent.most_tokens + self._reserved_tokens
            cost += spent.most_cost + self._reserved_cost
            if time.monotonic() >= self._end:
                self._halt(f"has reached the deadline of {limits.deadline:g} s")
            elif limits.max_cost and cost > limits.max_cost:
                self._halt(f"has cost {spent.most_cost:.4f}, near max_cost = {limits.max_cost:g}")
            elif limits.max_total_tokens and tokens > limits.max_total_tokens:
                most = f"max_total_tokens = {limits.max_total_tokens}"
                self._halt(f"has used {spent.most_tokens} tokens, near {most}")
        return self._stop is not None

    def _halt(self, reason: str) -> None:
        self._stop = BadInput(f"{self._host} {reason}; fix this and run again, answers are kept.")


@functools.cache
def _certificates():
    return httpx2.create_ssl_context()  # takes longer than a request


class _Counts(NamedTuple):
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, body: dict) -> "_Counts | None":
        """Reads the server's counts, or None if there are none."""
        usage = body.get("usage")
        counts = [usage.get(name) for name in cls._fields] if isinstance(usage, dict) else [None]
        good = all(type(count) is int and 0 <= count < 2**53 for count in counts)
        return cls(*counts) if good else None
