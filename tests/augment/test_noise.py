import re

import numpy as np
import pytest

from ssl_guard.augment.noise import CONFUSED, NEIGHBOURS
from ssl_guard.augment.ops import build

TEXT = "The quick brown fox, 80 years old, jumps over it: Sphinx of Black Quartz!"


def views(name, text, p, times=300):
    return build(name, [], {"p": p})(
        [text] * times, [np.random.default_rng(i) for i in range(times)]
    )


def test_neighbours_on_a_keyboard_by_hand():
    expected = {
        "q": "wa",
        "s": "wedazx",
        "g": "tyfhvb",
        "p": "ol",
        "m": "njk",
        "z": "asx",
        "l": "opk",
    }
    for key, near in expected.items():
        assert sorted(NEIGHBOURS[key]) == sorted(near)
        assert sorted(NEIGHBOURS[key.upper()]) == sorted(near.upper())
    assert len(NEIGHBOURS) == 52
    assert all(a in NEIGHBOURS[b] for a, near in NEIGHBOURS.items() for b in near)


def slips(word):
    """Returns every single typing mistake in a word, by brute force."""
    found = {}
    for i, letter in enumerate(word):
        if letter not in NEIGHBOURS:
            continue
        before, after = word[:i], word[i + 1 :]
        found |= {before + near + after: "neighbour" for near in NEIGHBOURS[letter]}
        found[before + 2 * letter + after] = "doubled"
        if len(word) > 1:
            found[before + after] = "left out"
        if after and after[0] != letter:
            found[before + after[0] + letter + after[1:]] = "swapped"
    return found


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_a_share_of_the_words_has_one_slip(p):
    words, counts, kinds = TEXT.split(" "), [], set()
    strip = re.compile(r"^\w+")
    able = [i for i, word in enumerate(words) if re.search("[A-Za-z]", word)]
    for view in views("keyboard", TEXT, p):
        new = view.split(" ")
        changed = [i for i, word in enumerate(words) if new[i] != word]
        for i in changed:
            old = strip.search(words[i])[0]
            rest = words[i][len(old) :]
            assert new[i].endswith(rest)
            kinds.add(slips(old)[new[i].removesuffix(rest) if rest else new[i]])
        assert set(changed) <= set(able) and changed
        counts.append(len(changed))
    assert kinds == {"neighbour", "doubled", "left out", "swapped"}
    n = len(able)
    expected = p * n + (1 - p) ** n
    error = np.sqrt(n * max(p * (1 - p), 1e-9) / len(counts))
    assert abs(np.mean(counts) - expected) <= 5 * error


def test_letters_that_are_equal_do_not_trade_places():
    for view in views("keyboard", "aaa LL", 1.0):
        first, second = view.split(" ")
        assert first in slips("aaa") and second in slips("LL")
        assert first != "aaa" and second != "LL"


def test_what_a_scanner_confuses():
    # Each change is a row of the table.
    places = {m.start() for m in re.finditer("|".join(sorted(CONFUSED, key=len)[::-1]), TEXT)}
    seen = set()
    for view in views("ocr", TEXT, 0.0):
        start = next(i for i, (a, b) in enumerate(zip(TEXT, view, strict=False)) if a != b)
        ways = [
            (start - back, old)
            for back in (0, 1)
            for old, new in CONFUSED.items()
            if TEXT[: start - back] + new + TEXT[start - back + len(old) :] == view
            and TEXT[start - back :].startswith(old)
        ]
        assert ways, "one place, changed as in the table"
        seen |= {place for place, _ in ways}
    assert len(seen & places) > 0.9 * len(places)
    assert set(views("ocr", "xyz kkk", 1.0)) == {None}


def test_all_places_are_confused_at_a_share_of_one_and_a_few_at_a_small_one():
    assert set(views("ocr", "modern cl vv BIG", 1.0, times=3)) == {"rn0clcm d w 8l6"}
    text = "o" * 1000
    counts = [view.count("0") for view in views("ocr", text, 0.1)]
    assert abs(np.mean(counts) - 100) <= 5 * np.sqrt(1000 * 0.1 * 0.9 / len(counts))
