import importlib.util

import numpy as np
import pytest

from ssl_guard.augment import ops, translators
from ssl_guard.augment.backtranslate import split
from ssl_guard.errors import BadInput

ARGUMENTS = {
    "translator": "spelled",
    "model": "",
    "language": "en",
    "pivots": ("fr", "de"),
    "temperature": 0,
    "top_k": 0,
    "beams": 1,
    "batch_size": 4,
    "max_tokens": 100,
    "threads": 0,
}
TEXT = "Bread needs flour. It needs “salt”!\n\n  1. Water\n\t2. 300\n"


@pytest.fixture
def calls(monkeypatch):
    """A fake translator that marks its translations and records its inputs."""
    given = []

    def spelled(model, decoding):
        def translate(sentences, source, target, seeds):
            assert len(set(zip(sentences, seeds, strict=True))) == len(sentences)
            given.append((source, target, list(sentences)))
            return [
                None if f"stuck {target}" in sentence else f"{sentence}>{target}{seed or ''}"
                for sentence, seed in zip(sentences, seeds, strict=True)
            ]

        return translate

    monkeypatch.setitem(translators.TRANSLATORS, "spelled", spelled)
    return given


def rewrite(texts, seeds=None, **changes):
    rngs = [np.random.default_rng(i) for i in (range(len(texts)) if seeds is None else seeds)]
    return ops.build("back_translation", [], ARGUMENTS | changes)(texts, rngs)


@pytest.mark.parametrize(
    "text, sentences",
    [
        (TEXT, ["Bread needs flour.", "It needs “salt”!", "1.", "Water", "2.", "300"]),
        ("Mr. Smith left. He ate e.g. bread", ["Mr. Smith left.", "He ate e.g. bread"]),
        (" \r\n a\r\nb \x0b\u2028c\x1c", ["a", "b", "c"]),
        ("你好。再见。", ["你好。", "再见。"]),
        ("", []),
        (" \n\n", []),
    ],
)
def test_split_finds_sentences_and_loses_nothing(text, sentences):
    pieces = split(text, "en")
    assert "".join(pieces) == text
    assert [piece for piece in pieces if piece.strip()] == sentences


def test_sentences_go_there_and_back_in_their_places(calls):
    [found] = rewrite([TEXT], pivots=("fr",))
    assert found == (
        'Bread needs flour.>fr>en It needs "salt"!>fr>en\n\n  1. Water>fr>en\n\t2. 300\n'
    )
    sentences = ["Bread needs flour.", 'It needs "salt"!', "Water"]
    assert calls == [
        ("en", "fr", sentences),
        ("fr", "en", [sentence + ">fr" for sentence in sentences]),
    ]


def test_no_rewrite_where_a_sentence_fails_or_there_is_none(calls):
    texts = ["Salt is here. It is stuck fr.", "stuck en", "", " 12 !", "So. And so."]
    assert rewrite(texts, pivots=("fr",)) == [None, None, None, None, "So.>fr>en And so.>fr>en"]
    assert rewrite([]) == []


def test_the_pivot_is_drawn_for_each_text_by_its_own_generator(calls):
    texts, seeds = [f"Text {i}." for i in range(200)], range(200)
    found = rewrite(texts, seeds)
    french = sum(text.endswith(">fr>en") for text in found)
    assert french + sum(text.endswith(">de>en") for text in found) == 200
    assert abs(french - 100) < 5 * np.sqrt(50)
    assert rewrite(texts[::-1], seeds[::-1]) == found[::-1]
    assert [rewrite([texts[i]], [i])[0] for i in range(9)] == found[:9]
    assert len(calls) == 4 + 4 + 2 * 9


def test_a_repeated_sentence_is_translated_once_unless_sampled(calls):
    texts = ["Bread. Bread. Salt."] * 3
    assert len(set(rewrite(texts, pivots=("fr",)))) == 1
    assert calls[0] == ("en", "fr", ["Bread.", "Salt."])
    calls.clear()
    found = rewrite(texts, [1, 2, 1], pivots=("fr",), temperature=0.9)
    assert found[0] == found[2] != found[1]
    assert len(calls[0][2]) == len(calls[1][2]) == 6
    [alone] = rewrite(texts[:1], [2], pivots=("fr",), temperature=0.9)
    assert alone == found[1]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"translator": "babel"}, "there is no translator 'babel'; choose one of marian,"),
        ({"pivots": ()}, "the argument pivots of 'back_translation' is ()"),
        ({"pivots": ("de", "en")}, "other than the texts' own, 'en'"),
        ({"temperature": -1}, "temperature of 'back_translation' is -1; it must be at least 0"),
        ({"temperature": float("nan")}, "temperature of 'back_translation' is nan"),
        ({"beams": 0}, "beams of 'back_translation' is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size of 'back_translation' is 0"),
        ({"temperature": 1, "beams": 2}, "set the argument temperature=0 or beams=1"),
        ({"top_k": 5}, "set temperature above 0"),
        ({"speed": 1}, "unexpected keyword argument 'speed'"),
    ],
)
def test_arguments_that_cannot_be_used(calls, changes, message):
    with pytest.raises(BadInput) as caught:
        rewrite(["A."], **changes)
    assert message in str(caught.value)


def test_a_missing_library_and_a_missing_model_are_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else 1)
    with pytest.raises(BadInput, match=r"needs torch: pip install 'ssl_guard\[translate\]'"):
        rewrite(["A."], translator="marian")
    with pytest.raises(BadInput, match=r"with \{source\} and \{target\}"):
        rewrite(["A."], translator="ctranslate2", model="one-model")
