"""EDA, easy data augmentation: Wei and Zou 2019, arXiv 1901.11196.

One of four changes is drawn for each text: synonym replacement, synonym insertion, word swap, or
word deletion, of alpha times its words, at least one. Unlike the reference code, this keeps casing,
punctuation and negations; a refusal without its negation would read as compliance. Synonyms come
from tables/synonyms.txt, a small table of common words, and not from WordNet.

For prompts and responses. The label survives because nearly all words do. It may not if the one
harmful word is deleted, if a swap exchanges subject and object, or if a synonym has another sense.
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
    """Reads {word: synonyms} from a file with one group a line; a word may be in several groups."""
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
    """Returns the EDA rewrite. Each argument is the alpha of one change; 0 turns the change off.

    alpha: share of the words, 0 to 1. The paper recommends 0.1, and 0.05 for large training sets.
    The changes are tried in random order until one applies; None if none does. Raises BadInput for
    an alpha outside [0, 1], or if all are 0.
    """
    alphas = dict(zip(CHANGES, (replacement, insertion, swap, deletion), strict=True))
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


# Each change takes the pieces of WORD.split: words at odd indices, the rest at even ones.


def _replace(pieces: list[str], rng: np.random.Generator, alpha: float) -> str | None:
    """Replaces alpha * words distinct words, each by one synonym in all its occurrences."""
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
    """Inserts a synonym of a random word after a random word, alpha * words times."""
    known = [w for word in pieces[1::2] if (w := word.lower()) in SYNONYMS]
    if not known:
        return None
    count = len(pieces) // 2
    for source, draw, where in rng.random((max(1, int(alpha * count)), 3)).tolist():
        others = SYNONYMS[known[int(source * len(known))]]
        pieces[2 * int(where * count) + 1] += " " + others[int(draw * len(others))]
    return "".join(pieces)


def _swap(pieces: list[str], rng: np.random.Generator, alpha: float) -> str | None:
    """Swaps two words with their casing, alpha * words times."""
    count = len(pieces) // 2
    if len(set(pieces[1::2])) < 2:
        return None
    before = pieces.copy()
    for first, second in rng.random((max(1, int(alpha * count)), 2)).tolist():
        a, b = 2 * int(first * count) + 1, 2 * int(second * count) + 1
        pieces[a], pieces[b] = pieces[b], pieces[a]
    if pieces == before:  # only equal words were swapped: swap the first with another
        b = next(place for place in range(3, len(pieces), 2) if pieces[place] != pieces[1])
        pieces[1], pieces[b] = pieces[b], pieces[1]
    return "".join(pieces)


def _delete(pieces: list[str], rng: np.random.Generator, alpha: float) -> str | None:
    """Deletes each word except negations with probability alpha, but never all words."""
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
        if pieces[place - 1][-1:].isspace():  # delete the white space before it too
            pieces[place - 1] = pieces[place - 1][:-1]
    new = "".join(pieces)
    return new if indented else new.lstrip()


CHANGES = {"replacement": _replace, "insertion": _insert, "swap": _swap, "deletion": _delete}
