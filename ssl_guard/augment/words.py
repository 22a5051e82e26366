"""Changes words or characters of a text and keeps the rest of it."""

import re
from collections.abc import Callable

import numpy as np

from ssl_guard.augment.base import Rewrite, check_share, each

# From a word character to the last word character before white space: "(don't)," -> don't.
# WORD.split(text) has the words at odd indices and the text between them at even ones.
WORD = re.compile(r"(\w(?:\S*\w)?)")


def cased_like(old: str, new: str) -> str:
    """Returns new in the casing of old: UPPER, Capitalised, else unchanged."""
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new.capitalize() if old[:1].isupper() else new


def some(rng: np.random.Generator, count: int, p: float) -> list[int]:
    """Draws each index below count with probability p, but at least one. Sorted; count >= 1."""
    drawn = np.flatnonzero(rng.random(count) < p).tolist()
    return drawn or [int(rng.integers(count))]


def change_some(
    text: str,
    rng: np.random.Generator,
    *,
    p: float,
    able: Callable[[str], bool],
    change: Callable[[str, float], str],
) -> str | None:
    """Replaces a share p, and at least one, of the words for which able(word) holds.

    The replacement is change(word, draw), with draw uniform in [0, 1). None if there is no such
    word.
    """
    pieces = WORD.split(text)
    candidates = [place for place in range(1, len(pieces), 2) if able(pieces[place])]
    if not candidates:
        return None
    places = some(rng, len(candidates), p)
    for number, draw in zip(places, rng.random(len(places)).tolist(), strict=True):
        place = candidates[number]
        pieces[place] = change(pieces[place], draw)
    return "".join(pieces)


def change_matches(op: str, p: float, pattern: re.Pattern, table: dict[str, str]) -> Rewrite:
    """Returns the rewrite that looks up a share p, and at least one, of the matches in table.

    pattern: one group around the whole match. None for a text without a match. Raises BadInput
    unless p is in [0, 1].
    """
    check_share(op, "p", p)

    def change(text: str, rng: np.random.Generator) -> str | None:
        pieces = pattern.split(text)
        if len(pieces) == 1:
            return None
        for number in some(rng, len(pieces) // 2, p):
            pieces[2 * number + 1] = table[pieces[2 * number + 1]]
        return "".join(pieces)

    return each(change)
