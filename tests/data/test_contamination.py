"""Checks that prompts near a test prompt are counted in every pool and not used."""

import csv
import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from configs import fixmatch, tfidf_logistic
from ssl_guard.augment import text_set
from ssl_guard.data import assemble, contamination
from ssl_guard.data.duplicates import Shingles
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import prepare
from ssl_guard.train import run

WORDS = [a + b for a in "bdfgklmnprst" for b in ("a", "en", "ir", "o", "ul")]


def prompts(count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 12)) for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Labels in JSON lines; more text in CSV and Parquet; a test in CSV, each with its own columns.

    Rows have no ids, so they are called after their places. Two rows of the text are nearly test
    prompts.
    """
    folder = tmp_path_factory.mktemp("cross")
    mine, exam, more = prompts(80, 1), prompts(30, 2), prompts(20, 3)
    with (folder / "mine.jsonl").open("w") as file:
        for i, prompt in enumerate(mine):
            row = {"prompt": prompt, "response": "Yes", "label": i % 2}
            file.write(json.dumps(row) + "\n")
    with (folder / "exam.csv").open("w", newline="") as file:
        rows = [[prompt, "No", "bad" if i % 2 else "fine"] for i, prompt in enumerate(exam)]
        csv.writer(file).writerows([["text", "answer", "verdict"], *rows])
    with (folder / "more.csv").open("w", newline="") as file:
        rows = [[prompt, "Yes"] for prompt in [*more, f"{exam[0]} ba", exam[1].upper()]]
        csv.writer(file).writerows([["question", "reply"], *rows])
    table = pa.table({"prompt": prompts(10, 4), "completion": ["Perhaps"] * 10})
    parquet.write_table(table, folder / "other.parquet")
    return folder


def config_for(folder, **changes):
    config = fixmatch.get_config("smoke")
    config.data.dir = str(folder / "data")
    config.data.corpus = str(folder / "mine.jsonl")
    config.data.test_corpus = (
        f"{folder}/exam.csv?prompt=text&response=answer&label=verdict&harmful=bad&safe=fine"
    )
    config.data.unlabelled_corpus = (
        f"{folder}/more.csv?prompt=question&response=reply, "
        f"{folder}/other.parquet?response=completion"
    )
    config.data.labelled, config.data.dev = 16, 20
    config.model.num_layers, config.train.steps = 1, 2
    config.update_from_flattened_dict(changes)
    return config


def test_a_run_over_corpora_whose_columns_differ(folder):
    config = tfidf_logistic.get_config("smoke")
    config.data = config_for(folder).data
    report = run.train_and_evaluate(config, folder / "run")
    assert report["data"]["corpus"] == "mine-more-other-exam"
    rows = report["data"]["rows"]
    assert rows == {"labelled": 16, "unlabelled": 74, "dev": 20, "test": 30}
    assert report["contamination"] == {
        "labelled": {"rows": 16, "near_test": 0, "removed": 0},
        "unlabelled": {"rows": 74, "near_test": 0, "removed": 0},
        "dev": {"rows": 20, "near_test": 0, "removed": 0},
        "left_out": {"rows": 2, "near_test": 2, "removed": 2},
    }
    assert contamination.note(report["contamination"]) == (
        "near a test prompt and removed: 2 of 2 in left_out"
    )
    lines = (folder / "run" / "predictions.jsonl").read_text().splitlines()
    labels = {row["id"]: row["label"] for row in map(json.loads, lines)}
    # csv and Parquet rows are called "line 2" and "row 1", as those of mine.jsonl: told apart
    assert labels == {f"exam line {i + 2}": i % 2 for i in range(30)}


def test_a_view_near_a_test_prompt_is_replaced_by_its_row(folder, monkeypatch):
    config = config_for(folder)
    source = prepare.read_split(config)
    exam, pool = source.rows["test"][4].prompt, source.rows["unlabelled"]
    whole = text_set.TextSet.views

    def views(self, examples):
        for example, copy, prompt, response in whole(self, examples):
            yield example, copy, f"{exam} !" if example is pool[7] else prompt, response

    before = prepare.prepare(config, views=("weak", "strong"))
    assert before.contamination["augmented/tfidf"] == {"rows": 74, "near_test": 0, "removed": 0}
    monkeypatch.setattr(text_set.TextSet, "views", views)
    monkeypatch.setattr(assemble, "read_split", lambda corpora, split: source)
    with pytest.raises(BadInput, match="near_test: absent there, 1 now"):
        prepare.prepare(config, views=("weak", "strong"))
    after = prepare.prepare(config, views=("weak", "strong"), overwrite=True)
    assert after.contamination["augmented/tfidf"] == {"rows": 74, "near_test": 1, "removed": 1}
    weak = [row["input_ids"].tolist() for row in after.unlabelled.gather(range(74))]
    old, new = (
        [row["input_ids"].tolist() for row in p.strong.views[0].gather(range(74))]
        for p in (before, after)
    )
    assert new[7] == weak[7] and new[:7] + new[8:] == old[:7] + old[8:]


def test_an_encoder_that_has_read_test_prompts_is_refused(folder, minilm, tmp_path):
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    for path in minilm.iterdir():
        (encoder / path.name).symlink_to(path)
    config = config_for(folder, **{"model.name": str(encoder)})
    source = prepare.read_split(config)
    learned = [e.prompt for e in source.rows["unlabelled"]]
    Shingles.of(learned).save(encoder / contamination.PRETRAINING)
    found = prepare.prepare(config, views=()).contamination["pretraining"]
    assert found == {"rows": 74, "near_test": 0, "removed": 0}
    seen = [e.prompt for e in source.rows["test"][:3]]
    Shingles.of([*learned, *seen]).save(encoder / contamination.PRETRAINING)
    with pytest.raises(
        BadInput, match="pre-trained on 3 prompts that are near test prompts"
    ) as error:
        prepare.prepare(config, views=())
    assert not any(word in str(error.value).split() for word in WORDS)


def test_a_leak_that_is_still_used_is_said():
    near = {"dev": np.array([True, False]), "augmented/rules": np.array([True, True])}
    counts = contamination.counts(near)
    assert counts["dev"] == {"rows": 2, "near_test": 1, "removed": 0}
    assert contamination.note(counts) == (
        "near a test prompt and removed: 1 of 2 in dev (STILL USED), 2 of 2 in augmented/rules"
    )
    assert contamination.note({}).startswith("no prompt that the run may learn from")
