"""Defines the type of augmentation operations, and functions that several of them share."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from ssl_guard.errors import BadInput

Rewrite = Callable[[Sequence[str], Sequence[np.random.Generator]], list[str | None]]

# From a word character to the last word character before white space: "(don't)," -> don't.
# WORD.split(text) has the words at odd indices and the text between them at even ones.
WORD = re.compile(r"(\w(?:\S*\w)?)")


def each(change: Callable[[str, np.random.Generator], str | None]) -> Rewrite:
    """Returns the rewrite that applies change(text, rng) to each text."""

    def rewrite(texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str | None]:
        return [change(text, rng) for text, rng in zip(texts, rngs, strict=True)]

    return rewrite


def check_share(op: str, name: str, value: float) -> None:
    """Raises BadInput unless an argument of an operation is between 0 and 1."""
    if not 0 <= value <= 1:
        raise BadInput(
            f"the argument {name} of the augmentation {op!r} is {value}; give a share, 0 to 1."
        )


def check_part(op: str, part: str) -> None:
    """Raises BadInput unless part is "prompt" or "response"."""
    if part not in ("prompt", "response"):
        raise BadInput(
            f"the argument part of the augmentation {op!r} is {part!r}; give 'prompt' or "
            "'response'."
        )


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
    p: float,
    able: Callable[[str], object],
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
