"""Filters views by their text. No gate sees a label.

A gate measures pairs of (source, view) and accepts the views whose value is within its bounds. The
gates that need a model are in evaluation/model_gates.py.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ssl_guard.augment.llm.refusals import is_refusal
from ssl_guard.data.schema import normalised
from ssl_guard.errors import BadInput


class Text(NamedTuple):
    """A prompt and its response, or None for a row without one."""

    prompt: str
    response: str | None


Measure = Callable[[Sequence[Text], Sequence[Text]], np.ndarray]  # of sources and views, [views]


class Gate(NamedTuple):
    """Accepts a view if low <= measure <= high."""

    name: str
    measure: Measure
    low: float
    high: float


def build(
    *,
    refusal: bool = False,
    overlap: float = 0.0,
    length: tuple[float, ...] = (),
    language: float = 0.0,
) -> tuple[Gate, ...]:
    """Builds the requested gates, in the order in which they are applied. Defaults build none.

    refusal: rejects views with a part that refuses to rewrite, see llm/refusals.py.
    overlap: rejects views that equal their source but for case and white space, or share more than
        this share of their words with it; 0 for no gate, 1 to reject equal ones only.
    length: bounds on the length of each part, as a share of its source's characters.
    language: rejects views with a part in another language than its source, if both are identified
        with at least this confidence; 0 for no gate. See `language_kept`.

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
        refuses = _worst_part(lambda source, view: is_refusal(view, source), max)
        gates.append(Gate("refusal", refuses, 0, 0))
    if overlap:
        # Equal texts measure 2, which every bound rejects.
        gates.append(Gate("copy", overlaps, 0, overlap))
    if length:
        gates.append(Gate("length", length_ratios, *length))
    if language:
        kept = functools.partial(language_kept, confidence=language)
        gates.append(Gate("language", _worst_part(kept, min), 1, 1))
    return tuple(gates)


def overlaps(sources: Sequence[Text], views: Sequence[Text]) -> np.ndarray:
    """Returns Dice's coefficient of the two bags of words, 0 to 1.

    2 where the texts are equal but for case and white space. Prompt and response count as one text:
    a prompt too short to change must not cost its response.
    """
    return np.array(
        [_overlap(_joined(a), _joined(b)) for a, b in zip(sources, views, strict=True)], np.float64
    )


def length_ratios(sources: Sequence[Text], views: Sequence[Text]) -> np.ndarray:
    """Returns the ratio of characters, view / source, of the part where it is furthest from 1."""
    return _worst_part(_length_ratio, _furthest_from_1)(sources, views)


def language_kept(source: str, view: str, *, confidence: float) -> bool:
    """Returns False if both languages are identified with this confidence and differ.

    Uses py3langid, naive Bayes over bytes. Texts it cannot identify pass: mixed languages, code,
    and most texts of fewer than ten words. Leetspeak, homoglyphs and base64 look like other
    languages to it, so do not use this gate with them.
    """
    identify = _identifier()
    languages = []
    for text in (source, view):
        language, probability = identify(text)
        if probability < confidence or language == "zxx":  # zxx: numbers, markup
            return True
        languages.append(language)
    return languages[0] == languages[1]


@functools.lru_cache(maxsize=1)
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).classify


def _overlap(source: str, view: str) -> float:
    source, view = normalised(source), normalised(view)
    if source == view:
        return 2.0
    mine, theirs = (Counter(re.findall(r"\w+", text)) for text in (source, view))
    # Texts without words, such as emoji, can only be equal or not.
    return 2 * (mine & theirs).total() / max((mine + theirs).total(), 1)


def _joined(text: Text) -> str:
    return text.prompt if text.response is None else f"{text.prompt}\n{text.response}"


def _length_ratio(source: str, view: str) -> float:
    return len(view) / len(source) if source else 1.0


def _furthest_from_1(ratios: Iterable[float]) -> float:
    return max(ratios, key=lambda r: abs(np.log(max(r, 1e-9))))


def _worst_part(measure: Callable[[str, str], float], worst: Callable) -> Measure:
    """Returns the measure of views that takes the worst over the parts of each."""
    return lambda sources, views: np.array(
        [
            worst(
                measure(a, b)
                for a, b in zip(source, view, strict=True)
                if a is not None and b is not None
            )
            for source, view in zip(sources, views, strict=True)
        ],
        np.float64,
    )
