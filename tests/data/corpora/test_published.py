"""Builders of published corpora on made-up rows in their publishers' own formats."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ssl_guard.data import corpora
from ssl_guard.data.corpora import CORPORA, sources
from ssl_guard.data.schema import commercial_use, licence_notes
from ssl_guard.errors import BadInput
from tests.data.corpora import made_up

MADE_UP = sorted(made_up.WRITE)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name in MADE_UP:
        made_up.write(CORPORA[name], folder / "manual" / name)
    return folder


def rows_of(corpus):
    return [(e.id, e.prompt, e.response, e.label, e.category) for e in corpus.examples]


@pytest.mark.parametrize("name", MADE_UP)
def test_rows(name, data_dir):
    """Every task and split: ids, texts to the letter, labels, categories, and nothing else."""
    corpus = CORPORA[name]
    for task, splits in corpus.FILES.items():
        for split in splits:
            asked = f"{name}:{split}" if len(splits) > 1 else name
            found = corpora.load(asked, task=task, data_dir=data_dir)
            expected = [
                (f"{name}/{end}", *rest) for end, *rest in made_up.EXPECTED[name, task, split]
            ]
            assert sorted(rows_of(found)) == sorted(expected), (task, split)
            assert {e.source for e in found.examples} == {f"{name}:{split}"}
            assert {e.licence for e in found.examples} == {found.licence} == {corpus.LICENCE}
            assert found.name == (f"{name}-{split}" if len(splits) > 1 else name)


def metadata(data_dir, name, task):
    return json.loads((data_dir / name / task / "1.0.0" / "metadata.json").read_text())


def test_rows_that_are_left_out_are_counted(data_dir):
    counts = {}
    for name, task, split in [
        ("wildguardmix", "prompt_harm", "train"),
        ("wildguardmix", "response_harm", "train"),
        ("aegis2", "prompt_harm", "train"),
        ("aegis2", "response_harm", "train"),
        ("openai_moderation", "prompt_harm", "test"),
        ("harmbench", "response_harm", "test"),
    ]:
        corpora.prepare(CORPORA[name], task, data_dir)
        counts[name, task] = metadata(data_dir, name, task)[split]
    assert counts == {
        ("wildguardmix", "prompt_harm"): {"empty": 1, "harmful": 2, "safe": 1, "unlabelled": 1},
        ("wildguardmix", "response_harm"): {
            "empty": 2,
            "harmful": 1,
            "no response": 1,
            "unlabelled": 1,
        },
        ("aegis2", "prompt_harm"): {"harmful": 3, "redacted": 1, "safe": 1, "unclear": 1},
        ("aegis2", "response_harm"): {"no response": 2, "redacted": 1, "safe": 2, "unclear": 1},
        ("openai_moderation", "prompt_harm"): {
            "flag missing": 1,
            "harmful": 1,
            "not text": 1,
            "safe": 1,
        },
        ("harmbench", "response_harm"): {"empty": 1, "harmful": 1, "safe": 1},
    }


@pytest.mark.parametrize("name", CORPORA)
def test_what_a_corpus_says_of_itself(name, tmp_path):
    corpus = CORPORA[name]
    assert corpus.name == name and set(corpus.ROWS) == set(corpus.FILES)
    assert all(set(corpus.ROWS[task]) <= set(corpus.FILES[task]) for task in corpus.ROWS)
    for task in corpus.FILES:
        config = task if issubclass(corpus, corpora.Published) else None
        info = corpus(data_dir=tmp_path, config=config).info
        assert info.homepage.startswith("https://") and "\n" in info.description
        assert info.citation.startswith("@") and "year = {" in info.citation
        assert info.redistribution_info.license == corpus.LICENCE


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [("MIT", True), ("CC-BY-NC-4.0 and MIT", False), ("MIT and unstated", None)],
)
def test_commercial_use(licence, allowed):
    assert commercial_use(licence) is allowed
    assert [licence in note for note in licence_notes(licence)] == [True] * (allowed is False)


def test_the_licences_that_forbid_commercial_use():
    found = {name for name, corpus in CORPORA.items() if not commercial_use(corpus.LICENCE)}
    assert found == {"toxicchat", "beavertails", "pku_saferlhf", "do_not_answer"}


@pytest.mark.parametrize("name", [n for n in CORPORA if n != "human_scored_responses"])
def test_a_missing_source_says_what_to_do(name, tmp_path):
    corpus = CORPORA[name]
    task, splits = next(iter(corpus.FILES.items()))
    with pytest.raises(BadInput) as caught:
        corpora.load(f"{name}:{next(iter(splits))}", task=task, data_dir=tmp_path)
    message = str(caught.value)
    folder = corpus.folder(tmp_path)
    assert f"{name} needs " in message and f"in {folder}, and nothing is downloaded" in message
    assert all(file in message for files in splits.values() for file in files)
    assert str(folder) in message.partition("nothing is downloaded")[2]
    assert not list(tmp_path.rglob("*.json"))
    if name in ("wildguardmix", "xstest_response"):
        assert f"accept the terms on {corpus.HOMEPAGE}" in message


def test_only_the_missing_files_are_named(tmp_path):
    made_up.write(CORPORA["or_bench"], tmp_path / "manual/or_bench")
    (tmp_path / "manual/or_bench/or-bench-toxic.csv").unlink()
    with pytest.raises(BadInput, match="or_bench needs or-bench-toxic.csv in "):
        corpora.load("or_bench:hard", task="prompt_harm", data_dir=tmp_path)


def test_prepared_data_needs_no_source_and_a_changed_source_is_told(tmp_path):
    folder = tmp_path / "manual/xstest"
    made_up.write(CORPORA["xstest"], folder)
    first = corpora.load("xstest", task="prompt_harm", data_dir=tmp_path)
    file = folder / "xstest_prompts.csv"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"safe", b"unsafe", 1))
    with pytest.raises(BadInput, match=r"xstest_prompts\.csv is not the file that xstest was prep"):
        corpora.load("xstest", task="prompt_harm", data_dir=tmp_path)
    file.unlink()
    assert corpora.load("xstest", task="prompt_harm", data_dir=tmp_path) == first


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"label", b"labels", "row 1: 'label' is not a column or label of xstest"),
        (b"unsafe", b"unsure", "row 2: 'unsure' is not a column or label of xstest"),
        (b'"Boil', b"Boil", "line 2 has 2 columns, but line 1 has 6"),
        (b"safe", b"\xff", "line 3 is not UTF-8"),
    ],
)
def test_another_file_than_published(tmp_path, old, new, said):
    made_up.write(CORPORA["xstest"], tmp_path / "manual/xstest")
    file = tmp_path / "manual/xstest/xstest_prompts.csv"
    file.write_bytes(file.read_bytes().replace(old, new, 1))
    with pytest.raises(BadInput, match=said) as caught:
        corpora.load("xstest", task="prompt_harm", data_dir=tmp_path)
    assert "water" not in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.array_record*"))


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("wildguardmix", "train/wildguard_train.parquet", "damaged or of another format"),
        ("beavertails", "round0/30k/train.jsonl.gz", "not a whole gzip file"),
        ("beavertails", "round0/330k/train.jsonl.xz", "not a whole xz file"),
        ("aegis2", "train.json", "not JSON that holds rows: fetch it again"),
        ("pku_saferlhf", "data/Alpaca-7B/train.jsonl", "is not JSON"),
    ],
)
def test_damaged_sources(tmp_path, name, file, said):
    made_up.write(CORPORA[name], tmp_path)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(BadInput, match=f"{file}.*{said}") as caught:
        list(sources.rows(tmp_path / file, CORPORA[name].READS))
    assert "water" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_garbled_xz_file(tmp_path):
    made_up.write(CORPORA["beavertails"], tmp_path)
    file = tmp_path / "round0/330k/train.jsonl.xz"
    file.write_bytes(file.read_bytes()[:-20] + bytes(20))
    with pytest.raises(BadInput, match="is not a whole xz file"):
        list(sources.rows(file, ()))


class CivilComments(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS's own builder needs tensorflow: this one writes the same features as far as we read."""

    name = "civil_comments"
    VERSION = tfds.core.Version("1.2.4")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="CivilComments")]
    SHARES = ("toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack")

    def _info(self):
        texts = {name: tfds.features.Text() for name in ("text", "parent_text")}
        features = texts | {"id": np.str_} | dict.fromkeys(self.SHARES, np.float32)
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(name) for name in ("train", "validation", "test")}

    def _generate_examples(self, split):
        for i, share in enumerate((0.0, 0.49, 0.5, 1.0)):
            row = {"id": f"{split}{i}", "text": made_up.LINES, "parent_text": "Tea"}
            row |= dict.fromkeys(self.SHARES, 0.0) | {"toxicity": share, "insult": share}
            yield i, row


def test_jigsaw_from_what_tfds_prepared(tmp_path):
    CivilComments(data_dir=tmp_path).download_and_prepare(file_format="array_record")
    name = "jigsaw_civil_comments"
    corpus = corpora.load(f"{name}:test", task="content_moderation", data_dir=tmp_path)
    found = sorted((e.id.rpartition(":")[2], e.label, e.category) for e in corpus.examples)
    assert found == [("test0", 0, None), ("test1", 0, None)] + [
        (f"test{i}", 1, "insult") for i in (2, 3)
    ]
    assert {(e.prompt, e.response) for e in corpus.examples} == {(made_up.LINES, None)}


@pytest.mark.parametrize(
    ("name", "task", "said"),
    [
        ("xstest", "response_harm", "xstest is labelled for prompt_harm: set config.data.task"),
        ("toxicchat", "prompt_harm", "has the splits toxicchat:train, toxicchat:test: name one"),
        ("toxicchat:dev", "prompt_harm", "has the splits toxicchat:train, toxicchat:test: name"),
        ("xstest:test", "content_moderation", "is labelled for prompt_harm"),
    ],
)
def test_wrong_requests(name, task, said, data_dir):
    with pytest.raises(BadInput, match=said):
        corpora.load(name, task=task, data_dir=data_dir)
