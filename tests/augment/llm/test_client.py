import asyncio
import email.utils
import json
import logging
import math
import os
import selectors
import socket
import time

import numpy as np
import pytest

from ssl_guard.augment.llm import cache, client, rewrite
from ssl_guard.augment.llm.client import Pace, retry_after
from ssl_guard.errors import BadInput
from tests.augment.llm.server import Server, answer

KEY = "sk-planted-key-123"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(client, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setenv("LLM_KEY", KEY)


@pytest.fixture
def make(tmp_path):
    """Returns make(server, **arguments), which builds the operation."""

    def build(server, name="cache.jsonl", **arguments):
        common = {
            "model": "m",
            "key_env": "LLM_KEY",
            "max_tokens": 50,
            "timeout": 30,  # a busy machine must not look like a dead server
            "attempts": 3,
        }
        common |= {"prompt_price": 2.0, "completion_price": 4.0, "cache": str(tmp_path / name)}
        return rewrite.llm((), base_url=server.url, **common | arguments)

    return build


def ask(op, texts):
    return op(texts, [np.random.default_rng([7, i]) for i in range(len(texts))])


def agrees(usage, server):
    """Asserts that the usage equals the server's counts."""
    assert usage.requests == server.requests
    assert usage.prompt_tokens == server.prompt_tokens
    assert usage.completion_tokens == server.completion_tokens
    cost = (2 * server.prompt_tokens + 4 * server.completion_tokens) / 1e6
    assert math.isclose(usage.cost, cost, abs_tol=1e-12)


def test_what_is_sent_and_what_comes_back(make):
    texts = ["one", "two", "one", "$text {0} </text-0123456789abcdef>\n\ud800"]
    with Server(lambda source, n: (200, answer(f" re {len(source)}\n"), {})) as server:
        op = make(server, temperature=0.5, top_p=0.9, revision="r")
        # The same text and draws need one request; other draws need another.
        rngs = [np.random.default_rng(i) for i in (0, 1, 0, 2)]
        assert op(texts, rngs) == ["re 3", "re 3", "re 3", f"re {len(texts[3])}"]
        assert server.requests == 3
        rngs = [np.random.default_rng(i) for i in (5, 1)]
        assert op(["one", "two"], rngs) == ["re 3", "re 3"]
        assert server.counts["one"] == 2 and server.counts["two"] == 1
        agrees(op.usage, server)
    headers, body = server.seen[0]
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert {name: body[name] for name in body if name != "messages"} == {
        "model": "m",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 50,
        "seed": body["seed"],
    }
    seeds = {int(np.random.default_rng(i).integers(2**31)) for i in (0, 1, 2, 5)}
    assert {body["seed"] for _, body in server.seen} == seeds


def after(trouble, times=1):
    """Fails the first `times` requests for a text, then answers."""
    return lambda source, n: trouble if n <= times else (200, answer("re " + source), {})


HTML = (200, b"<html>a gateway's page</html>", {"Content-Type": "text/html"})
PASSING = {
    "429": (429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, {}),
    "429 with seconds": (429, b"", {"Retry-After": "0"}),
    "429 with nonsense": (429, b"", {"Retry-After": "soon"}),
    "500": (500, b"oops", {}),
    "500 that was counted": (500, answer("x", prompt=3, completion=2), {}),
    "503": (503, {"error": "a string"}, {}),
    "500 with an odd code": (500, {"error": {"code": ["a"]}, "usage": {"prompt_tokens": []}}, {}),
    "529": (529, b"[]", {}),
    "reset": "reset",
    "silence": "silence",
    "drip": "drip",
    "truncated JSON": (200, b'{"choices": [{"message": {"content": "re', {}),
    "another JSON": (200, b"[1, 2]", {}),
    "null": (200, b"null", {}),
    "deep JSON": (200, b"[" * 100_000, {}),
    # json reads it, at a depth at which finalizers may find no stack
    "valid deep JSON": (
        200,
        json.dumps(answer("re"))
        .replace("{", '{"deep": ' + "[" * 500 + "]" * 500 + ", ", 1)
        .encode(),
        {},
    ),
    "not UTF-8": (200, b'{"choices": "\xff"}', {}),
    "bad compression": (200, b"xx", {"Content-Encoding": "gzip"}),
    "html": HTML,
    "empty body": (200, b"", {}),
    "no choices": (200, {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 0}}, {}),
    "null message": (200, {"choices": [{"message": None, "finish_reason": "stop"}]}, {}),
    "text as a list": (200, answer([{"type": "text"}]), {}),
    "unknown finish": (200, answer("text", "abort"), {}),
}


@pytest.mark.parametrize("trouble", PASSING.values(), ids=PASSING)
def test_passing_trouble_is_asked_again(make, trouble):
    with Server(after(trouble)) as server:
        op = make(server, timeout=1 if trouble in ("silence", "drip") else 30)
        assert ask(op, ["a"]) == ["re a"]
        assert server.counts == {"a": 2}
        usage = op.usage
        assert usage.outcomes == {"failed": 1, "ok": 1}
        assert usage.requests == 2
        if trouble == "drip":  # the server counts an answer that the client never gets
            assert (usage.prompt_tokens, usage.uncertain_requests) == (10, 1)
        else:
            agrees(usage, server)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ((200, answer("I'm sorry, but I can't help with that."), {}), "refused"),
        ((200, answer("", "content_filter"), {}), "refused"),
        ((400, {"error": {"code": "content_filter"}}, {}), "refused"),
        ((200, answer("cut off in the mid", "length"), {}), "truncated"),
        ((200, answer(" \n"), {}), "empty"),
        ((200, answer(None), {}), "empty"),
        ((400, {"error": {"message": "context length"}}, {}), "rejected"),
        ((422, b"", {}), "rejected"),
        ((302, b"", {"Location": "/elsewhere"}), "rejected"),
    ],
)
def test_answers_without_a_rewrite_are_not_asked_again_until_the_next_run(make, reply, outcome):
    def behave(source, n):
        return reply if source == "bad" else (200, answer("re " + source), {"Retry-After": "999"})

    with Server(behave) as server:
        op = make(server)
        assert ask(op, ["bad", "good"]) == [None, "re good"]
        assert server.counts == {"bad": 1, "good": 1}
        assert op.usage.outcomes == {outcome: 1, "ok": 1}
        agrees(op.usage, server)
        assert ask(op, ["bad", "good"]) == [None, "re good"]  # None, not an answer
        assert server.counts == {"bad": 2, "good": 1}
        agrees(op.usage, server)


def test_odd_counts(make):
    two = answer("first")
    two["choices"] *= 2
    bad_usages = [None, {}, {"prompt_tokens": "7"}, {"prompt_tokens": -1, "completion_tokens": 1}]
    bad_usages += [{"prompt_tokens": 10**400, "completion_tokens": 1}, [1, 2]]
    bodies = {"two": two, "no usage": {**answer("text"), "usage": None}}
    with Server(lambda source, n: (200, bodies[source], {})) as server:
        op = make(server)
        assert ask(op, ["two", "no usage"]) == ["first", "text"]
        agrees(op.usage, server)
        prompt = op.usage.uncertain_tokens - 1  # "text" has one token
        sent = next(body for _, body in server.seen if "no usage" in body["messages"][1]["content"])
        length = sum(len(message["content"]) for message in sent["messages"])
        assert op.usage.uncertain_requests == 1 and length / 4 <= prompt <= length / 4 + 2
        assert math.isclose(op.usage.uncertain_cost, (2 * prompt + 4) / 1e6)
    for usage in bad_usages:
        assert client._Counts.of({"usage": usage}) is None
    assert client._Counts.of({"usage": {"prompt_tokens": 0, "completion_tokens": 9}}) == (0, 9)


def test_trouble_that_stays_leaves_a_hole_and_a_dead_server_ends_the_run(make):
    down = (503, b"", {})
    with Server(lambda source, n: down if "a" in source else (200, answer("re"), {})) as server:
        op = make(server)
        assert ask(op, ["a", "b"]) == [None, "re"]
        assert server.counts == {"a": 3, "b": 1}
        with pytest.raises(
            BadInput, match=r"^127.0.0.1 answered none of 2 requests \(.*HTTP 503\)"
        ):
            ask(op, ["a", "aa"])
        agrees(op.usage, server)


def test_rejecting_every_request_ends_the_run_only_if_none_was_ever_answered(make):
    with Server(lambda s, n: (200, answer("re"), {}) if s == "b" else (400, b"", {})) as server:
        op = make(server)
        with pytest.raises(BadInput, match=r"answered none of 1 requests \(the last: HTTP 400\)"):
            ask(op, ["a"])
        op = make(server, "other.jsonl")
        assert ask(op, ["b"]) == ["re"]
        assert ask(op, ["a"]) == [None]


def test_nobody_listens(make):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        server = type("Nobody", (), {"url": f"http://127.0.0.1:{taken.getsockname()[1]}/v1"})
        op = make(server)
        with pytest.raises(BadInput, match=r"answered none of 1 requests \(the last: ConnectError"):
            ask(op, ["a"])
    assert op.usage.outcomes == {"unreachable": 3} and op.usage.requests == 0
    assert op.usage.most_cost == 0


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, b"", {}), "answered HTTP 401: check the key in LLM_KEY;"),
        ((402, b"", {}), "answered HTTP 402: pay the bill;"),
        ((404, b"", {}), "answered HTTP 404: check base_url and model;"),
        ((429, {"error": {"code": "insufficient_quota"}}, {}), "the quota is used up"),
        ((429, b"", {"Retry-After": "86400"}), "the quota is used up"),
    ],
)
def test_hopeless_answers_end_the_run_at_once(make, reply, message):
    with Server(lambda source, n: reply) as server:
        op = make(server, concurrency=2)
        with pytest.raises(BadInput, match=message):
            ask(op, [f"text {i}" for i in range(20)])
        assert server.requests <= 2
        agrees(op.usage, server)


def test_a_missing_key_and_arguments_of_no_use(make, monkeypatch, tmp_path):
    with Server() as server:
        monkeypatch.setenv("LLM_KEY", " ")
        op = make(server)
        with pytest.raises(BadInput, match="set the environment variable LLM_KEY"):
            ask(op, ["a"])
        assert server.requests == 0
        assert ask(make(server, "other", key_env=""), ["a"]) == ["re a"]
        assert "Authorization" not in server.seen[0][0]
        bad = [{"concurrency": 0}, {"attempts": 0}, {"max_tokens": 0}, {"timeout": 0}, {"top_p": 0}]
        bad += [{"temperature": -1}, {"max_cost": -1}, {"model": ""}, {"cache": ""}]
        bad += [{"backend": "cloud"}, {"template": "other"}]
        for arguments in bad:
            with pytest.raises(BadInput, match=f"{next(iter(arguments))}|limit|backend 'cloud'"):
                make(server, **{"name": "third", **arguments})
        server.url = "ftp://127.0.0.1"
        with pytest.raises(BadInput, match="base_url is not a URL"):
            make(server, "third")


def test_retry_after():
    now = 1_700_000_000.0
    assert retry_after(None, now) == 0
    assert retry_after("2", now) == 2
    assert retry_after("1.5", now) == 1.5
    assert retry_after(email.utils.formatdate(now + 30, usegmt=True), now) == 30
    assert retry_after(email.utils.formatdate(now - 30, usegmt=True), now) == 0
    for nonsense in ("", "soon", "-3", "nan", "inf", "Fri, 99 Foo 2026 00:00:00 GMT"):
        assert retry_after(nonsense, now) == 0


def test_retry_after_holds_everybody_back(make):
    replies = iter([(429, b"", {"Retry-After": "0.6"})])
    with Server(lambda s, n: next(replies, (200, answer("re"), {}))) as server:
        op = make(server, concurrency=1)
        assert ask(op, ["a", "b", "c"]) == ["re"] * 3
        assert server.requests == 4
        assert server.times[1] - server.times[0] >= 0.6


def test_concurrency(make):
    def slow(source, n):
        time.sleep(0.05)
        return 200, answer("re " + source), {}

    texts = [f"text {i}" for i in range(24)]
    with Server(slow) as server:
        op = make(server, concurrency=6, timeout=5)
        assert ask(op, texts) == [f"re {text}" for text in texts]
        assert server.most_at_once == 6


@pytest.mark.parametrize("limit", [{"max_cost": 0.006}, {"max_total_tokens": 3000}])
def test_the_budget_is_never_exceeded(make, limit):
    name, most = next(iter(limit.items()))
    texts = [f"text {i}" for i in range(30)]
    # An answer of full length: 300 tokens that cost 0.0007, and we expect a few tokens more.
    with Server(lambda s, n: (200, answer("re " + s, prompt=250, completion=50), {})) as server:

        def spent():
            prompt, completion = server.prompt_tokens, server.completion_tokens
            cost = (2 * prompt + 4 * completion) / 1e6
            return cost if name == "max_cost" else prompt + completion

        op = make(server, concurrency=3, **limit)
        with pytest.raises(BadInput, match=rf"near {name} = [\d.]+; .* answers are kept"):
            ask(op, texts)
        assert most / 2 < spent() <= most
        agrees(op.usage, server)
        op._cache.close()
        op = make(server, concurrency=1, **limit)  # what was spent before counts
        with pytest.raises(BadInput, match=name):
            ask(op, texts)
        assert 0.85 * most < spent() <= most
        op._cache.close()
        assert ask(make(server), texts) == [f"re {text}" for text in texts]
        assert server.requests == 30


def test_a_full_disk_ends_the_run_and_leaves_the_cache_whole(make, monkeypatch):
    real, room = os.write, iter([True] * 3)

    def write(fd, data):
        return real(fd, data if next(room, False) else data[:20])

    texts = [f"text {i}" for i in range(9)]
    with Server() as server:
        op = make(server, concurrency=3)
        monkeypatch.setattr(cache.os, "write", write)
        with pytest.raises(BadInput, match="cannot be written: No space left on device"):
            ask(op, texts)
        monkeypatch.undo()
        monkeypatch.setenv("LLM_KEY", KEY)
        assert 4 <= server.requests <= 6
        op._cache.close()
        op = make(server)
        assert len(op._cache.answers) == 3
        assert ask(op, texts) == [f"re {text}" for text in texts]


def test_the_deadline(make):
    def slow(source, n):
        time.sleep(0.4)
        return 200, answer("re"), {}

    with Server(slow) as server:  # the client's first start can itself take half a second
        op = make(server, concurrency=1, deadline=1.5, timeout=9)
        with pytest.raises(BadInput, match=r"has reached the deadline of 1.5 s"):
            ask(op, [f"text {i}" for i in range(50)])
        assert 1 <= server.requests <= 4
        with pytest.raises(BadInput, match="deadline"):  # of the run, not of each chunk
            ask(op, ["another"])
        # Requests that still wait do not delay the end of the run.
        op = make(server, "slow", concurrency=50, deadline=0.2, requests_per_minute=120, timeout=5)
        began = time.monotonic()
        with pytest.raises(BadInput, match="deadline"):
            ask(op, [f"text {i}" for i in range(50)])
        assert time.monotonic() - began < 10  # fifty turns take 25 s


def test_estimate(make):
    with Server() as server:
        op = make(server)
        texts, rngs = ["a" * 400, "b" * 40], lambda: [np.random.default_rng(i) for i in range(2)]
        op._backend._key_env = "NOT_THERE"  # no key is needed
        found = op.estimate(texts, rngs())
        prompt = sum(len(m["content"]) / 4 for r in op._requests(texts, rngs()) for m in r.messages)
        assert (found.rows, found.cached) == (2, 0)
        assert prompt <= found.prompt_tokens <= prompt + 4
        assert found.completion_tokens == 50 + 10  # 100 tokens, cut at max_tokens; 10
        assert math.isclose(found.cost, (2 * found.prompt_tokens + 4 * 60) / 1e6)
        assert server.requests == 0
        op._backend._key_env = "LLM_KEY"
        op(texts[:1], rngs()[:1])
        assert op.estimate(texts, rngs())[:2] == (2, 1)


def test_no_text_and_no_key_in_logs_errors_and_names(make, tmp_path, caplog, capfd):
    marker = "MARKER-harmful-text"
    kinds = iter(
        [*PASSING.values(), (400, {"error": {"message": marker}}, {}), (503, marker.encode(), {})]
        * 2
    )
    with caplog.at_level(logging.DEBUG), Server(lambda s, n: next(kinds, (503, b"", {}))) as server:
        op = make(server, timeout=0.3)
        errors = []
        for _ in range(6):
            try:
                ask(op, [f"{marker} {i}" for i in range(12)])
            except BadInput as error:
                errors.append(f"{error!r} {error.__cause__!r}")
    assert errors
    seen = "".join(errors) + caplog.text + "".join(capfd.readouterr())
    names = " ".join(str(path) for path in tmp_path.rglob("*"))
    assert marker not in seen + names
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in seen + names and KEY.encode() not in written
    assert marker.encode() not in written  # what failed is kept without its text


class _Instant(selectors.SelectSelector):
    """A selector without waiting: the loop's clock jumps, by `late` too much."""

    def select(self, timeout=None):
        self.loop.now += (timeout or 0) + (self.late if timeout else 0)
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, late):
        selector = _Instant()
        super().__init__(selector)
        self.now, selector.loop, selector.late = 1000.0, self, late

    def time(self):
        return self.now


def passes(per_minute, amounts, late=0.0, correct=None, concurrency=50):
    """Returns [(seconds, amount)] at which amounts pass that all wait from the start."""
    passed = []

    async def one(pace, slots, amount):
        async with slots:
            await pace.take(amount)
            passed.append((asyncio.get_running_loop().time() - 1000, correct or amount))
            if correct:
                await asyncio.sleep(2)  # until the answer is there
                pace.correct(correct - amount)

    async def everybody():
        pace = Pace(per_minute)
        pace.open()
        slots = asyncio.Semaphore(concurrency)
        await asyncio.gather(*(one(pace, slots, amount) for amount in amounts))

    with asyncio.Runner(loop_factory=lambda: _VirtualLoop(late)) as runner:
        runner.run(everybody())
    return np.array(passed)


@pytest.mark.parametrize("per_minute", [1, 10, 60, 3000])
@pytest.mark.parametrize("late", [0.0, 0.01])
def test_no_minute_sees_more_than_the_limit_and_nine_tenths_are_used(per_minute, late):
    times = passes(per_minute, [1] * (2 * per_minute + 1), late)[:, 0]
    minutes = [((times >= start) & (times < start + 60)).sum() for start in times]
    assert max(minutes) <= per_minute
    assert 2 * per_minute / (times[-1] / 60) >= 0.9 * per_minute


def test_tokens_of_any_size_pass_in_order_at_the_rate():
    amounts = np.random.default_rng(0).integers(1, 20_000, 50)  # some above a minute's allowance
    found = passes(10_000, list(amounts), 0.002)
    np.testing.assert_array_equal(found[:, 1], amounts)
    rate = amounts[:-1].sum() / found[-1, 0] * 60
    assert 0.9 * 10_000 <= rate <= 10_000


@pytest.mark.parametrize(("taken", "used"), [(900, 300), (300, 900)])
def test_tokens_known_later_count_as_what_they_were(taken, used):
    found = passes(60_000, [taken] * 600, correct=used)
    rate = found[:-1, 1].sum() / found[-1, 0] * 60
    assert 0.9 * 60_000 <= rate <= 1.05 * 60_000
    minutes = [found[(found[:, 0] >= t) & (found[:, 0] < t + 60), 1].sum() for t in found[:, 0]]
    assert max(minutes[50:]) <= 60_000


def test_the_limits_hold_against_a_real_server(make, monkeypatch):
    monkeypatch.setattr(Pace, "SAVED_SECONDS", 0.1)
    texts = [f"text {i}" for i in range(60)]
    with Server(lambda s, n: (200, answer("re", prompt=80, completion=20), {})) as server:
        op = make(server, requests_per_minute=3000, concurrency=40, timeout=10)
        ask(op, texts[:30])
        ask(op, texts[30:])  # one pace over all chunks
        # 48 a second; a slow machine can only take longer.
        assert server.requests == 60 and server.times[-1] - server.times[0] >= 1.0
        agrees(op.usage, server)
