"""A real local server stands for the endpoint: what it is sent, and what its answers become."""

import http.server
import json
import threading

import numpy as np
import pytest

from ssl_guard.errors import BadInput
from ssl_guard.evaluation import moderation


class Endpoint(http.server.ThreadingHTTPServer):
    """Answers POST with answer(texts, number of the request) -> (status, headers, body)."""

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.seen = answer, []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.seen.append((self.path, dict(self.headers), body))
        status, headers, answer = self.server.answer(body["input"], len(self.server.seen))
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**headers, "content-length": len(data)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(answer):
        servers.append(Endpoint(answer))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def waits(monkeypatch):
    """Seconds that were waited for, without waiting."""
    found = []
    monkeypatch.setattr(moderation.time, "sleep", found.append)
    return found


def result(text):
    """Of a text that is a number: that score in one of two categories."""
    score = float(text)
    return {"flagged": score > 0.7, "category_scores": {"hate": score / 2, "violence": score}}


def fine(texts, _):
    return 200, {}, {"results": [result(text) for text in texts]}


def test_the_largest_category_and_the_flag_of_every_text_in_order(serve):
    endpoint = serve(fine)
    texts = ["0.1", "0.9", "0.75", "0.3", "0.6"]
    found = moderation.moderate(f"{endpoint.url}/", texts, model="omni", key="k", batch_size=2)
    np.testing.assert_allclose(found.scores, [0.1, 0.9, 0.75, 0.3, 0.6])
    assert found.flagged.tolist() == [False, True, True, False, False]
    assert sorted(len(body["input"]) for _, _, body in endpoint.seen) == [1, 2, 2]
    for path, headers, body in endpoint.seen:
        headers = {name.lower(): value for name, value in headers.items()}
        assert path == "/v1/moderations" and headers["authorization"] == "Bearer k"
        assert body["model"] == "omni"


def test_without_a_key_or_model_none_is_sent_and_flags_alone_are_scores(serve):
    endpoint = serve(
        lambda texts, _: (200, {}, {"results": [{"flagged": t == "x"} for t in texts]})
    )
    found = moderation.moderate(endpoint.url, ["x", "y"])
    assert found.scores.tolist() == [1.0, 0.0] and found.flagged.tolist() == [True, False]
    (_, headers, body) = endpoint.seen[0]
    assert "authorization" not in {name.lower() for name in headers} and set(body) == {"input"}


def test_a_busy_or_broken_endpoint_is_asked_again(serve, waits):
    def answer(texts, number):
        early = {1: (429, {"Retry-After": "7"}, b""), 2: (500, {}, b""), 3: (503, {}, b"")}
        return early.get(number) or fine(texts, number)

    found = moderation.moderate(serve(answer).url, ["0.2", "0.8"])
    np.testing.assert_allclose(found.scores, [0.2, 0.8])
    assert waits == [7, 2, 4]


@pytest.mark.parametrize("header", ["nan", "inf", "-5", "0", "soon"])
def test_a_retry_after_that_says_nothing_is_not_waited_for(serve, waits, header):
    def answer(texts, number):
        return (429, {"Retry-After": header}, b"") if number == 1 else fine(texts, number)

    found = moderation.moderate(serve(answer).url, ["0.2"])
    np.testing.assert_allclose(found.scores, [0.2])
    assert waits == [1]


@pytest.mark.parametrize("status", [400, 413, 500])
def test_a_text_that_fails_for_good_is_missing_and_takes_no_other_with_it(serve, waits, status):
    def answer(texts, number):
        return (status, {}, b"") if "0.4" in texts else fine(texts, number)

    texts = ["0.1", "0.2", "0.3", "0.4", "0.5"]
    found = moderation.moderate(serve(answer).url, texts, attempts=3)
    np.testing.assert_allclose(found.scores, [0.1, 0.2, 0.3, np.nan, 0.5])
    assert waits == ([1, 2] if status == 500 else [])


@pytest.mark.parametrize(
    "answer, message",
    [
        ((200, {}, {"results": [result("0.1")]}), "gave 1 results for 2 texts"),
        ((200, {}, {"choices": []}), "without a list of results"),
        ((200, {}, b"<html>"), "not JSON"),
        ((200, {}, {"results": [{"category_scores": {"hate": 0.1}}] * 2}), "without `flagged`"),
        ((200, {}, {"results": [{"flagged": True, "category_scores": {"a": "b"}}] * 2}), "number"),
        ((401, {}, b""), "answered 401"),
        ((404, {}, b""), "answered 404"),
        ((307, {"Location": "http://elsewhere.invalid"}, b""), "answered 307"),
        ((400, {}, b""), "for none of 2 texts"),
    ],
)
def test_an_endpoint_that_is_none_is_told_in_one_sentence(serve, answer, message):
    with pytest.raises(BadInput, match=message) as error:
        moderation.moderate(serve(lambda *_: answer).url, ["secret one", "secret two"], key="k-1")
    assert "secret" not in str(error.value) and "k-1" not in str(error.value)


def test_nobody_listens(waits):
    with pytest.raises(BadInput, match="cannot be reached"):
        moderation.moderate("http://127.0.0.1:9/v1", ["a"], attempts=2)
    assert waits == [1]


@pytest.mark.parametrize(
    "url, message",
    [
        ("host/v1", "is no URL"),
        ("ftp://host/v1", "is no URL"),
        ("https://me:secret@host/v1", "in the environment"),
        ("https://host/v1?key=secret", "in the environment"),
        ("http://host/v1", "in the clear"),
    ],
)
def test_urls_that_are_refused(url, message):
    with pytest.raises(BadInput, match=message) as error:
        moderation.moderate(url, ["a"], key="k")
    assert "secret" not in str(error.value)
