"""Gates that need a model: the arithmetic by hand, the models on harmless texts."""

import numpy as np
import pytest

from ssl_guard.augment.gates import Text
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import model_gates


def texts(*prompts):
    return [Text(prompt, None) for prompt in prompts]


def test_a_confident_flip_is_what_is_measured():
    scores = {"safe": 0.1, "sure": 0.9, "unsure": 0.6, "half": 0.5, "no": 0.45}
    sources = texts("safe", "safe", "safe", "sure", "sure", "half", "half")
    views = texts("sure", "unsure", "safe", "safe", "unsure", "no", "sure")
    found = model_gates.confidence_of_flips(
        sources, views, scores=lambda rows: np.array([scores[row.prompt] for row in rows])
    )
    np.testing.assert_allclose(found, [0.9, 0.6, 0, 0.9, 0, 0.55, 0], rtol=1e-12)


def test_a_flip_at_the_bound_is_rejected(monkeypatch):
    monkeypatch.setattr(
        model_gates,
        "_scores",
        lambda workdir: lambda rows: np.array([float(r.prompt) for r in rows]),
    )
    (gate,) = model_gates.build(similarity=0.0, classifier="runs/some", confidence=0.8)
    values = gate.measure(texts("0.2", "0.2", "0.2"), texts("0.8", "0.79", "0.3"))
    passes = [bool(gate.low <= value <= gate.high) for value in values]
    assert (gate.name, passes) == ("label", [False, True, True])


def test_cosines_by_hand():
    a = np.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [2.0, 2.0]])
    b = np.array([[4.0, 3.0], [0.0, 5.0], [1.0, 1.0], [-1.0, -1.0]])
    np.testing.assert_allclose(model_gates.cosines(a, b), [0.96, 0, 0, -1], rtol=1e-12, atol=1e-15)


def test_paraphrases_are_closer_than_other_topics():
    (gate,) = model_gates.build(similarity=0.5, classifier="", confidence=0.8)
    source = "How do I bake a loaf of bread at home?"
    views = ["What is the way to make bread in my own oven?", "Who won the chess match?", source]
    values = gate.measure(texts(*[source] * 3), texts(*views))
    assert values[2] == pytest.approx(1, abs=1e-5)
    assert values[0] > 0.6 > 0.3 > values[1]
    alone = gate.measure(texts(source), texts(views[0]))
    np.testing.assert_allclose(alone, values[:1], atol=1e-5)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"similarity": 1.5}, "similarity = 1.5"),
        ({"confidence": 0.4}, "confidence = 0.4"),
        ({"classifier": "runs/nowhere"}, "there is no run runs/nowhere"),
    ],
)
def test_what_cannot_be_used(settings, words):
    with pytest.raises(BadInput, match=words):
        model_gates.build(**({"similarity": 0.0, "classifier": "", "confidence": 0.8} | settings))
