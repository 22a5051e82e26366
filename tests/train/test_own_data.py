"""Tests README's claims for a user's own file and own training loop."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import fixmatch
from ssl_guard.errors import BadInput
from ssl_guard.train import run as train_run
from tests.tiny import write_encoder

pytestmark = pytest.mark.usefixtures("shared_programs")


def write_rows(path, rows=160, unlabelled=60):
    """Harmless rows whose label is a word of the answer; some without a label."""
    rng = np.random.default_rng(0)
    topics = rng.permutation(rows)
    with path.open("w") as file:
        for i in range(rows):
            bad = int(rng.integers(2))
            row = {
                "text": f"Question {topics[i]} about garden {i} and pond {i * 7} please",
                "answer": "Never, thanks." if bad else "Of course, with pleasure.",
            }
            if i >= unlabelled:
                row["verdict"] = "bad" if bad else "ok"
            file.write(json.dumps(row) + "\n")


def config_for(tmp_path):
    config = fixmatch.get_config("smoke")
    config.data.dir = str(tmp_path / "data")
    config.data.corpus = str(tmp_path / "mine.jsonl")
    config.data.columns.prompt = "text"
    config.data.columns.response = "answer"
    config.data.columns.label = "verdict"
    config.data.harmful_values, config.data.safe_values = ("bad",), ("ok",)
    config.data.labelled, config.data.dev, config.data.test = 16, 20, 24
    config.model.name, config.train.steps = str(tmp_path / "encoder"), 2
    if not (tmp_path / "encoder").exists():
        write_encoder(tmp_path / "encoder")
    return config


def test_a_file_of_ones_own_trains(tmp_path):
    write_rows(tmp_path / "mine.jsonl")
    report = train_run.train_and_evaluate(config_for(tmp_path), tmp_path / "run")
    rows = report["data"]["rows"]
    assert report["data"]["corpus"] == "mine"
    assert (rows["labelled"], rows["dev"], rows["test"]) == (16, 20, 24)
    assert rows["unlabelled"] == 100  # 40 labelled rows that were left over, 60 without a label


def test_a_workdir_is_not_lost_to_a_mistake_in_the_data(tmp_path):
    """Checks that a refused run leaves its workdir free for the corrected command."""
    write_rows(tmp_path / "mine.jsonl")
    config = config_for(tmp_path)
    config.data.columns.prompt = "texd"
    with pytest.raises(BadInput, match="texd"):
        train_run.train_and_evaluate(config, tmp_path / "run")
    train_run.train_and_evaluate(config_for(tmp_path), tmp_path / "run")


def test_a_changed_file_is_not_mistaken_for_the_old_one(tmp_path):
    write_rows(tmp_path / "mine.jsonl")
    train_run.train_and_evaluate(config_for(tmp_path), tmp_path / "run")
    write_rows(tmp_path / "mine.jsonl", rows=170)
    with pytest.raises(BadInput, match="drawn from other rows"):
        train_run.train_and_evaluate(config_for(tmp_path), tmp_path / "second")


@pytest.mark.parametrize(
    "rows, changes, words",
    [
        (60, {}, "more than the"),
        (160, {"data.columns.prompt": "texd"}, "texd"),
        (160, {"data.harmful_values": ("awful",)}, "bad"),
        (160, {"data.harmful_values": ("bad", "ok"), "data.safe_values": ()}, "0 safe"),
    ],
)
def test_unusable_files_end_in_one_sentence(tmp_path, rows, changes, words):
    write_rows(tmp_path / "mine.jsonl", rows=rows, unlabelled=10)
    config = config_for(tmp_path)
    config.update_from_flattened_dict(changes)
    with pytest.raises(BadInput, match=re.escape(words)) as error:
        train_run.train_and_evaluate(config, tmp_path / "run")
    assert "pleasure" not in str(error.value) and "Question" not in str(error.value)


def test_the_readme_loop_runs(tmp_path):
    """The README's snippets, with a batch, train an encoder by a step each; a tiny one here."""
    encoder = write_encoder(tmp_path / "encoder")
    rng = np.random.default_rng(0)

    def view(rows):
        ids = rng.integers(5, 90, (rows, 8)).astype(np.int32)
        return {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
            "row": np.arange(rows, dtype=np.int32),
        }

    ones = np.ones(8, np.float32)
    batch = {
        "labelled": view(8) | {"label": np.tile(np.int32([0, 1]), 4), "weight": ones},
        "weak": view(8),
        "strong": view(8),
        "index": np.arange(8, dtype=np.int32),
        "weight": ones,
        "hidden_label": -np.ones(8, np.int32),
    }
    names = {"batch": batch}
    blocks = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.S)
    for code in (block for block in blocks if "moderator" not in block):  # see tests/moderator
        exec(code.replace("all-MiniLM-L6-v2", str(encoder)), names)  # noqa: S102  our own README
    assert int(names["state"].step) == 2  # one under jit, one inside shard_map
    assert np.isfinite(jax.device_get(names["metrics"]["loss/total"][0]))


def test_a_test_corpus_of_its_own(tmp_path):
    """Its labelled rows are the test side, whatever config.data.test says."""
    write_rows(tmp_path / "mine.jsonl")
    config = config_for(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "mine.jsonl").read_text().splitlines()]
    with (tmp_path / "exam.jsonl").open("w") as file:
        for i, row in enumerate(rows[60:90]):
            row |= {"text": f"Exam {i} asks of {i * 3} ships", "id": f"exam{i}"}
            file.write(json.dumps(row) + "\n")
    config.data.test_corpus = str(tmp_path / "exam.jsonl")
    report = train_run.train_and_evaluate(config, tmp_path / "run")
    assert report["data"]["rows"]["test"] == 30
    assert report["data"]["corpus"] == "mine-exam"
    lines = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == {f"exam{i}" for i in range(30)}
