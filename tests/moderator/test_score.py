"""The library: kinds of input, windows, thresholds, and what it does not import."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssl_guard.data import windows
from ssl_guard.errors import BadInput
from ssl_guard.moderator import Moderator

PAIR = ("Question 1: bread garden, please?", "Of course, with pleasure.")
TURNS = [{"role": "user", "content": PAIR[0]}, {"role": "assistant", "content": PAIR[1]}]


@pytest.fixture(scope="module")
def moderator(exported):
    return Moderator.load(exported[0])


def test_the_readme_scores_a_pair(exported, monkeypatch, capsys):
    [code] = re.findall(r"```python\n([^`]*moderator[^`]*)```", Path("README.md").read_text())
    monkeypatch.chdir(exported[0].parent)
    exec(code, {})  # noqa: S102  our own README
    assert re.match(r"0\.\d+ (safe|harmful) ", capsys.readouterr().out)


def test_a_pair_and_its_conversation_have_one_score(moderator):
    first, second, third = moderator([PAIR, TURNS, list(PAIR)])
    assert first == second == third
    assert 0 < first.probability < 1 and first.windows == 1 and not first.truncated


def test_results_do_not_depend_on_the_rest_of_the_batch(moderator):
    long = "garden river " * 40
    inputs = [PAIR, (long, "Never, thanks."), ("bread", "Of course."), PAIR]
    together = moderator(inputs)
    for given, found in zip(inputs, together, strict=True):
        [alone] = moderator([given])
        assert alone.verdict == found.verdict and alone.windows == found.windows
        np.testing.assert_allclose(alone.probability, found.probability, atol=1e-6)
    assert moderator([]) == []


def test_a_long_text_has_the_score_of_its_most_harmful_window(moderator):
    words = [f"{word} " for word in ("bread", "river", "teapot", "violin", "candle") * 30]
    pair = ("".join(words), "Never, thanks.")
    [found] = moderator([pair])
    tokenizer, settings = moderator._tokenizer, moderator.settings
    [parts] = windows.encode(tokenizer, [pair[0]], [pair[1]], stride=settings.stride)
    scores = [moderator._scores([part])[0] for part in parts]
    assert found.windows == len(parts) > 2 and not found.truncated
    np.testing.assert_allclose(found.probability, max(scores), atol=1e-6)
    [cut] = moderator([pair], whole=False)
    assert cut.truncated and cut.windows == 1 and cut.probability <= found.probability + 1e-6


def test_a_score_at_the_threshold_is_harmful(moderator, monkeypatch):
    [found] = moderator([PAIR])
    for threshold, verdict in ((found.probability, "harmful"), (found.probability + 1e-9, "safe")):
        monkeypatch.setitem(moderator.thresholds, "own", (threshold, "none"))
        [judged] = moderator([PAIR], profile="own")
        assert judged.verdict == verdict and judged.promise == "none"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a prompt alone", "input 1 has no response"),
        (("a", 3), "input 1 is no text, no pair"),
        (None, "input 1 is no text, no pair"),
        ([{"role": "assistant", "content": "Never."}], "has no turn of the user"),
        (TURNS[:1], "input 1 has no response"),
    ],
)
def test_other_inputs_are_named_by_number(moderator, given, message):
    with pytest.raises(BadInput, match=message):
        moderator([PAIR, given])


def test_an_unknown_profile_lists_the_known(moderator):
    with pytest.raises(BadInput, match="choose from strict, balanced, permissive"):
        moderator([PAIR], profile="lenient")


def test_a_moderator_of_prompts_takes_no_response(moderator):
    settings = moderator.settings._replace(task="prompt_harm")
    prompts = Moderator(
        settings, moderator.thresholds, "", "", moderator._tokenizer, moderator._session
    )
    with pytest.raises(BadInput, match="input 0 has a response"):
        prompts([PAIR])
    [alone], [conversation] = prompts([PAIR[0]]), prompts([TURNS])
    assert alone == conversation


def test_the_library_and_the_command_import_no_jax(exported, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "bread", "response": "Never."}\n')
    heavy = ("jax", "flax", "transformers", "sklearn", "scipy", "orbax", "tensorflow_datasets")
    code = (
        "import sys\n"
        f"for name in {heavy}: sys.modules[name] = None\n"  # as if it were not installed
        "from ssl_guard.moderator import Moderator\n"
        f"[found] = Moderator.load({str(exported[0])!r})([('bread', 'Never.')])\n"
        f"sys.argv = ['ssl_guard', 'moderate', {str(rows)!r}, '--moderator={exported[0]}']\n"
        "import ssl_guard.__main__ as m\n"
        "m.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert '"verdict"' in done.stdout
