"""Single words in another language, as people who speak both write."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ssl_guard.augment.base import Rewrite, check_share, each
from ssl_guard.augment.words import cased_like, change_some


def _read_translations(path: Path) -> dict[str, dict[str, str]]:
    """{language: {English word: its translation}} of a tab-separated table with a heading."""
    heading, *rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return {
        language: {row[0]: row[column] for row in rows}
        for column, language in enumerate(heading)
        if column
    }


TRANSLATIONS = _read_translations(Path(__file__).with_name("tables") / "translations.tsv")


def code_switch(texts: Iterable[str], *, p: float) -> Rewrite:
    """A share p, and at least one, of a text's words that tables/translations.tsv knows.

    One language, Spanish, German, French or Portuguese, is drawn for each text. For prompts and
    responses alike. The label survives because a word means the same in the other language. It may
    not where the table's sense is not the text's, or the encoder knows English only and the word
    counted. Raises BadInput for a p that is no share.
    """
    check_share("code_switch", "p", p)
    languages = list(TRANSLATIONS.values())

    def change(text: str, rng: np.random.Generator) -> str | None:
        words = languages[rng.integers(len(languages))]
        return change_some(
            text,
            rng,
            p=p,
            able=lambda word: word.lower() in words,
            change=lambda word, _: cased_like(word, words[word.lower()]),
        )

    return each(change)
