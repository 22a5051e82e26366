import base64
import codecs
import re
import unicodedata

import numpy as np
import pytest

from ssl_guard.augment.obfuscation import LEET, LOOK_ALIKE, MASKS, SEPARATORS, ZERO_WIDTH
from ssl_guard.augment.ops import build

TEXT = 'Describe "QUIETLY" how the\n\nchildren (don\'t) open my well-known box... OK, naïve Zoë?'


def views(name, text=TEXT, times=200, **arguments):
    rngs = [np.random.default_rng(i) for i in range(times)]
    return build(name, [], arguments)([text] * times, rngs)


def test_look_alikes_are_one_to_one_and_of_other_scripts():
    assert len(set(LOOK_ALIKE.values())) == len(LOOK_ALIKE) == 24
    for latin, other in LOOK_ALIKE.items():
        assert latin.isascii() and latin.isupper() == other.isupper()
        assert unicodedata.name(other).split()[0] in ("CYRILLIC", "GREEK")


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_homoglyphs_map_back(p):
    back = {ord(other): latin for latin, other in LOOK_ALIKE.items()}
    able = sum(letter in LOOK_ALIKE for letter in TEXT)
    counts = []
    for view in views("homoglyphs", p=p):
        assert view.translate(back) == TEXT
        counts.append(sum(a != b for a, b in zip(view, TEXT, strict=True)))
    expected = p * able + (1 - p) ** able
    assert abs(np.mean(counts) - expected) <= 5 * np.sqrt(able * p * (1 - p) / 200)
    assert views("homoglyphs", "дом 123", times=1, p=1) == [None]


def test_leetspeak_reads_back():
    table = {digit: letter for letter, digit in LEET.items() if chr(letter).islower()}
    assert len(table) == 9, "one to one"
    for view in views("leetspeak", p=0.3):
        assert view.lower().translate(table) == TEXT.lower()
        for old, new in zip(TEXT.split(), view.split(), strict=True):
            assert new in (old, old.translate(LEET)), "a word is changed whole or not at all"
    assert views("leetspeak", "Able 2 go", times=1, p=1) == ["48l3 2 90"]


def test_spacing_is_undone_by_taking_the_separators_out():
    words = ["Take", "of", "some", "words", "a", "part"]
    ways = {word: [word] + [s.join(word) for s in SEPARATORS] for word in words}
    pattern = re.compile(" ".join("(" + "|".join(map(re.escape, ways[w])) + ")" for w in words))
    used = set()
    for view in views("spacing", " ".join(words), p=0.3):
        for word, way in zip(words, pattern.fullmatch(view).groups(), strict=True):
            used |= {(word, way)} - {(word, word)}
    assert len(used) == 4 * len(SEPARATORS), "all words of 3 letters or more, in all ways"
    assert set(views("spacing", "(Take),", p=1.0)) == {f"({s.join('Take')})," for s in SEPARATORS}


def test_zero_width_characters_taken_out_give_the_text():
    table = dict.fromkeys(map(ord, ZERO_WIDTH))
    used = set()
    for view in views("zero_width", p=0.3):
        assert view.translate(table) == TEXT
        hidden = [match for match in re.finditer(f"[{''.join(ZERO_WIDTH)}]", view)]
        assert hidden
        for match in hidden:
            used.add(match[0])
            assert view[match.start() - 1].isalpha() and view[match.end()].isalpha()
    assert used == set(ZERO_WIDTH)


def test_bert_drops_zero_width_characters():
    from tokenizers.normalizers import BertNormalizer

    for view in views("zero_width", times=20, p=1.0):
        assert BertNormalizer().normalize_str(view) == BertNormalizer().normalize_str(TEXT)


def test_masks_hide_inner_vowels_alone():
    used = set()
    for view in views("masking", p=0.4):
        assert len(view) == len(TEXT) and view != TEXT
        for i, (old, new) in enumerate(zip(TEXT, view, strict=True)):
            if old != new:
                assert old.lower() in "aeiou" and new in MASKS
                assert TEXT[i - 1].isascii() and TEXT[i - 1].isalpha() and TEXT[i + 1].isalpha()
                used.add(new)
    assert used == set(MASKS)
    assert {re.sub(r"[*#_.-]", "?", v) for v in views("masking", "aided Oak ox", p=1)} == {
        "a?d?d O?k ox"
    }


def test_encoded_words_decode_to_the_text():
    decode = {
        "base64": lambda word: base64.b64decode(word, validate=True).decode(),
        "rot13": lambda word: codecs.encode(word, "rot13"),
    }
    names, notes = set(), set()
    for view in views("encoded", words=2):
        (name,) = {name for name in decode if name in view}
        place = view.index("\n", view.index(name)) + 1
        note, body = view[:place].rstrip("\n"), view[place:].lstrip("\n")
        body = re.sub(r"\[(.+?)\]", lambda m, f=decode[name]: f"[{f(m[1])}]", body)
        assert body == TEXT.replace("Describe", "[Describe]").replace("children", "[children]")
        names.add(name)
        notes.add(note.replace(name, ""))
    assert names == set(decode) and len(notes) == 5
    for view in views("encoded", "tiny word here", times=20, words=9):
        assert view.count("[") - view.split("\n")[0].count("[") == 3


def test_encoded_is_bounded_on_long_texts():
    text = "ordinary sentences go on and on " * 2_000
    for view in views("encoded", text, times=5, words=3):
        assert len(view) < len(text) + 200
    assert views("encoded", "a b c 123 日本語日本語", times=1, words=3) == [None]
    assert views("encoded", "abc " + 21 * "x", times=1, words=3) == [None]
    assert views("encoded", 20 * "x", times=1, words=3) != [None]
