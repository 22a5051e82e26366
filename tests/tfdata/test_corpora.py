"""TFDS's own test case for every builder, on made-up rows in the publishers' formats.

    make tfdata

It reads the prepared data with tf.data. Jigsaw's comments are prepared by TFDS's own builders.
"""

import csv
import tempfile
from pathlib import Path
from unittest import mock

import tensorflow_datasets as tfds

from ssl_guard.data import corpora
from ssl_guard.data.corpora import CORPORA
from tests.data.corpora import made_up

FOLDER = Path(tempfile.mkdtemp())
SUBTYPES = ["severe_toxicity", "obscene", "threat", "insult", "identity_attack"]


def case(name, task, splits):
    """A test case for one task of a corpus; splits: how many rows each has to have."""
    corpus = CORPORA[name]
    members = {
        "DATASET_CLASS": corpus,
        "BUILDER_CONFIG_NAMES_TO_TEST": [task] if corpus.BUILDER_CONFIGS else None,
        "SPLITS": splits,
        "EXAMPLE_DIR": str(FOLDER / name),
    }
    title = f"{corpus.__name__}_{task}"
    return type(title, (tfds.testing.DatasetBuilderTestCase,), members)


def csv_file(path, columns, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def civil_comments(folder):
    """The file of the archive that TFDS fetches: two toxic comments of four in every split."""
    columns = ["id", "comment_text", "split", "created_date", "publication_id", "parent_id"]
    columns += ["article_id", "parent_text", "toxicity", *SUBTYPES, "sexual_explicit"]
    rows = [
        dict.fromkeys(columns, "0")
        | {"id": f"{split}{i}", "comment_text": made_up.LINES, "split": split}
        | {"toxicity": share, "threat": share}
        for split in ("train", "test_public", "test_private")
        for i, share in enumerate((0.0, 0.49, 0.5, 1.0))
    ]
    csv_file(folder / "civil_comments.csv", columns, *rows)


def wikipedia(folder):
    columns = ["id", "comment_text", "lang", "toxic", "severe_toxic", "identity_hate"]
    columns += ["obscene", "threat", "insult"]
    for split in ("train", "test"):
        rows = [
            dict.fromkeys(columns, "0") | {"id": f"{split}{i}", "comment_text": made_up.LINES}
            for i in (0, 1, 2)
        ]
        rows[2] |= {"toxic": "1", "obscene": "1"}
        csv_file(folder / f"wikidata_{split}.csv", columns, *rows)


def prepare(name, write, folder):
    """Follows the instructions of OBTAIN with our archive instead of the published one."""
    write(folder / "archive")
    fetch = mock.patch.object(
        tfds.download.DownloadManager, "download_and_extract", lambda self, url: folder / "archive"
    )
    with fetch:
        builder = tfds.builder(name, data_dir=folder)
        builder.download_and_prepare(file_format="array_record")


for name in made_up.WRITE:
    made_up.write(CORPORA[name], FOLDER / name)
    for task, splits in CORPORA[name].FILES.items():
        sizes = {split: len(made_up.EXPECTED[name, task, split]) for split in splits}
        globals()[f"{name}_{task}"] = case(name, task, sizes)

(FOLDER / "human_scored_responses").mkdir()
HumanScored = case("human_scored_responses", "response_harm", {"rows": 1077})

prepare("civil_comments/CivilComments", civil_comments, FOLDER / "jigsaw_civil_comments")
Civil = case("jigsaw_civil_comments", "content_moderation", dict(train=4, validation=4, test=4))
prepare(
    "wikipedia_toxicity_subtypes/EnglishSubtypes", wikipedia, FOLDER / "jigsaw_wikipedia_toxicity"
)
Wikipedia = case("jigsaw_wikipedia_toxicity", "content_moderation", dict(train=3, test=3))


def test_comments_that_tfds_prepared():
    expected = {
        "jigsaw_civil_comments:test": [(0, None), (0, None), (1, "threat"), (1, "threat")],
        "jigsaw_wikipedia_toxicity:test": [(0, None), (0, None), (1, "obscene")],
    }
    for name, rows in expected.items():
        folder = FOLDER / name.partition(":")[0]
        found = corpora.load(name, task="content_moderation", data_dir=folder)
        by_id = sorted(found.examples, key=lambda e: e.id.rpartition(":")[2])
        assert [(e.label, e.category) for e in by_id] == rows
        assert {(e.prompt, e.response) for e in by_id} == {(made_up.LINES, None)}
