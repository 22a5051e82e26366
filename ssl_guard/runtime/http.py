"""Retries requests to busy servers."""

import email.utils
import math

import tenacity
from tenacity.wait import wait_base

BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # statuses worth another attempt
MAX_WAIT_SECONDS = 60.0  # between two attempts


class Busy(Exception):
    """A request failed and may succeed later. seconds: its Retry-After, 0 if there is none."""

    def __init__(self, seconds: float = 0.0):
        super().__init__()
        self.seconds = seconds


def retries(attempts: int, backoff: wait_base) -> dict:
    """Returns the arguments of tenacity.Retrying or AsyncRetrying for a call that raises Busy.

    The wait is the server's Retry-After, or else that of `backoff`, at most MAX_WAIT_SECONDS. After
    the last attempt the caller gets Busy.
    """

    def wait(state: tenacity.RetryCallState) -> float:
        busy = state.outcome.exception() if state.outcome else None
        seconds = busy.seconds if isinstance(busy, Busy) else 0.0
        return min(seconds or backoff(state), MAX_WAIT_SECONDS)

    return {
        "retry": tenacity.retry_if_exception_type(Busy),
        "stop": tenacity.stop_after_attempt(attempts),
        "wait": wait,
        "reraise": True,
    }


def retry_after(value: str | None, now: float) -> float:
    """Parses a Retry-After header, seconds or an HTTP date (RFC 9110, 10.2.3), into seconds.

    now: seconds since 1970. Returns 0 for a missing or invalid header.
    """
    value = value or "0"
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except ValueError:
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
