"""UDA's TF-IDF word replacement: replaces words that carry little of a text's content.

arXiv 1904.12848, appendix A.2. A word with a low TF-IDF in its text is likely to be replaced, by a
word with a low score in the corpus, so that the topic of the text survives.

The label may not survive. Negations ("not", "cannot", "unable") are frequent words of low TF-IDF:
replacing one can turn a refusal into compliance. Keep p moderate, and check the agreement of
pseudo-labels on strong views before increasing it.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable

import numpy as np

from ssl_guard.augment.base import Rewrite, check_share, each
from ssl_guard.augment.words import WORD, cased_like


def tfidf(texts: Iterable[str], *, p: float) -> Rewrite:
    """Returns the rewrite, fitted on texts. p: expected share of words replaced, 0 to 1."""
    check_share("tfidf", "p", p)
    model = fit(texts)
    return each(lambda text, rng: replace(model, text, p=p, rng=rng))


@dataclasses.dataclass(frozen=True, eq=False)
class TfIdf:
    """Statistics of a corpus. Words are lower-case, without the punctuation around them.

    words: the vocabulary, sorted.
    idf: {word: log(texts / texts with the word)}; unknown_idf: log(texts), for any other word.
    cumulative: float64 [vocab], cumulative probability of the words as replacements, up to 1.
    """

    words: tuple[str, ...]
    idf: dict[str, float]
    unknown_idf: float
    cumulative: np.ndarray


def fit(texts: Iterable[str]) -> TfIdf:
    """Counts words and the texts that contain them.

    A word w is drawn as a replacement with probability proportional to max S - S(w), where
    S(w) = freq(w) idf(w); uniformly if all S are equal.
    """
    frequency: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    count = 0
    for text in texts:
        found = [word.lower() for word in WORD.findall(text)]
        frequency.update(found)
        documents.update(set(found))
        count += 1
    words = tuple(sorted(frequency))
    idf = {word: math.log(count / documents[word]) for word in words}
    scores = np.array([frequency[word] * idf[word] for word in words])
    weights = scores.max(initial=0) - scores
    if not weights.any():
        weights = np.ones(len(words))
    cumulative = np.cumsum(weights)
    return TfIdf(words, idf, math.log(max(count, 1)), cumulative / cumulative[-1:])


def replacement_probability(model: TfIdf, words: list[str], p: float) -> np.ndarray:
    """Returns float64 [words]: min(p (C - tfidf) / Z, 1) for the lower-case words of one text.

    C is the largest tfidf in the text and Z the mean of C - tfidf, so p is the expected share of
    words replaced unless some are capped at 1. All zeros if every word has the same tfidf, for
    example in a text of one word.
    """
    counts = Counter(words)
    tfidf = np.array(
        [counts[word] / len(words) * model.idf.get(word, model.unknown_idf) for word in words]
    )
    below = tfidf.max() - tfidf
    mean = below.mean()
    return np.minimum(p * below / mean, 1) if mean > 0 else np.zeros(len(words))


def replace(model: TfIdf, text: str, *, p: float, rng: np.random.Generator) -> str:
    """Replaces about a share p of the words, 0 to 1, and keeps punctuation and white space.

    A replacement has the casing of the word (UPPER, Capitalised, else lower case). It can be the
    same word by chance.
    """
    pieces = WORD.split(text)
    words = pieces[1::2]
    if not words or not model.words:
        return text
    probability = replacement_probability(model, [word.lower() for word in words], p)
    replaced = rng.random(len(words)) < probability
    # Drawn for every word, so that later draws do not depend on earlier decisions.
    drawn = np.searchsorted(model.cumulative, rng.random(len(words)), side="right")
    for i in np.flatnonzero(replaced).tolist():
        pieces[2 * i + 1] = cased_like(words[i], model.words[drawn[i]])
    return "".join(pieces)
