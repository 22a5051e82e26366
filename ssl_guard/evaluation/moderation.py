"""Scores of an OpenAI-shaped moderation endpoint, POST {base_url}/moderations:

{"input": [text, ...]} -> {"results": [{"flagged": true, "category_scores": {name: score}}, ...]}
"""

import time
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2
import numpy as np

from ssl_guard.errors import BadInput
from ssl_guard.runtime.http import retry_after

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
REFUSED = (401, 403, 404, 405)  # no text would fare better
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LONGEST_WAIT = 60.0  # seconds


class Moderation(NamedTuple):
    """What the endpoint says of every text.

    scores: float64 [texts], the largest score over all categories, or 1 and 0 as flagged where the
        endpoint gives none; not a number for a text that it failed on for good.
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
    """Asks for all texts, a batch a request.

    model is sent if it is not empty, and key as a bearer token. A busy or broken answer (RETRIED)
    is asked for again, `attempts` times in all, after Retry-After or `wait` seconds and twice as
    long each time. A batch that fails for good is asked for in halves, so that one text does not
    take others with it.

    Raises BadInput for a URL that is none or would carry the key in the clear, an endpoint that
    cannot be reached or refuses, and an answer of another shape or number of results.
    """
    url = _checked_url(base_url, key)
    body = {"model": model} if model else {}
    scores, flagged = np.full(len(texts), np.nan), np.zeros(len(texts), bool)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    todo = [
        (range(start, min(start + batch_size, len(texts))), attempts)
        for start in range(0, len(texts), batch_size)
    ]
    with httpx2.Client(headers=headers, timeout=LONGEST_WAIT) as client:
        while todo:
            rows, tries = todo.pop()
            answer = _post(client, url, body | {"input": [texts[i] for i in rows]}, tries, wait)
            if answer is None:
                half = len(rows) // 2
                # The wait is over: what fails now is the text's fault, or the endpoint is down.
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
    """The answer's JSON, or None if these texts failed for good."""
    for attempt in range(1, attempts + 1):
        try:
            response = client.post(url, json=body)
        except httpx2.TransportError as error:
            if attempt == attempts:
                raise BadInput(
                    f"{url} cannot be reached ({type(error).__name__}): start it, or check the URL."
                ) from None
            _sleep("", wait, attempt)
            continue
        if response.status_code == 200:
            try:
                return response.json()
            except ValueError:
                raise BadInput(f"{url} answered with something that is not JSON.") from None
        if response.status_code in REFUSED or response.is_redirect:
            raise BadInput(
                f"{url} answered {response.status_code}: check the URL, and the key in the "
                "environment."
            )
        if response.status_code not in RETRIED:
            return None  # it does not want this text
        if attempt < attempts:
            _sleep(response.headers.get("retry-after", ""), wait, attempt)
    return None


def _sleep(header: str, wait: float, attempt: int) -> None:
    seconds = retry_after(header, time.time()) or wait * 2 ** (attempt - 1)
    time.sleep(min(seconds, LONGEST_WAIT))


def _results(url: str, answer, count: int) -> list:
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list):
        raise BadInput(f"{url} answered without a list of results: it is no moderation endpoint.")
    if len(results) != count:
        raise BadInput(f"{url} gave {len(results)} results for {count} texts: mend the endpoint.")
    return results


def _score(url: str, result) -> tuple[float, bool]:
    found = result if isinstance(result, dict) else {}
    by_category, flagged = found.get("category_scores") or {}, found.get("flagged")
    values = by_category.values() if isinstance(by_category, dict) else [None]
    numbers = [value for value in values if type(value) in (int, float) and np.isfinite(value)]
    if type(flagged) is not bool or len(numbers) < len(values):
        raise BadInput(
            f"{url} gave a result without `flagged`, or with a category score that is no number: "
            "mend the endpoint."
        )
    return float(max(numbers, default=flagged)), flagged
