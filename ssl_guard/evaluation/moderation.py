"""Scores texts with an OpenAI-compatible moderation endpoint, POST {base_url}/moderations:

{"input": [text, ...]} -> {"results": [{"flagged": true, "category_scores": {name: score}}, ...]}
"""

import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2
import numpy as np
import tenacity

from ssl_guard.errors import BadInput
from ssl_guard.runtime.http import BUSY, Busy, retries, retry_after

REFUSED = (401, 403, 404, 405)  # every request would fail
LOOPBACK = ("localhost", "127.0.0.1", "::1")
TIMEOUT = 60.0  # seconds


class Moderation(NamedTuple):
    """Scores and verdicts of an endpoint.

    scores: float64 [texts], the largest score over all categories, or 1 and 0 as flagged where the
        endpoint gives none; NaN for a text that it failed on for good.
    flagged: bool [texts], the endpoint's own verdict; False for those texts.
    """

    scores: np.ndarray
    flagged: np.ndarray


def moderate(
    base_url: str,
    texts: Sequence[str],
    *,
    model: str = "",
    key: str = "",
    batch_size: int = 32,
    attempts: int = 6,
    wait: float = 1.0,
) -> Moderation:
    """Sends all texts, one batch per request.

    model is sent if it is not empty, and key as a bearer token. A request with a busy answer
    (runtime.http.BUSY) is sent `attempts` times in all, after Retry-After or `wait` seconds and
    twice as long each time. A batch that fails for good is sent in halves, so that one bad text
    does not fail others.

    Raises BadInput for an invalid URL or one that would send the key unencrypted, an endpoint that
    cannot be reached or refuses, and an answer with another shape or number of results.
    """
    url = _checked_url(base_url, key)
    body = {"model": model} if model else {}
    scores, flagged = np.full(len(texts), np.nan), np.zeros(len(texts), bool)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    todo = [
        (range(start, min(start + batch_size, len(texts))), attempts)
        for start in range(0, len(texts), batch_size)
    ]
    with httpx2.Client(headers=headers, timeout=TIMEOUT) as client:
        while todo:
            rows, tries = todo.pop()
            answer = _post(client, url, body | {"input": [texts[i] for i in rows]}, tries, wait)
            if answer is None:
                half = len(rows) // 2
                # After all attempts, a failure is due to the text, or the endpoint is down.
                todo += [(part, 1) for part in (rows[:half], rows[half:]) if half]
                continue
            for row, result in zip(rows, _results(url, answer, len(rows)), strict=True):
                scores[row], flagged[row] = _score(url, result)
    if len(texts) and np.isnan(scores).all():
        raise BadInput(f"{url} answered for none of {len(texts)} texts: see the endpoint's log.")
    return Moderation(scores, flagged)


def _checked_url(base_url: str, key: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"moderation:{base_url} is no URL: give one such as https://host/v1.")
    if parts.username or parts.password or parts.query:
        raise BadInput(
            f"moderation: the URL of {parts.hostname} holds more than a host and a path: give the "
            "key in the environment."
        )
    if key and parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise BadInput(f"{base_url} would carry the key in the clear: use https.")
    return f"{base_url.rstrip('/')}/moderations"


def _post(client: httpx2.Client, url: str, body: dict, attempts: int, wait: float):
    """Returns the answer's JSON, or None if these texts failed for good."""

    def ask():
        try:
            response = client.post(url, json=body)
        except httpx2.TransportError as error:
            raise Busy from error
        if response.status_code in REFUSED or response.is_redirect:
            raise BadInput(
                f"{url} answered {response.status_code}: check the URL, and the key in the "
                "environment."
            )
        if response.status_code in BUSY:
            raise Busy(retry_after(response.headers.get("retry-after"), time.time()))
        if response.status_code != 200:
            return None  # the endpoint refuses this text
        try:
            return response.json()
        except ValueError:
            raise BadInput(f"{url} answered with something that is not JSON.") from None

    try:
        return tenacity.Retrying(**retries(attempts, tenacity.wait_exponential(wait)))(ask)
    except Busy as busy:
        if busy.__cause__ is None:
            return None
        reason = type(busy.__cause__).__name__
        raise BadInput(f"{url} cannot be reached ({reason}): start it, or check the URL.") from None


def _results(url: str, answer, count: int) -> list:
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list):
        raise BadInput(
            f"{url} answered without a list of results: it is not a moderation endpoint."
        )
    if len(results) != count:
        raise BadInput(f"{url} gave {len(results)} results for {count} texts: mend the endpoint.")
    return results


def _score(url: str, result) -> tuple[float, bool]:
    found = result if isinstance(result, dict) else {}
    by_category, flagged = found.get("category_scores") or {}, found.get("flagged")
    values: list = list(by_category.values()) if isinstance(by_category, dict) else [None]
    numbers = [value for value in values if type(value) in (int, float) and np.isfinite(value)]
    if type(flagged) is not bool or len(numbers) < len(values):
        raise BadInput(
            f"{url} gave a result without `flagged`, or with a category score that is no number: "
            "mend the endpoint."
        )
    return float(max(numbers, default=flagged)), flagged
