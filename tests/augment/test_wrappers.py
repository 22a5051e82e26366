"""Tests framing, persona, quoting and multi-turn."""

import re
from collections import Counter

import numpy as np
import pytest

from ssl_guard.augment.ops import build
from ssl_guard.augment.wrappers import TEMPLATES

TEXTS = ["How do bees find home?", "Line one.\nLine two: {0} \\1", "x", "שלום 🙂"]
TABLES = {
    (name, part): TEMPLATES[name][part]
    for name in ("framing", "quoting")
    for part in ("prompt", "response")
}
PERSONA, MULTI_TURN = TEMPLATES["persona"], TEMPLATES["multi_turn"]


def views(name, text, times=600, **arguments):
    rngs = [np.random.default_rng(i) for i in range(times)]
    return build(name, [], arguments)([text] * times, rngs)


@pytest.mark.parametrize("name, part", TABLES)
@pytest.mark.parametrize("text", TEXTS)
def test_each_template_is_drawn_about_as_often_and_holds_the_text_once(name, part, text):
    templates = TABLES[name, part]
    assert len(set(templates)) == len(templates) >= 8
    assert all(template.count("{text}") == 1 for template in templates)
    expected = [template.replace("{text}", text) for template in templates]
    found = Counter(views(name, text, part=part))
    assert found.keys() == set(expected)
    rate = 600 / len(templates)
    assert max(abs(count - rate) for count in found.values()) < 5 * np.sqrt(rate)


def test_a_prompt_is_the_default_part():
    for name, arguments in [
        ("framing", {}),
        ("persona", {}),
        ("quoting", {}),
        ("multi_turn", {"exchanges": 1}),
    ]:
        default = views(name, "x", 20, **arguments)
        assert default == views(name, "x", 20, part="prompt", **arguments)
        assert default != views(name, "x", 20, part="response", **arguments)


def test_documents_are_longer_than_what_they_quote():
    for document in TABLES["quoting", "prompt"]:
        assert 25 <= len(document.split()) <= 70


@pytest.mark.parametrize("part", ["prompt", "response"])
def test_persona_puts_a_sentence_before_and_for_half_one_behind(part):
    before, after = PERSONA[part]["before"], PERSONA[part]["after"]
    seen, both = set(), 0
    for view in views("persona", TEXTS[0], part=part):
        opening, closing = view.split(TEXTS[0])
        assert opening[-1] == " " and opening[:-1] in before
        assert closing == "" or (closing[0] == " " and closing[1:] in after)
        seen |= {opening[:-1], closing[1:]}
        both += closing != ""
    assert seen == {*before, *after, ""}
    assert abs(both - 300) < 5 * np.sqrt(150)


@pytest.mark.parametrize("exchanges", [1, 2, 5])
@pytest.mark.parametrize("part", ["prompt", "response"])
def test_a_conversation_alternates_and_ends_with_the_text(exchanges, part):
    answers = dict(MULTI_TURN["exchanges"])
    assert len(answers) == len(MULTI_TURN["exchanges"])
    speakers, asked = set(), set()
    for view in views("multi_turn", TEXTS[0], 200, exchanges=exchanges, part=part):
        turns = [tuple(line.split(": ", 1)) for line in view.split("\n")]
        pair = turns[0][0], turns[1][0]
        assert [who for who, _ in turns] == [pair[i % 2] for i in range(len(turns))]
        before, last = turns[: 2 * exchanges], turns[2 * exchanges :]
        for (_, question), (_, answer) in zip(before[::2], before[1::2], strict=True):
            assert answers[question] == answer
        questions = [question for _, question in before[::2]]
        assert len(set(questions)) == exchanges
        asked |= set(questions)
        speakers.add(pair)
        if part == "prompt":
            assert last == [(pair[0], TEXTS[0])]
        else:
            assert [last[0][0], *last[1:]] == [pair[0], (pair[1], TEXTS[0])]
            assert last[0][1] in MULTI_TURN["leads"]
    assert speakers == set(map(tuple, MULTI_TURN["speakers"])) and asked == set(answers)


def test_wrappers_name_no_topic_of_safety():
    """A wrapper alone must not reveal the label: none has words of harm or rules."""
    everything = " ".join(
        [
            *(template for table in TABLES.values() for template in table),
            *(sentence for part in PERSONA.values() for kind in part.values() for sentence in kind),
            *(turn for exchange in MULTI_TURN["exchanges"] for turn in exchange),
            *MULTI_TURN["leads"],
        ]
    )
    telling = r"\w*(?:harm|illegal|danger|weapon|kill|bomb|drug|hack|crim|rule|polic|filter|ethic)"
    telling += r"\w*|unrestricted|uncensored|jailbreak|sorry, but|i cannot|i can't|sure"
    assert not re.findall(rf"\b(?:{telling})\b", everything, re.IGNORECASE)
