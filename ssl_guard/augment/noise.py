"""Adds character noise: typing mistakes, and mistakes of optical character recognition.

For prompts and responses. The label survives because each word stays recognisable. It may not where
one letter makes another word ("bomb", "comb"), so keep p small.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ssl_guard.augment.base import Rewrite, check_share, each
from ssl_guard.augment.words import change_matches, change_some

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")  # each row is offset by half a key


def _neighbours() -> dict[str, str]:
    """Returns {letter: letters of adjacent keys}, in both cases."""
    at = {key: (x + row / 2, row) for row, keys in enumerate(ROWS) for x, key in enumerate(keys)}
    near = {
        key: "".join(o for o, (u, v) in at.items() if 0 < (u - x) ** 2 + (v - y) ** 2 < 2)
        for key, (x, y) in at.items()
    }
    return near | {key.upper(): others.upper() for key, others in near.items()}


NEIGHBOURS = _neighbours()
LETTER = re.compile("[A-Za-z]")

# Confusions of optical character recognition.
TABLE = (Path(__file__).with_name("tables") / "ocr.tsv").read_text(encoding="utf-8")
CONFUSED = dict(line.split("\t") for line in TABLE.splitlines())
CONFUSABLE = re.compile("(" + "|".join(sorted(CONFUSED, key=len, reverse=True)) + ")")


def keyboard(texts: Iterable[str], *, p: float) -> Rewrite:
    """Makes one typing mistake in a share p, and at least one, of the words with a Latin letter.

    A letter is replaced by a neighbour on a QWERTY keyboard, doubled, omitted, or swapped with the
    next letter. Raises BadInput unless p is in [0, 1].
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
    """Confuses a share p, and at least one, of the characters that OCR confuses.

    A pair of letters that looks like one letter counts as one ("rn", m). Raises BadInput unless p
    is in [0, 1].
    """
    return change_matches("ocr", p, CONFUSABLE, CONFUSED)
