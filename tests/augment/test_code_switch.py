import re
from pathlib import Path

import numpy as np
import pytest

from ssl_guard.augment import code_switch
from ssl_guard.augment.ops import build

TEXT = 'What is a GOOD reason to write "water, milk, bread" on the (old) door? Please explain.'
WORD = re.compile(r"\w(?:\S*\w)?")


def views(text, p, times=200):
    rngs = [np.random.default_rng(i) for i in range(times)]
    return build("code_switch", [], {"p": p})([text] * times, rngs)


def test_the_table_is_of_single_words_that_differ():
    path = Path(code_switch.__file__).parent / "tables" / "translations.tsv"
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows[0] == ["en", "es", "de", "fr", "pt"] and len(rows) > 200
    english = [row[0] for row in rows[1:]]
    assert english == sorted(set(english))
    for row in rows[1:]:
        assert len(row) == 5 and all(re.fullmatch(r"[^\W\d_]+(?:'[^\W\d_]+)?", w) for w in row), row
        assert row[0] == row[0].lower() and all(w.lower() != row[0] for w in row[1:]), row
    assert code_switch.TRANSLATIONS["de"]["water"] == "Wasser"
    assert code_switch.TRANSLATIONS["pt"]["bread"] == "pão"


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_a_share_of_the_known_words_changes_into_one_language(p):
    known = code_switch.TRANSLATIONS["es"]
    able = sum(word.lower() in known for word in WORD.findall(TEXT))
    assert able == 10
    counts, languages = [], set()
    for view in views(TEXT, p):
        assert WORD.sub("_", view) == WORD.sub("_", TEXT)
        pairs = zip(WORD.findall(TEXT), WORD.findall(view), strict=True)
        changed = [(old, new) for old, new in pairs if old != new]
        fitting = {
            language
            for language, words in code_switch.TRANSLATIONS.items()
            if all(words.get(old.lower(), "").lower() == new.lower() for old, new in changed)
        }
        assert fitting, "one language for the whole text"
        languages |= fitting if len(fitting) == 1 else set()
        counts.append(len(changed))
        for old, new in changed:
            assert old != "GOOD" or new.isupper()
            assert old not in ("What", "Please") or new.istitle()
    assert languages == {"es", "de", "fr", "pt"}
    expected = p * able + (1 - p) ** able
    assert abs(np.mean(counts) - expected) <= 5 * np.sqrt(able * p * (1 - p) / 200)


def test_german_nouns_keep_their_capital():
    assert "Wasser" in views("water", 1.0) and "agua" in views("water", 1.0)
    assert set(views("zzz 123", 1.0)) == {None}
