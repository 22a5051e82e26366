"""Parses HTTP headers."""

import email.utils
import math


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
