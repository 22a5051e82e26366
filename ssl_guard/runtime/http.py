"""How long a busy server asks its clients to wait."""

import email.utils
import math


def retry_after(value: str | None, now: float) -> float:
    """Seconds to wait, by a Retry-After header of seconds or of an HTTP date (RFC 9110, 10.2.3).

    now: seconds since 1970. 0 without a header, or with one that says neither.
    """
    try:
        seconds = float(value or 0)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except ValueError:
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
