"""Words of a text, changed where they stand: the white space and punctuation around them stay."""

import re
from collections.abc import Callable

import numpy as np

# From a word character to the last word character before white space: "(don't)," -> don't.
# WORD.split(text) has the words at odd places and what is between them at even ones.
WORD = re.compile(r"(\w(?:\S*\w)?)")


def cased_like(old: str, new: str) -> str:
    """new in the casing of old: UPPER, Capitalised, else as it is."""
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new.capitalize() if old[:1].isupper() else new


def some(rng: np.random.Generator, count: int, p: float) -> list[int]:
    """Rising places below count (at least 1): each is drawn with probability p, at least one is."""
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
    """The text with change(word, draw) in place of a share p, at least one, of its able words.

    draw: from 0 to below 1, a random number for the word. None if no word is able.
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
