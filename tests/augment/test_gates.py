import numpy as np
import pytest

from ssl_guard.augment import gates
from ssl_guard.augment.gates import Text
from ssl_guard.errors import BadInput

BREAD = "please tell me how I can bake some good bread in the small oven that I have at home"
PAO = "por favor, diga-me como posso assar um bom pão no pequeno forno que tenho em casa"


def passes(sources, views, **settings):
    (gate,) = gates.build(**settings)
    values = gate.measure(sources, views)
    assert values.dtype == np.float64 and values.shape == (len(views),)
    return [bool(gate.low <= value <= gate.high) for value in values]


def of_prompts(pairs, **settings):
    return passes([Text(a, None) for a, _ in pairs], [Text(b, None) for _, b in pairs], **settings)


def test_no_gate_unless_asked_for_and_in_a_fixed_order():
    assert gates.build() == ()
    chosen = gates.build(language=0.8, length=(0.5, 2.0), overlap=0.9, refusal=True)
    assert [gate.name for gate in chosen] == ["refusal", "copy", "length", "language"]


def test_refusals_in_either_part():
    sorry = "I'm sorry, but I can't help with that."
    assert passes(
        [Text(BREAD, BREAD)] * 3 + [Text(BREAD, sorry)],
        [Text(BREAD, "flour"), Text(sorry, "flour"), Text("flour", sorry), Text(BREAD, sorry)],
        refusal=True,
    ) == [True, False, False, True]  # a response that refuses has rewrites that do


def test_copies_by_hand():
    pairs = [
        ("bake the bread", "Bake  the\nBREAD"),  # equal but for case and white space
        ("bake the bread", "bake the bread!"),  # 3 of 3 words in common
        ("bake the bread", "bread bake the"),  # the same bag
        ("bake the bread", "bake the cake"),  # 2 * 2 / 6
        ("the the the cat", "the dog"),  # "the" counts once: 2 * 1 / 6
        ("", ""),
        ("?!", "!?"),  # no word, not equal
    ]
    sources, views = [Text(a, None) for a, _ in pairs], [Text(b, None) for _, b in pairs]
    np.testing.assert_allclose(
        gates.overlaps(sources, views), [2, 1, 1, 2 / 3, 1 / 3, 2, 0], rtol=1e-12
    )
    assert of_prompts(pairs, overlap=1.0) == [False, True, True, True, True, False, True]
    assert of_prompts(pairs, overlap=0.6) == [False, False, False, False, True, False, True]


def test_a_short_prompt_that_stays_does_not_cost_its_response():
    source, view = Text("Hi", "bake the bread"), Text("Hi", "make a loaf")
    assert passes([source], [view], overlap=0.9) == [True]
    assert passes([source], [source], overlap=0.9) == [False]


def test_lengths_of_the_worst_part():
    sources = [Text("x" * 10, "y" * 10)] * 5 + [Text("", "y" * 10)]
    views = [
        Text("x" * 5, "y" * 20),
        Text("x" * 4, "y" * 10),
        Text("x" * 10, "y" * 21),
        Text("x" * 3, "y" * 20),  # of 0.3 and 2.0 the former is further away
        Text("", "y" * 10),
        Text("", "y" * 9),  # an empty part has no length to keep
    ]
    values = gates.length_ratios(sources, views)
    np.testing.assert_allclose(values[1:], [0.4, 2.1, 0.3, 0, 0.9], rtol=1e-12)
    assert passes(sources, views, length=(0.5, 2.0)) == [True, False, False, False, False, True]


def test_languages_that_are_told():
    pairs = [
        (BREAD, BREAD.replace("good", "nice")),
        (BREAD, PAO),
        (PAO, PAO.upper()),
        ("Hi", "Olá"),  # too short to tell
        (BREAD, "4829 9921 1009 <b> 33"),
    ]
    assert of_prompts(pairs, language=0.8) == [True, False, True, True, True]
    both = passes([Text(BREAD, BREAD)], [Text(BREAD, PAO)], language=0.8)
    assert both == [False], "one part in another language is enough"


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"overlap": 1.5}, "overlap = 1.5"),
        ({"language": -0.1}, "language = -0.1"),
        ({"length": (2.0, 0.5)}, "shortest, longest"),
        ({"length": (0.5,)}, "shortest, longest"),
        ({"overlap": float("nan")}, "overlap = nan"),
    ],
)
def test_values_out_of_range(settings, words):
    with pytest.raises(BadInput, match=words):
        gates.build(**settings)
