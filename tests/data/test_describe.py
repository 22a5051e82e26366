"""Compares the counts of the data command with counts by hand, and tests its errors."""

import json
import re
import subprocess
import sys
import types

import matplotlib.image
import numpy as np
import pytest
from tokenizers import Tokenizer

from ssl_guard.commands import data as command
from ssl_guard.data import corpora, describe
from ssl_guard.data.schema import Example, make_corpus
from ssl_guard.errors import BadInput
from ssl_guard.report import plots
from tests.data.corpora import made_up


def example(name, prompt, label, category=None, source="a", response=None):
    return Example(name, prompt, response, label, category, source, "MIT")


ROWS = [
    example("1", "How do I bake a cake with cream and butter", 1, "baking"),
    example("2", "how do I  bake a cake with cream and BUTTER", 0, "baking"),  # another label
    example("3", "how do I bake a cake with cream and butter please", 1, "baking"),  # nearly
    example("4", "Boil rice", None, "boiling", source="b"),
    example("5", "Boil rice", None, None, source="b"),
    example("6", "Boil rice", 0, "rice $x$", source="b", response="Use a pot"),  # another answer
]


@pytest.fixture
def found():
    corpus = make_corpus("kitchen", "prompt_harm", ROWS, "MIT")
    return describe.describe(corpus, np.array(describe.words(ROWS)))


def test_counts(found):
    assert found["sources"] == {
        "all": {"rows": 6, "harmful": 2, "safe": 2, "unlabelled": 2},
        "a": {"rows": 3, "harmful": 2, "safe": 1, "unlabelled": 0},
        "b": {"rows": 3, "harmful": 0, "safe": 1, "unlabelled": 2},
    }
    assert found["repeated"] == {"exact": 2, "conflicting": 1, "near": 4, "groups": 2}
    assert found["categories"] == {
        "baking": {"rows": 3, "harmful": 2},
        "boiling": {"rows": 1, "harmful": 0},
        "rice $x$": {"rows": 1, "harmful": 0},
    }
    assert json.loads(json.dumps(found)) == found


def test_lengths(found):
    assert describe.words(ROWS) == [10, 10, 11, 2, 2, 5]
    assert found["lengths"]["harmful"] == {"0": 10, "50": 10, "90": 10, "99": 10, "100": 11}
    assert found["lengths"]["safe"]["50"] == 7 and found["lengths"]["unlabelled"]["100"] == 2


def test_the_text_shows_numbers_and_no_row(found):
    text = describe.text(found, "words")
    assert "| b" in text and "kitchen, prompt_harm, MIT" in text and "words, percentiles" in text
    assert not any(row.prompt in text for row in ROWS)


def test_one_source_is_shown_once():
    corpus = make_corpus("kitchen", "prompt_harm", ROWS[:3], "MIT")
    text = describe.text(describe.describe(corpus, np.ones(3, int)), "tokens")
    assert "| a " in text and "all" not in text


@pytest.mark.parametrize("categories", [{}, {"a $x_1$ _ ✓" * 9: {"rows": 3, "harmful": 1}}])
def test_the_picture(tmp_path, categories):
    path = tmp_path / "new" / "kitchen.png"
    labels = ["harmful", "safe", "safe", "unlabelled"]
    plots.corpus(path, "kitchen", labels, np.array([0, 1, 500, 3]), "words", categories)
    pixels = matplotlib.image.imread(path)
    assert pixels.shape[0] == 600 and pixels.shape[1] == (1500 if categories else 900)
    for colour in ((0, 114, 178), (213, 94, 0)):  # both classes are drawn
        assert (np.abs(255 * pixels[..., :3] - colour) < 1).all(axis=-1).any()


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """The command in this process: what it prints."""

    def call(*arguments, **flags):
        values = {"DIR": tmp_path, "TASK": None, "STATUS": True, "COLUMNS": [], "HARMFUL": []}
        values |= {"SAFE": [], "TOKENIZER": None, "PLOT": None, "RUNNER": "local"}
        for name, value in (values | flags).items():
            flag = types.SimpleNamespace(value=value)
            monkeypatch.setattr(command, name, flag, raising=False)
        command.main(["", *arguments])
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return call


def test_list_build_and_describe(run, tmp_path):
    made_up.write(corpora.CORPORA["toxicchat"], tmp_path / "manual/toxicchat")
    made_up.write(corpora.CORPORA["xstest"], tmp_path / "manual/xstest")
    place, counts = run("build", "toxicchat").strip().split(": ", 1)
    assert place == str(tmp_path / "toxicchat/prompt_harm/1.0.0")
    assert json.loads(counts) == {
        "test": {"safe": 1},
        "train": {"empty": 1, "harmful": 1, "safe": 1},
    }
    table = run("list").splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in table[2:]]
    said = {(name, task): cells[1:] for _, name, task, *cells, _ in rows}
    assert said["toxicchat", "prompt_harm"] == ["3", "CC-BY-NC-4.0", "no", "prepared"]
    assert said["xstest", "prompt_harm"] == ["~450", "CC-BY-4.0", "yes", "source present"]
    assert said["aegis2", "response_harm"] == ["", "CC-BY-4.0", "yes", "missing"]
    assert said["human_scored_responses", "response_harm"][-1] == "source present"
    assert len(said) == sum(len(corpus.FILES) for corpus in corpora.CORPORA.values())
    assert "status" not in run("list", STATUS=False) and "~" not in run("list", STATUS=False)
    text = run("describe", "toxicchat")
    assert "| toxicchat:train |      2 |         1 |      1 |" in text and "water" not in text
    assert "| toxicchat:test  |      1 |         0 |      1 |" in text
    assert (tmp_path / "described/toxicchat.prompt_harm.png").exists()
    assert "toxicchat-train, prompt_harm, CC-BY-NC-4.0" in run("describe", "toxicchat:train")


def test_a_file_with_columns_and_a_tokenizer(run, tmp_path, minilm):
    file = tmp_path / "mine.csv"
    prompts = "Bake an unquestionable cake", "Boil rice"
    file.write_text(f"text,bad\n{prompts[0]},ja\n{prompts[1]},nein\n")
    asked = {"TASK": "content_moderation", "COLUMNS": ["prompt=text", "label=bad"]}
    asked |= {"HARMFUL": ["ja"], "SAFE": ["nein"]}
    assert run("build", str(file), **asked) == f"{file}: 2 rows\n"
    picture = tmp_path / "here.png"
    text = run("describe", str(file), **asked, TOKENIZER=minilm, PLOT=str(picture))
    assert "tokens, percentiles" in text and picture.exists()
    expected = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    expected.no_padding()
    for line, prompt in zip(text.split("percentiles:")[1].splitlines()[4:6], prompts, strict=True):
        count = len(expected.encode(prompt, add_special_tokens=False))
        assert {cell.strip() for cell in line.split("|")[2:-1]} == {str(count)}


@pytest.mark.parametrize(
    ("arguments", "task", "said"),
    [
        ((), None, "give one of: list; build NAME; describe NAME|FILE"),
        (("build",), None, "give one of: list"),
        (("list", "xstest"), None, "give one of: list"),
        (("describe", "xtest"), None, "'xtest' is neither a corpus"),
        (("build", "xtest"), None, "'xtest' is neither a corpus"),
        (("build", "xstest"), "response_harm", "xstest is labelled for prompt_harm"),
        (("describe", "xstest"), "response_harm", "xstest is labelled for prompt_harm"),
        (("build", "wildguardmix"), None, "accept the terms on https://huggingface.co"),
    ],
)
def test_bad_requests(run, arguments, task, said):
    with pytest.raises(BadInput, match=re.escape(said)):
        run(*arguments, TASK=task)


def test_the_command_line(tmp_path):
    folder = f"--dir={tmp_path}"
    made_up.write(corpora.CORPORA["xstest"], tmp_path / "manual/xstest")
    line = [sys.executable, "-W", "error", "-m", "ssl_guard", "data", "build", "xstest", folder]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    place, counts = done.stdout.split(": ", 1)
    assert json.loads(counts) == {"test": {"harmful": 1, "safe": 1}}


def test_rows_that_are_left_out_are_shown():
    corpus = make_corpus("kitchen", "prompt_harm", ROWS, "MIT", {"empty": 2, "same id": 1})
    found = describe.describe(corpus, np.array(describe.words(ROWS)))
    assert found["left_out"] == {"empty": 2, "same id": 1}
    shown = describe.text(found, "words")
    assert "rows of the source that are left out: 2 empty, 1 same id." in shown
