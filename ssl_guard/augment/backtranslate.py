"""Back-translation: translates a text into another language and back.

Sennrich et al., arXiv 1511.06709. UDA uses it as the strong view, arXiv 1904.12848, section 3. The
translators are in translators.py.

The label usually survives, since meaning does. It may not if a small translator softens slang and
insults, loses a negation, or translates a name.
"""

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import sentencex

from ssl_guard.augment.translators import TRANSLATORS, Decoding
from ssl_guard.errors import BadInput

# Typographic characters that the vocabularies of small translators lack.
PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})
LETTER = re.compile(r"[^\W\d_]")


def back_translation(
    texts: Iterable[str],
    *,
    translator: str,
    model: str,
    language: str,
    pivots: Sequence[str],
    temperature: float,
    top_k: int,
    beams: int,
    batch_size: int,
    max_tokens: int,
    threads: int,
) -> Callable[[Sequence[str], Sequence[np.random.Generator]], list[str | None]]:
    """Returns the rewrite through one of the pivots, drawn for each text with its own generator.

    translator: a name in translators.TRANSLATORS. model: see there. language: of the texts.
    pivots: languages, named as in the models' names. The others are fields of `Decoding`.

    Translates sentence by sentence, as translators are trained, and keeps line breaks, the space
    between sentences, and sentences without a letter. None for a text without a letter, or with a
    sentence that cannot be translated. Without sampling, a sentence that occurs twice in a batch is
    translated once. Raises BadInput for arguments that the translator cannot use.
    """
    if translator not in TRANSLATORS:
        raise BadInput(
            f"there is no translator {translator!r}; choose one of {', '.join(TRANSLATORS)}."
        )
    if not pivots or language in pivots:
        raise BadInput(
            f"the argument pivots of 'back_translation' is {tuple(pivots)}; give languages other "
            f"than the texts' own, {language!r}."
        )
    decoding = Decoding(temperature, top_k, beams, batch_size, max_tokens, threads)
    translate = TRANSLATORS[translator](model, decoding)

    def round_trip(pivot: str, wanted: list[tuple[str, int, int]]) -> dict:
        """Returns {(sentence, seed there, seed back): its back-translation or None}."""
        sentences, seeds_there, seeds_back = zip(*wanted, strict=True)
        there = translate(sentences, language, pivot, seeds_there)
        kept = {i: translation for i, translation in enumerate(there) if translation}
        seeds = [seeds_back[i] for i in kept]
        back = translate(list(kept.values()), pivot, language, seeds)
        return {wanted[i]: translation for i, translation in zip(kept, back, strict=True)}

    def rewrite(texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str | None]:
        drawn, wanted = [], {pivot: dict[tuple, None]() for pivot in pivots}
        for text, rng in zip(texts, rngs, strict=True):
            pivot = pivots[int(rng.integers(len(pivots)))]
            pieces = split(text.translate(PLAIN), language)
            seeds = np.zeros((len(pieces), 2), int)
            if temperature:
                seeds = rng.integers(2**62, size=seeds.shape)
            jobs = [(piece, *pair) for piece, pair in zip(pieces, seeds.tolist(), strict=True)]
            drawn.append((pivot, jobs))
            wanted[pivot] |= dict.fromkeys(job for job in jobs if LETTER.search(job[0]))
        found = {pivot: round_trip(pivot, list(jobs)) for pivot, jobs in wanted.items() if jobs}
        return [_assemble(jobs, found.get(pivot, {})) for pivot, jobs in drawn]

    return rewrite


def split(text: str, language: str) -> list[str]:
    """Splits a text into sentences and the white space between them; joined they are the text.

    A line break ends a sentence, as in lists and headings.
    """
    pieces = []
    for line in text.splitlines(keepends=True):
        for sentence in sentencex.segment(language, line):
            core = sentence.strip()
            start = sentence.index(core)
            pieces += [sentence[:start], core, sentence[start + len(core) :]]
    return [piece for piece in pieces if piece]


def _assemble(jobs: list[tuple], found: dict) -> str | None:
    """Returns the text with its sentences replaced, or None if one is missing or there is none."""
    if not any(LETTER.search(job[0]) for job in jobs):
        return None
    pieces = [found.get(job, "") if LETTER.search(job[0]) else job[0] for job in jobs]
    return "".join(pieces) if all(pieces) else None
