"""Character noise: the mistakes of a hand on a keyboard, and of a machine that reads a scan.

For prompts and responses alike. The label survives because a reader still knows each word. It may
not where one letter makes another word ("bomb", "comb"), so keep p small.
"""

import re
from collections.abc import Iterable

import numpy as np

from ssl_guard.augment.base import Rewrite, check_share, each
from ssl_guard.augment.words import change_some, some

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # each is half a key to the right of the one above


def _neighbours() -> dict[str, str]:
    """{letter: the letters whose keys touch its key}, in both cases."""
    at = {key: (x + row / 2, row) for row, keys in enumerate(ROWS) for x, key in enumerate(keys)}
    near = {
        key: "".join(o for o, (u, v) in at.items() if 0 < (u - x) ** 2 + (v - y) ** 2 < 2)
        for key, (x, y) in at.items()
    }
    return near | {key.upper(): others.upper() for key, others in near.items()}


NEIGHBOURS = _neighbours()
LETTER = re.compile("[A-Za-z]")

# What optical character recognition takes for what.
CONFUSED = {
    "rn": "m",
    "m": "rn",
    "cl": "d",
    "d": "cl",
    "vv": "w",
    "w": "vv",
    "li": "h",
    "h": "b",
    "e": "c",
    "c": "e",
    "u": "v",
    "v": "u",
    "n": "r",
    "i": "l",
    "l": "1",
    "1": "l",
    "o": "0",
    "0": "O",
    "O": "0",
    "I": "l",
    "S": "5",
    "5": "S",
    "s": "8",
    "B": "8",
    "8": "B",
    "Z": "2",
    "2": "Z",
    "G": "6",
    "6": "G",
    "T": "7",
    "g": "9",
    "9": "g",
}
CONFUSABLE = re.compile("(" + "|".join(sorted(CONFUSED, key=len, reverse=True)) + ")")


def keyboard(texts: Iterable[str], *, p: float) -> Rewrite:
    """One slip of the finger in a share p of the words that have a Latin letter, at least in one.

    A letter comes out as its neighbour on a QWERTY keyboard, doubled, left out, or after the letter
    that follows it. Raises BadInput for a p that is no share.
    """
    check_share("keyboard", "p", p)

    def change(text: str, rng: np.random.Generator) -> str | None:
        return change_some(
            text,
            rng,
            p=p,
            able=lambda word: LETTER.search(word) is not None,
            change=lambda word, _: _slip(word, rng),
        )

    return each(change)


def _slip(word: str, rng: np.random.Generator) -> str:
    letters = [match.start() for match in LETTER.finditer(word)]
    where, which, kind = rng.random(3).tolist()
    i = letters[int(where * len(letters))]
    before, letter, after = word[:i], word[i], word[i + 1 :]
    if kind < 0.2:
        return before + 2 * letter + after
    if kind < 0.4 and len(word) > 1:
        return before + after
    if kind < 0.6 and after and after[0] != letter:
        return before + after[0] + letter + after[1:]
    near = NEIGHBOURS[letter]
    return before + near[int(which * len(near))] + after


def ocr(texts: Iterable[str], *, p: float) -> Rewrite:
    """A share p of the characters that a scanner confuses, at least one, is confused.

    Pairs of letters count as one where they look like one ("rn", m). Raises BadInput for a p that
    is no share.
    """
    check_share("ocr", "p", p)

    def change(text: str, rng: np.random.Generator) -> str | None:
        pieces = CONFUSABLE.split(text)
        if len(pieces) == 1:
            return None
        for number in some(rng, len(pieces) // 2, p):
            place = 2 * number + 1
            pieces[place] = CONFUSED[pieces[place]]
        return "".join(pieces)

    return each(change)
