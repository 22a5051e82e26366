"""EDA, easy data augmentation: Wei and Zou 2019, arXiv 1901.11196.

One of four changes is drawn for each text, sized alpha times its words, at least one: synonyms in
place of words, synonyms inserted, words swapped, words left out. Unlike EDA's own code, casing and
punctuation stay, and so do negations, without which a refusal would read as compliance. Synonyms
come from a small table of common words, tables/synonyms.txt, in place of WordNet.

For prompts and responses alike. The label survives because nearly all words do. It may not where
the one word that carried the harm is left out, where a swap turns who does what to whom, or where a
synonym is taken from another sense of the word.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ssl_guard.augment.base import Rewrite, check_share, each
from ssl_guard.augment.words import WORD, cased_like, some
from ssl_guard.errors import BadInput

NEGATIONS = {"no", "not", "none", "never", "nor", "neither", "nobody", "nothing", "without"}
NEGATIONS |= {"cannot", "unable", "refuse", "decline"}


def _read_synonyms(path: Path) -> dict[str, list[str]]:
    """{word: its synonyms} of a file of one group of words on a line; words may be in several."""
    groups: dict[str, dict[str, None]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.split()
        for word in words:
            groups.setdefault(word, {}).update(dict.fromkeys(w for w in words if w != word))
    return {word: list(others) for word, others in groups.items()}


SYNONYMS = _read_synonyms(Path(__file__).with_name("tables") / "synonyms.txt")


def eda(
    texts: Iterable[str], *, replacement: float, insertion: float, swap: float, deletion: float
) -> Rewrite:
    """EDA; each argument is the alpha of one change, a share of the words, 0 to never draw it.

    The paper advises 0.1 for all, 0.05 for large training sets. Of the changes with an alpha, the
    first in a random order that the text allows is made; None for a text that allows none. Raises
    BadInput for an alpha that is no share and where all are 0.
    """
    alphas = {
        "replacement": replacement,
        "insertion": insertion,
        "swap": swap,
        "deletion": deletion,
    }
    for name, alpha in alphas.items():
        check_share("eda", name, alpha)
    kinds = [(CHANGES[name], alpha) for name, alpha in alphas.items() if alpha]
    if not kinds:
        raise BadInput("the augmentation 'eda' needs at least one alpha above 0; all four are 0.")

    def change(text: str, rng: np.random.Generator) -> str | None:
        for number in rng.permutation(len(kinds)):
            kind, alpha = kinds[number]
            new = kind(WORD.split(text), rng, alpha)
            if new is not None:
                return new
        return None

    return each(change)


# Each change takes the pieces of WORD.split: words at odd places, the rest at even ones.


def _replace(pieces: list[str], rng: np.random.Generator, alpha: float) -> str | None:
    """Every occurrence of alpha * words distinct words becomes one synonym of the word."""
    known = list(dict.fromkeys(w for word in pieces[1::2] if (w := word.lower()) in SYNONYMS))
    if not known:
        return None
    chosen = rng.permutation(len(known))[: max(1, int(alpha * (len(pieces) // 2)))]
    draws = rng.random(len(chosen)).tolist()
    synonym = {}
    for number, draw in zip(chosen.tolist(), draws, strict=True):
        others = SYNONYMS[known[number]]
        synonym[known[number]] = others[int(draw * len(others))]
    for place in range(1, len(pieces), 2):
        new = synonym.get(pieces[place].lower())
        if new is not None:
            pieces[place] = cased_like(pieces[place], new)
    return "".join(pieces)


def _insert(pieces: list[str], rng: np.random.Generator, alpha: float) -> str | None:
    """alpha * words times, a synonym of a random word of the text comes after a random word."""
    known = [w for word in pieces[1::2] if (w := word.lower()) in SYNONYMS]
    if not known:
        return None
    count = len(pieces) // 2
    for source, draw, where in rng.random((max(1, int(alpha * count)), 3)).tolist():
        others = SYNONYMS[known[int(source * len(known))]]
        pieces[2 * int(where * count) + 1] += " " + others[int(draw * len(others))]
    return "".join(pieces)


def _swap(pieces: list[str], rng: np.random.Generator, alpha: float) -> str | None:
    """alpha * words times, two different words of the text change places, casing and all."""
    count = len(pieces) // 2
    if len(set(pieces[1::2])) < 2:
        return None
    before = pieces.copy()
    for first, second in rng.random((max(1, int(alpha * count)), 2)).tolist():
        a, b = 2 * int(first * count) + 1, 2 * int(second * count) + 1
        pieces[a], pieces[b] = pieces[b], pieces[a]
    if pieces == before:  # a word met itself or its equal: the first meets another one
        b = next(place for place in range(3, len(pieces), 2) if pieces[place] != pieces[1])
        pieces[1], pieces[b] = pieces[b], pieces[1]
    return "".join(pieces)


def _delete(pieces: list[str], rng: np.random.Generator, alpha: float) -> str | None:
    """Every word but a negation is left out with probability alpha, but never all of them."""
    able = [
        place
        for place in range(1, len(pieces), 2)
        if (word := pieces[place].lower()) not in NEGATIONS and not word.endswith(("n't", "n’t"))
    ]
    if len(pieces) < 5 or not able:
        return None
    gone = some(rng, len(able), alpha)
    if 2 * len(gone) == len(pieces) - 1:
        gone.pop(int(rng.integers(len(gone))))
    indented = pieces[0][:1].isspace()
    for number in gone:
        place = able[number]
        pieces[place] = ""
        if pieces[place - 1][-1:].isspace():  # the white space before the word goes with it
            pieces[place - 1] = pieces[place - 1][:-1]
    new = "".join(pieces)
    return new if indented else new.lstrip()


CHANGES = {"replacement": _replace, "insertion": _insert, "swap": _swap, "deletion": _delete}
