"""The config of a run: its keys and defaults, their ranges and checks, and its JSON form."""

from ssl_guard.config.checks import check
from ssl_guard.config.defaults import default, leaves, smoke, variant
from ssl_guard.config.stored import (
    MAY_CHANGE,
    REMOVED,
    RENAMED,
    as_json,
    current_keys,
    from_json,
    refuse_other,
)

__all__ = [
    "MAY_CHANGE",
    "REMOVED",
    "RENAMED",
    "as_json",
    "check",
    "current_keys",
    "default",
    "from_json",
    "leaves",
    "refuse_other",
    "smoke",
    "variant",
]
