import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ssl_guard.augment import eda
from ssl_guard.augment.ops import build

TEXT = 'Please "explain" the HUGE difference: why do (small) children not buy a car, doctor?'
WORD = re.compile(r"\w(?:\S*\w)?")
KINDS = ("replacement", "insertion", "swap", "deletion")


def views(text, *, times=200, **alphas):
    rewrite = build("eda", [], dict.fromkeys(KINDS, 0) | alphas)
    return rewrite([text] * times, [np.random.default_rng(i) for i in range(times)])


def words(text):
    return WORD.findall(text)


def test_the_table_is_of_groups_of_single_words():
    lines = (Path(eda.__file__).parent / "tables" / "synonyms.txt").read_text().splitlines()
    assert len(lines) == len(set(lines)) > 500
    for line in lines:
        group = line.split(" ")
        assert len(group) == len(set(group)) >= 2, line
        assert all(re.fullmatch("[a-z]+", word) for word in group), line
        assert not eda.NEGATIONS & set(group), line
    for word, others in eda.SYNONYMS.items():
        expected = [other for line in lines if word in line.split() for other in line.split()]
        assert set(others) == set(expected) - {word} and len(others) == len(set(others))


def test_a_synonym_keeps_place_punctuation_and_casing():
    seen = set()
    for view in views(TEXT, replacement=0.3):
        assert WORD.sub("_", view) == WORD.sub("_", TEXT)
        changed = [(a, b) for a, b in zip(words(TEXT), words(view), strict=True) if a != b]
        assert len(changed) == 4  # int(0.3 * 14 words), and all are distinct
        for old, new in changed:
            assert new.lower() in eda.SYNONYMS[old.lower()]
            assert (new.isupper(), new.istitle()) == (old.isupper(), old.istitle())
            seen.add(old)
    assert {"Please", "explain", "HUGE", "doctor"} <= seen


def test_all_occurrences_of_a_word_get_the_same_synonym():
    for view in views("car Car CAR and the", replacement=0.1):
        first, second, third, *rest = words(view)
        assert first in eda.SYNONYMS["car"]
        assert (second, third, rest) == (first.capitalize(), first.upper(), ["and", "the"])


def test_insertions_leave_the_words_and_their_order():
    allowed = {synonym for word in words(TEXT) for synonym in eda.SYNONYMS.get(word.lower(), [])}
    places = Counter()
    for view in views(TEXT, insertion=0.2):
        left, inserted = words(TEXT), []
        for place, word in enumerate(words(view)):
            if left and word == left[0]:
                left.pop(0)
            else:
                inserted.append(word)
                places[place] += 1
        assert not left and len(inserted) == 2 and set(inserted) <= allowed
        assert re.sub(r"[\w\s']", "", view) == re.sub(r"[\w\s']", "", TEXT)
    assert len(places) > 10


def test_swaps_leave_the_bag_of_words():
    moved = Counter()
    for view in views(TEXT, swap=0.1):
        assert Counter(words(view)) == Counter(words(TEXT))
        assert WORD.sub("_", view) == WORD.sub("_", TEXT)
        different = [
            i for i, (a, b) in enumerate(zip(words(TEXT), words(view), strict=True)) if a != b
        ]
        assert len(different) == 2  # int(0.1 * 14) = 1 swap
        moved.update(different)
    assert moved.keys() == set(range(14))
    assert set(views("a a a b", swap=0.5, times=50)) == {"a a b a", "a b a a", "b a a a"}
    assert views("a a a", swap=0.5, times=2) == [None, None]


def test_deletions_are_at_the_rate_of_alpha_and_spare_negations():
    text = "one two three four five six seven eight nine ten not don't never"
    gone = Counter()
    for view in views(text, deletion=0.3, times=1000):
        kept = words(view)
        left = iter(words(text))
        assert all(word in left for word in kept), "the order stays"
        assert view == " ".join(kept)
        assert {"not", "don't", "never"} <= set(kept) and len(kept) < 13
        gone.update(set(words(text)) - set(kept))
    # 10 words at 0.3; where none was drawn, with probability 0.7^10 = 0.028, one goes all the same.
    rates = np.array([gone[word] for word in words(text)[:10]]) / 1000
    expected = 0.3 + 0.7**10 / 10
    assert np.abs(rates - expected).max() < 5 * np.sqrt(expected * (1 - expected) / 1000)


@pytest.mark.parametrize("word", [*sorted(eda.NEGATIONS), "Cannot", "NOT", "isn't", "don’t"])
def test_no_negation_is_left_out(word):
    assert len(eda.NEGATIONS) == 13
    assert set(views(f"a {word} b", deletion=1.0, times=5)) == {word}


def test_deletion_leaves_a_word_and_tidy_white_space():
    assert set(views("Stop (now), Jane!", deletion=1)) == {"Stop (),!", "(now),!", "(), Jane!"}
    assert set(views("  one\n\ntwo", deletion=0.5)) == {"  one\n", " \n\ntwo"}
    assert views("one", deletion=1, times=2) == [None, None]
    assert views("never not", deletion=1, times=2) == [None, None]


def test_one_change_is_drawn_and_the_next_is_tried_where_it_cannot_be_made():
    sizes = Counter(
        len(words(view)) - 14 for view in views(TEXT, times=2000, **dict.fromkeys(KINDS, 0.1))
    )
    assert 0.2 < sizes[1] / 2000 < 0.3  # insertion
    assert 0.45 < sizes[0] / 2000 < 0.55  # replacement and swap
    assert set(sizes) <= {1, 0, -1, -2, -3, -4, -5, -6, -7}
    # No synonyms here, and one word: nothing can be done. Two words: swap or delete.
    assert set(views("zzz", **dict.fromkeys(KINDS, 0.1))) == {None}
    assert set(views("zzz yyy", **dict.fromkeys(KINDS, 0.1))) == {"yyy zzz", "zzz", "yyy"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_alpha_of_zero_switches_a_change_off(kind):
    alone = set(views(TEXT, **{kind: 0.1}))
    rest = set(views(TEXT, **{k: 0.1 for k in KINDS if k != kind}))
    assert alone and not alone & rest
