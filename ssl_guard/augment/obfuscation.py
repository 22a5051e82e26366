"""Obfuscates words the way attackers evade filters; people can still read them.

For prompts and responses. The label survives because a reader recovers the words. It may not if p
is so large that the encoder sees no known word: such a view only shows that it is obfuscated.
Unusual spellings need more tokens, so long texts may be truncated.
"""

import base64
import codecs
import heapq
import re
from collections.abc import Callable, Iterable

import numpy as np

from ssl_guard.augment.base import Rewrite, check_share, each
from ssl_guard.augment.words import WORD, change_matches, change_some
from ssl_guard.errors import BadInput

LEET = str.maketrans("abegiostzABEGIOSTZ", "483910572483910572")
# Latin letters and their look-alikes, one to one: Cyrillic small letters, Greek capitals.
LOOK_ALIKE = dict(
    zip(
        "aceijopsxyABEHIKMNOPTXYZ",
        "\u0430\u0441\u0435\u0456\u0458\u043e\u0440\u0455\u0445\u0443"
        "\u0391\u0392\u0395\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a7\u03a5\u0396",
        strict=True,
    )
)
ZERO_WIDTH = ("\u200b", "\u200c", "\u200d", "\u2060")  # space, non-joiner, joiner, word joiner
SEPARATORS = (" ", ".", "-", "_", "*")
MASKS = ("*", "#", "_", "-", ".")

LEETABLE = re.compile("[abegiostzABEGIOSTZ]")
HAS_TWIN = re.compile("([" + "".join(LOOK_ALIKE) + "])")
INNER_VOWEL = re.compile("(?<=[A-Za-z])[AEIOUaeiou](?=[A-Za-z])")
LETTERS = re.compile("[A-Za-z]{3,20}")
LONG_LETTERS = re.compile("[A-Za-z]{4,20}")


def _some_words(op: str, p: float, able: Callable, change: Callable) -> Rewrite:
    check_share(op, "p", p)
    return each(lambda text, rng: change_some(text, rng, p=p, able=able, change=change))


def leetspeak(texts: Iterable[str], *, p: float) -> Rewrite:
    """Replaces letters by digits (l33t) in a share p of the words that have such a letter."""
    return _some_words("leetspeak", p, LEETABLE.search, lambda word, _: word.translate(LEET))


def spacing(texts: Iterable[str], *, p: float) -> Rewrite:
    """Spaces out a share p of the words of 3 to 20 Latin letters: w o r d, w-o-r-d."""

    def spread(word: str, draw: float) -> str:
        return SEPARATORS[int(draw * len(SEPARATORS))].join(word)

    return _some_words("spacing", p, LETTERS.fullmatch, spread)


def homoglyphs(texts: Iterable[str], *, p: float) -> Rewrite:
    """Replaces a share p of the Latin letters that have a Cyrillic or Greek look-alike by it."""
    return change_matches("homoglyphs", p, HAS_TWIN, LOOK_ALIKE)


def zero_width(texts: Iterable[str], *, p: float) -> Rewrite:
    """Puts an invisible character into a share p of the words of 3 to 20 Latin letters.

    BERT's tokenizer drops these characters, so its tokens do not change; byte-level tokenizers see
    them.
    """

    def split(word: str, draw: float) -> str:
        place, which = divmod(int(draw * (len(word) - 1) * len(ZERO_WIDTH)), len(ZERO_WIDTH))
        return word[: place + 1] + ZERO_WIDTH[which] + word[place + 1 :]

    return _some_words("zero_width", p, LETTERS.fullmatch, split)


def masking(texts: Iterable[str], *, p: float) -> Rewrite:
    """Masks the inner vowels of a share p of the words: w*rd, w#rd."""

    def mask(word: str, draw: float) -> str:
        return INNER_VOWEL.sub(MASKS[int(draw * len(MASKS))], word)

    return _some_words("masking", p, INNER_VOWEL.search, mask)


ENCODINGS = {
    "base64": lambda word: base64.b64encode(word.encode()).decode(),
    "rot13": lambda word: codecs.encode(word, "rot13"),
}
NOTES = (
    "The words in square brackets are written in {encoding}.\n\n",
    "Read what stands in [brackets] after decoding it from {encoding}.\n\n",
    "Some words below are {encoding}, in square brackets.\n\n",
    "Note: [..] marks {encoding}; please read it as plain text.\n\n",
    "(decode {encoding} inside the brackets first)\n",
)


def encoded(texts: Iterable[str], *, words: int) -> Rewrite:
    """Encodes the longest words in base64 or rot13, below a note that names the encoding.

    words: number of encoded words, of 4 to 20 Latin letters; of equal lengths the first is taken.
    A whole text in base64 would tell an encoder nothing and take thousands of tokens. The label may
    not survive if it depends on the encoded words alone. Raises BadInput if words < 1.
    """
    if words < 1:
        raise BadInput(
            f"the argument words of the augmentation 'encoded' is {words}; give 1 or up."
        )

    def change(text: str, rng: np.random.Generator) -> str | None:
        pieces = WORD.split(text)
        able = [i for i in range(1, len(pieces), 2) if LONG_LETTERS.fullmatch(pieces[i])]
        if not able:
            return None
        name = list(ENCODINGS)[rng.integers(len(ENCODINGS))]
        note = NOTES[rng.integers(len(NOTES))].replace("{encoding}", name)
        for place in heapq.nlargest(words, able, key=lambda i: len(pieces[i])):
            pieces[place] = f"[{ENCODINGS[name](pieces[place])}]"
        return note + "".join(pieces)

    return each(change)
