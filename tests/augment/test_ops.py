"""Tests properties of every operation that needs no model."""

import hashlib
import json
import math
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_guard.augment.ops import OPS, build
from ssl_guard.errors import BadInput

ARGUMENTS = {
    "eda": {"replacement": 0.1, "insertion": 0.1, "swap": 0.1, "deletion": 0.1},
    "keyboard": {"p": 0.1},
    "ocr": {"p": 0.05},
    "framing": {},
    "persona": {},
    "leetspeak": {"p": 0.3},
    "spacing": {"p": 0.2},
    "homoglyphs": {"p": 0.2},
    "zero_width": {"p": 0.3},
    "encoded": {"words": 2},
    "masking": {"p": 0.3},
    "code_switch": {"p": 0.3},
    "quoting": {},
    "multi_turn": {"exchanges": 2},
}
RESPONSE = {"framing", "persona", "quoting", "multi_turn"}
CASES = [(name, ARGUMENTS[name]) for name in ARGUMENTS]
CASES += [(name, ARGUMENTS[name] | {"part": "response"}) for name in sorted(RESPONSE)]
TEXT = "How could a (very old) friend of mine explain the new law to CHILDREN, without a book?"
UGLY = [
    "",
    " \n\t ",
    "?! -- ...",
    "🙂🙃 👩‍👩‍👧",
    "مرحبا بالعالم، كيف حالك؟",
    "שלום עולם",
    "日本語の文章です。",
    "a",
    "I",
    "not",
    "\x00\u202e{text} %s {0} \\1 \\g<0>",
    "lone \ud800 surrogate",
    "the the the the",
]


def rngs(count, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(count)]


def test_every_operation_that_needs_no_model_is_tested_here():
    assert ARGUMENTS.keys() | {"identity", "tfidf"} <= OPS.keys()


@pytest.mark.parametrize("name, arguments", CASES)
def test_a_view_is_another_text_or_none(name, arguments):
    rewrite = build(name, [], arguments)
    for text in [*UGLY, TEXT]:
        for view in rewrite([text] * 30, rngs(30)):
            assert view is None or (isinstance(view, str) and view != text)
    assert None not in rewrite([TEXT] * 30, rngs(30))
    assert len(set(rewrite([TEXT] * 30, rngs(30)))) > 5


@pytest.mark.parametrize("name, arguments", CASES)
def test_a_view_depends_on_its_text_and_generator_only(name, arguments):
    texts = [TEXT, *UGLY, TEXT.lower()]
    expected = build(name, [], arguments)(texts, rngs(len(texts)))
    again = build(name, ["other", "texts"], arguments)
    assert again(texts, rngs(len(texts))) == expected
    assert again(texts[::-1], rngs(len(texts))[::-1]) == expected[::-1]
    alone = [again([text], [rng])[0] for text, rng in zip(texts, rngs(len(texts)), strict=True)]
    assert alone == expected
    assert again(texts, rngs(len(texts), seed=1)) != expected
    assert again([], []) == []
    with pytest.raises(ValueError, match="zip"):
        again(texts, rngs(2))


@given(text=st.text(max_size=80), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_no_text_is_too_odd(text, seed):
    for name, arguments in CASES:
        (view,) = build(name, [], arguments)([text], [np.random.default_rng(seed)])
        assert view is None or view != text, name


LONG = {
    "words": "the house of children " * 4_500,
    "one word": "a" * 100_000,
    "punctuation": "a" + "!" * 100_000,
    "glued": "a!" * 50_000,
    "spaces": " " * 100_000,
    "letters": "a " * 50_000,
}


@pytest.mark.parametrize("shape", LONG)
def test_time_grows_with_the_length_and_not_its_square(shape):
    """100,000 characters take seconds; they would take an hour if an operation were quadratic."""
    begin = time.process_time()
    for name, arguments in CASES:
        build(name, [], arguments)([LONG[shape]], rngs(1))
    assert time.process_time() - begin < 30


@pytest.mark.parametrize("name", sorted(RESPONSE | {"encoded"}))
def test_wrappers_put_nothing_into_the_text(name):
    """A text that looks like a template is not changed."""
    text = "{text} {encoding} {} %s \\1 $text"
    for view in build(name, [], ARGUMENTS[name])([text] * 40, rngs(40)):
        if name == "encoded":
            view = re.sub(r"\[\w+=*\]", "", view.split("\n", 1)[1])
            assert view.strip() == "{} {} {} %s \\1 $text"
        else:
            assert view.count(text) == 1


def test_arguments_out_of_range_are_refused():
    for name, arguments in ARGUMENTS.items():
        for argument in arguments:
            if argument in ("words", "exchanges"):
                values, message = (0, -1), f"{argument} of the augmentation '{name}' is"
            else:
                values, message = (-0.1, 1.1, math.nan), f"{argument} .* '{name}' .* give a share"
            for value in values:
                with pytest.raises(BadInput, match=message):
                    build(name, [], arguments | {argument: value})
    for name in RESPONSE:
        with pytest.raises(BadInput, match=f"part of the augmentation '{name}' is 'both'"):
            build(name, [], ARGUMENTS[name] | {"part": "both"})
    with pytest.raises(BadInput, match="give 1 to"):
        build("multi_turn", [], {"exchanges": 1000})
    with pytest.raises(BadInput, match="all four are 0"):
        build("eda", [], dict.fromkeys(ARGUMENTS["eda"], 0))


GOLDEN = {
    ("eda", "prompt"): "eefbebb0c041b21a",
    ("keyboard", "prompt"): "2600131e22b66997",
    ("ocr", "prompt"): "7a8ca440d681211f",
    ("framing", "prompt"): "47a1230ee60c8087",
    ("persona", "prompt"): "830d6baf7f6c1830",
    ("leetspeak", "prompt"): "747ee040ca6cffb0",
    ("spacing", "prompt"): "33400f1ef5a6a0d3",
    ("homoglyphs", "prompt"): "9aa9f85e7881e7b8",
    ("zero_width", "prompt"): "dc046d4085b5d1fd",
    ("encoded", "prompt"): "0d11ab558bb690f2",
    ("masking", "prompt"): "7633e36ebc3d7008",
    ("code_switch", "prompt"): "0ad012f516282129",
    ("quoting", "prompt"): "ec8624b0086ad44a",
    ("multi_turn", "prompt"): "10ed0b58cab9e2b6",
    ("framing", "response"): "ec51f3a62d16152e",
    ("multi_turn", "response"): "053ba9ada80c640b",
    ("persona", "response"): "7667aa35750957c9",
    ("quoting", "response"): "9f01331fa96aa05a",
    ("tfidf", "prompt"): "55969d7a32f1a7a0",
}


@pytest.mark.parametrize("name, part", GOLDEN)
def test_views_are_those_of_earlier_versions(name, part):
    arguments = ARGUMENTS.get(name, {"p": 0.5}) | ({"part": part} if name in RESPONSE else {})
    texts = [TEXT, "modern clay, 80 old rooms", "Don't buy milk and bread"] * 20
    views = build(name, texts, arguments)(texts, rngs(60))
    digest = hashlib.sha256(json.dumps(views).encode()).hexdigest()[:16]
    assert digest == GOLDEN[name, part], (
        "The same seed gives other views, so existing sets cannot be reproduced. Change the number "
        "only if that is intended."
    )
