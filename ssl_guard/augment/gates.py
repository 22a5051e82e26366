"""Gates on text alone: is a view worth keeping? None looks at a label.

A gate measures pairs of (source, view) and keeps the views whose value lies within its bounds. The
gates that need a model are in judges.py.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ssl_guard.augment.llm.refusals import is_refusal
from ssl_guard.data.schema import normalised
from ssl_guard.errors import BadInput


class Text(NamedTuple):
    """A prompt with the response it got; None where the row is a prompt alone."""

    prompt: str
    response: str | None


class Gate(NamedTuple):
    """measure(sources, views) -> float64 [views]; a view passes where low <= value <= high."""

    name: str
    measure: Callable[[Sequence[Text], Sequence[Text]], np.ndarray]
    low: float
    high: float


def build(
    *,
    refusal: bool = False,
    overlap: float = 0.0,
    length: tuple[float, ...] = (),
    language: float = 0.0,
) -> tuple[Gate, ...]:
    """The gates that are asked for, in the order in which they judge; the defaults ask for none.

    refusal: rejects views with a part that refuses the request to rewrite
    overlap: rejects views that are the source again: equal but for case and white space, or with a
        share of their words in common above this, up to 1; 0 for no gate. At 1 only equal ones go
    length: (shortest, longest) part of a view, as a share of its source's characters
    language: rejects views with a part in another language than its source, where both are told
        with at least this confidence, up to 1; 0 for no gate. See `language_kept`

    Raises BadInput for values out of range.
    """
    if not 0 <= overlap <= 1 or not 0 <= language <= 1:
        raise BadInput(
            f"config.augment.gates: overlap = {overlap} and language = {language} must be between "
            "0 (no gate) and 1."
        )
    if length and not (len(length) == 2 and 0 <= length[0] < length[1]):
        raise BadInput(
            f"config.augment.gates.length = {length} must be () or (shortest, longest), such as "
            "(0.5, 2.0)."
        )
    gates = []
    if refusal:
        gates.append(Gate("refusal", refusals, 0, 0))
    if overlap:
        # What is equal measures 2: it is rejected at every bound.
        gates.append(Gate("copy", overlaps, 0, overlap))
    if length:
        gates.append(Gate("length", length_ratios, *length))
    if language:
        kept = functools.partial(languages_kept, confidence=language)
        gates.append(Gate("language", kept, 1, 1))
    return tuple(gates)


def refusals(sources: Sequence[Text], views: Sequence[Text]) -> np.ndarray:
    """1 where a part of the view is a refusal (see llm/refusals.py) and its source is none."""
    return _worst(sources, views, lambda source, view: is_refusal(view, source), max)


def overlaps(sources: Sequence[Text], views: Sequence[Text]) -> np.ndarray:
    """Words that source and view share, as often as both have them, over the mean of their numbers
    of words (Dice's coefficient of the two bags): 0 to 1. 2 where the texts are the same but for
    case and white space.

    Prompt and response count as one text, so that a prompt too short to change does not cost its
    response.
    """
    return np.array(
        [_overlap(_joined(a), _joined(b)) for a, b in zip(sources, views, strict=True)], np.float64
    )


def length_ratios(sources: Sequence[Text], views: Sequence[Text]) -> np.ndarray:
    """Characters of view / source, of the part where it is furthest from 1."""

    def ratio(source, view):
        return len(view) / len(source) if source else 1.0

    def furthest(ratios):
        return max(ratios, key=lambda r: abs(np.log(max(r, 1e-9))))

    return _worst(sources, views, ratio, furthest)


def languages_kept(
    sources: Sequence[Text], views: Sequence[Text], *, confidence: float
) -> np.ndarray:
    """0 where a part of the view is in another language than its source, see `language_kept`."""
    kept = functools.partial(language_kept, confidence=confidence)
    return _worst(sources, views, kept, min)


def language_kept(source: str, view: str, *, confidence: float) -> bool:
    """False if both texts' languages are told with this confidence and differ.

    By py3langid, a naive Bayes over bytes. What it cannot tell passes: mixtures, code and most
    texts of fewer than ten words, so that of those nothing is known. What an operation writes in
    another script on purpose (leetspeak, homoglyphs, base64) looks like another language to it:
    such sets go without this gate.
    """
    identify = _identifier()
    told = []
    for text in (source, view):
        language, probability = identify(text)
        if probability < confidence or language == "zxx":  # zxx: numbers, markup
            return True
        told.append(language)
    return told[0] == told[1]


@functools.lru_cache(maxsize=1)
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).classify


def _overlap(source: str, view: str) -> float:
    source, view = normalised(source), normalised(view)
    if source == view:
        return 2.0
    mine, theirs = (Counter(re.findall(r"\w+", text)) for text in (source, view))
    # Of two texts without a word, such as emoji, nothing but equality can be said.
    return 2 * (mine & theirs).total() / max((mine + theirs).total(), 1)


def _joined(text: Text) -> str:
    return text.prompt if text.response is None else f"{text.prompt}\n{text.response}"


def _worst(sources, views, measure, worst) -> np.ndarray:
    """float64 [views]: the worst of the measures of a view's parts."""
    return np.array(
        [
            worst(measure(a, b) for a, b in zip(source, view, strict=True) if a is not None)
            for source, view in zip(sources, views, strict=True)
        ],
        np.float64,
    )
