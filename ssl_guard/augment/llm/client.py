"""Asks an OpenAI-compatible endpoint, many requests at a time, within its limits and ours.

An attempt waits for its turn under the limits, goes out, and is written to the cache with what the
server counted. Busy or broken servers are asked again after a backoff with full jitter
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/); Retry-After holds back
every request, for it speaks of the whole account.
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
import tenacity

from ssl_guard.augment.llm import chat
from ssl_guard.augment.llm.cache import Attempt, Cache
from ssl_guard.augment.llm.chat import Model, Request
from ssl_guard.errors import BadInput
from ssl_guard.runtime.http import retry_after

BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 0.5, 60.0  # the first wait is drawn from 0 to the former
MAX_RETRY_AFTER_SECONDS = 600.0  # a server that wants more has no quota left: the run stops
BUSY = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # statuses worth another attempt
# Statuses, and codes in the body, that no other request would fare better with.
HOPELESS = {
    401: "check the key in {}",
    402: "pay the bill",
    403: "check the key in {}",
    404: "check base_url and model",
}
NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached")


@dataclasses.dataclass(frozen=True)
class Limits:
    """How hard to ask. 0 is no limit, where not said otherwise.

    The limits of requests and tokens a minute hold for every 60 seconds of them. timeout: seconds
    of one attempt; attempts: of one request; deadline: seconds from the first request to the last;
    max_cost, max_total_tokens: of everything in the cache, so also of earlier runs; an attempt that
    could go beyond, if all that are in flight answer at full length, is not begun (a text's tokens
    are estimated before it is asked). Prices are per million tokens.
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
        """In the currency of the prices."""
        million = prompt_tokens * self.prompt_price + completion_tokens * self.completion_price
        return million / 1e6


class Pace:
    """Lets amounts pass at a rate, first come first served, as virtual scheduling does (GCRA, ITU-T
    I.371): all that is kept is the time at which the next may pass.

    Of the allowance of a minute 96% is used, and 3% may be saved up for a late start, so 60 seconds
    never see more than 99%. An amount can be corrected later, for a request's tokens are known only
    when it is answered; rate limiters that one can install cannot do that.
    """

    USED, SAVED_SECONDS = 0.96, 1.8

    def __init__(self, per_minute: float):
        self._per_second = self.USED * per_minute / 60 if per_minute else math.inf
        self._next, self._turn = 0.0, None

    def open(self) -> None:
        """To be called in each event loop that take() is to run in."""
        if self._turn is None:
            self._next = asyncio.get_running_loop().time()
        self._turn = asyncio.Lock()

    async def take(self, amount: float) -> None:
        """Returns when the amount may pass."""
        clock = asyncio.get_running_loop().time
        async with self._turn:
            while (wait := self._next - clock()) > 0:
                await asyncio.sleep(min(wait, 0.1))  # it may be corrected meanwhile
            self._next = max(self._next, clock() - self.SAVED_SECONDS) + amount / self._per_second

    def correct(self, amount: float) -> None:
        """So much more (less, if negative) had passed than was taken."""
        self._next += amount / self._per_second

    def hold(self, seconds: float) -> None:
        """Nothing passes for so long."""
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)


class _Busy(Exception):
    """Worth another attempt."""


class Endpoint:
    """A server with /chat/completions under base_url, whose key is in the environment as key_env.

    The key is read when something is asked, and goes into the requests' header and nowhere else.
    """

    def __init__(self, base_url: str, key_env: str, model: Model, limits: Limits):
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._host = urllib.parse.urlsplit(base_url).hostname  # a URL can carry a password
        if urllib.parse.urlsplit(base_url).scheme not in ("http", "https") or not self._host:
            raise BadInput("base_url is not a URL: give one such as https://api.example.com/v1.")
        self._key_env, self._model, self._limits = key_env, model, limits
        self._requests = Pace(limits.requests_per_minute)
        self._tokens = Pace(limits.tokens_per_minute)
        self._reserved_tokens, self._reserved_cost = 0, 0.0  # upper bound of what is in flight
        self._end = math.inf  # of the run, once it has begun
        self._stop: BadInput | None = None

    def ask(self, requests: Sequence[Request], cache: Cache) -> None:
        """Asks all, and writes every attempt to the cache as it ends.

        Raises BadInput, after the attempts in flight have ended, where going on is no use: the key
        or the model is not accepted, the budget or the deadline is reached, nothing was answered,
        the disk is full.
        """
        headers = {"Content-Type": "application/json"}
        if self._key_env:
            if not (key := os.environ.get(self._key_env, "").strip()):
                raise BadInput(f"the environment has no {self._key_env}: put the key there.")
            headers["Authorization"] = f"Bearer {key}"
        if self._limits.deadline and self._end == math.inf:
            self._end = time.monotonic() + self._limits.deadline
        before, self._last = cache.now.answered, None
        asyncio.run(self._ask_all(requests, cache, headers))
        cache.sync()
        unanswered = not self._stop and cache.now.answered == before
        # Where others were answered, a request that the server rejects is itself to blame.
        if unanswered and not (cache.ever.answered and self._last.outcome == chat.REJECTED):
            last = self._last.detail
            self._halt(f"answered none of {len(requests)} requests (the last: {last})")
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
        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_Busy),
            stop=tenacity.stop_after_attempt(self._limits.attempts),
            wait=tenacity.wait_random_exponential(BACKOFF_SECONDS, MAX_BACKOFF_SECONDS),
            reraise=True,
        )
        async with slots:
            # Given up after the last attempt: a later run asks again.
            with contextlib.suppress(_Busy):
                await attempts(self._attempt, http, request, cache)

    async def _attempt(self, http, request, cache):
        limits = self._limits
        longest = request.tokens + self._model.max_tokens
        expected = request.tokens + min(chat.tokens(request.source), self._model.max_tokens)
        cost = limits.cost(request.tokens, self._model.max_tokens)
        await self._requests.take(1)
        await self._tokens.take(expected)
        if self._is_over(cache, longest, cost):
            self._requests.correct(-1)  # so that those who wait behind see at once that it is over
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
            self._halt("says that the quota is used up")
        elif failed:
            self._requests.hold(wait)
            raise _Busy

    async def _post(self, http, request) -> tuple[int, Attempt, float]:
        """(status, 0 if there is none; the attempt; seconds that the server asks to wait)."""
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
            # httpx2 limits the wait for each piece; a server that drips could take for ever.
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
            body = response.json()
            body = body if isinstance(body, dict) else {}
        except (ValueError, RecursionError):
            body = {}
        usage = _Usage.of(body)
        if not response.is_success:
            code = body["error"].get("code") if isinstance(body.get("error"), dict) else None
            outcome = chat.FAILED if response.status_code in BUSY else chat.REJECTED
            outcome = chat.REFUSED if code == "content_filter" else outcome
            detail = code if code in NO_QUOTA else f"HTTP {response.status_code}"
            return self._counted(request, outcome, usage or _Usage(0, 0), detail=detail)
        try:
            choice = body["choices"][0]  # the first, should there be more than were asked for
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
        usage = _Usage(request.tokens, completion_tokens)
        return dataclasses.replace(self._counted(request, outcome, usage, **rest), uncertain=True)

    def _is_over(self, cache, tokens, cost) -> bool:
        """True if no further attempt may start, with the reason in self._stop."""
        limits, spent = self._limits, cache.ever
        if not self._stop:
            tokens += spent.most_tokens + self._reserved_tokens
            cost += spent.most_cost + self._reserved_cost
            if time.monotonic() >= self._end:
                self._halt(f"was asked for {limits.deadline:g} s, the deadline")
            elif limits.max_cost and cost > limits.max_cost:
                self._halt(f"has cost {spent.most_cost:.4f}, near max_cost = {limits.max_cost:g}")
            elif limits.max_total_tokens and tokens > limits.max_total_tokens:
                most = f"max_total_tokens = {limits.max_total_tokens}"
                self._halt(f"has used {spent.most_tokens} tokens, near {most}")
        return self._stop is not None

    def _halt(self, reason: str) -> None:
        self._stop = BadInput(f"{self._host} {reason}; mend this and run again, answers are kept.")


@functools.cache
def _certificates():
    return httpx2.create_ssl_context()  # takes longer than a request


class _Usage(NamedTuple):
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, body: dict) -> "_Usage | None":
        """What the server counted, or None if it does not say."""
        usage = body.get("usage")
        counts = [usage.get(name) if isinstance(usage, dict) else None for name in cls._fields]
        good = all(type(count) is int and 0 <= count < 2**53 for count in counts)
        return cls(*counts) if good else None
