"""Replaces single words by translations (code-switching)."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ssl_guard.augment.base import Rewrite, cased_like, change_some, check_share, each


def _read_translations(path: Path) -> dict[str, dict[str, str]]:
    """Reads {language: {English word: translation}} from a tab-separated table with a heading."""
    heading, *rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return {
        language: {row[0]: row[column] for row in rows}
        for column, language in enumerate(heading)
        if column
    }


TRANSLATIONS = _read_translations(Path(__file__).with_name("tables") / "translations.tsv")


def code_switch(texts: Iterable[str], *, p: float) -> Rewrite:
    """Translates a share p, and at least one, of the words in tables/translations.tsv.

    One language, Spanish, German, French or Portuguese, is drawn for each text. For prompts and
    responses. The label survives because the translation has the same meaning. It may not if the
    text uses a word in another sense, or if it depends on a word that an English encoder does not
    know in translation. Raises BadInput unless p is in [0, 1].
    """
    check_share("code_switch", "p", p)
    languages = list(TRANSLATIONS.values())

    def change(text: str, rng: np.random.Generator) -> str | None:
        words = languages[rng.integers(len(languages))]

        def translate(word: str, _: float) -> str:
            return cased_like(word, words[word.lower()])

        return change_some(text, rng, p, lambda word: word.lower() in words, translate)

    return each(change)
