"""Neighbours as strong views, against all cosines of the pool."""

import json

import jax
import numpy as np
import pytest
import scipy.sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from ssl_guard import config as base
from ssl_guard.data import pipeline
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import graph, scorer
from ssl_guard.train import neighbour_views
from tests.tiny import smoke

pytestmark = pytest.mark.usefixtures("shared_programs")
VIEWS = ("weak", "strong")


def prepared(folder, **changes):
    return neighbour_views.prepare(smoke(folder, "neighbours", **changes), views=VIEWS)


def brute_force(x, k):
    """The k nearest other rows of each row, by a loop over all rows."""
    found = []
    for i, row in enumerate(x):
        norms = np.linalg.norm(x, axis=1) * np.linalg.norm(row)
        cosines = x @ row / np.where(norms > 0, norms, 1)
        cosines[i] = -np.inf
        best = np.argsort(-cosines, kind="stable")[:k]
        found.append([j if cosines[j] > 0 else i for j in best])
    return np.array(found)


def lsa(run):
    def text(examples):
        return [f"{e.prompt}\n{e.response}" for e in examples]

    words = TfidfVectorizer(sublinear_tf=True)
    counts = words.fit_transform(text(run.texts["labelled"] + run.texts["unlabelled"]))
    svd = TruncatedSVD(min(200, *counts.shape), random_state=0).fit(counts)
    return svd.transform(words.transform(text(run.texts["unlabelled"])))


def test_a_rows_strong_views_are_its_nearest_rows_of_the_pool(folder):
    run = prepared(folder, **{"augment.neighbours": 3})
    pool, rows = run.unlabelled, len(run.unlabelled)
    assert run.strong.rows == rows and run.strong.copies == (3,)
    expected = brute_force(lsa(run), 3)
    records = run.strong.gather(range(3 * rows))
    assert [record["index"] for record in records] == np.repeat(np.arange(rows), 3).tolist()
    ids = [example.id for example in run.texts["unlabelled"]]
    assert [record["id"] for record in records] == [ids[j] for j in expected.ravel()]
    for record, j in zip(records, expected.ravel(), strict=True):
        np.testing.assert_array_equal(record["input_ids"], pool[int(j)]["input_ids"])
    np.testing.assert_array_equal(run.strong.lengths, [len(r["input_ids"]) for r in records])


def test_every_epoch_shows_a_rows_next_neighbour(folder):
    run = prepared(folder, **{"augment.neighbours": 3})
    expected = brute_force(lsa(run), 3)

    def texts(view):
        masks = view["attention_mask"].astype(bool)
        return [
            tuple(ids[mask].tolist()) for ids, mask in zip(view["input_ids"], masks, strict=True)
        ]

    def batches(seed):
        return list(
            pipeline.train_batches(
                *(run.labelled, run.unlabelled, run.strong),
                **{"seed": seed, "steps": 9, "labelled_batch": 2, "unlabelled_batch": 30},
                **{"buckets": (64,), "pad_id": run.tokenizer.pad_id},
            )
        )

    found = batches(seed=0)  # three epochs of 90 rows
    tokens = [tuple(record["input_ids"].tolist()) for record in run.unlabelled]
    shown = {i: [] for i in range(90)}
    for batch in found:
        assert texts(batch["weak"]) == [tokens[i] for i in batch["index"]]
        for i, text in zip(batch["index"].tolist(), texts(batch["strong"]), strict=True):
            shown[i].append(text)
    for i, neighbours in enumerate(expected):
        assert sorted(shown[i]) == sorted(tokens[j] for j in neighbours)
    jax.tree.map(np.testing.assert_array_equal, batches(seed=0), found)
    first = [batches(seed)[0]["strong"]["input_ids"].tolist() for seed in (0, 1)]
    assert first[0] != first[1]


@pytest.mark.parametrize("kinds", [("encoder",), ("tfidf",), ("tfidf", "lsa")])
def test_features_are_those_asked_for(folder, kinds):
    config = smoke(folder, "neighbours", **{"augment.features": kinds})
    run = neighbour_views.prepare(config, views=VIEWS)
    found = scorer.fixed_features(config, run, kinds)(run.texts["unlabelled"], run.unlabelled)
    parts = [found[k].toarray() if scipy.sparse.issparse(found[k]) else found[k] for k in kinds]
    parts = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts]
    cosines = sum(part @ part.T for part in parts) / len(kinds)
    np.fill_diagonal(cosines, -1)
    rows = len(run.unlabelled)
    index = {example.id: i for i, example in enumerate(run.texts["unlabelled"])}
    mine = np.array([index[r["id"]] for r in run.strong.gather(range(4 * rows))]).reshape(-1, 4)
    best = -np.sort(-cosines, axis=1)[:, :4]
    np.testing.assert_allclose(np.take_along_axis(cosines, mine, axis=1), best, atol=1e-5)


def test_neighbours_are_found_once(folder, monkeypatch):
    first = prepared(folder)
    monkeypatch.setattr(graph, "neighbours", None)
    again = prepared(folder)
    assert again.shards_sha256 == first.shards_sha256 and "neighbours" in first.shards_sha256
    with pytest.raises(TypeError):  # another number of neighbours is searched
        prepared(folder, **{"augment.neighbours": 7})
    assert neighbour_views.prepare(smoke(folder, "neighbours"), views=("weak",)).strong is None


def find(x, k):
    return neighbour_views.nearest(np.asarray(x, np.float32), k, exact_rows=100)


def test_few_equal_and_empty_rows():
    assert find([[1, 2]], 4).tolist() == [[0]]
    assert find([[0, 0]], 4).tolist() == [[0]]
    x = np.random.default_rng(0).uniform(size=(4, 3))
    found = find(x, 9)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, brute_force(x, 3))
    assert find([[1, 1], [1, 1], [1, 0]], 1)[:2].tolist() == [[1], [0]]  # equal rows
    for i, row in enumerate(find([[1, 2]] * 9, 3).tolist()):  # more equal rows than neighbours
        assert i not in row and len(set(row)) == 3
    assert find([[1, 1], [0, 0], [1, 0]], 1).tolist() == [[2], [1], [0]]  # a text without words
    assert find([[1, 0], [-1, 0]], 1).tolist() == [[0], [1]]  # opposites


def test_settings_that_do_not_fit(folder, monkeypatch):
    for changes, message in (
        ({"augment.sets": ("tfidf",)}, "set only one of the two"),
        ({"augment.features": ("words",)}, "name one or more of lsa, tfidf and encoder"),
        ({"augment.features": ()}, "name one or more of lsa, tfidf and encoder"),
        ({"data.prompt_corpus": "p.jsonl"}, "rows of both tasks"),
    ):
        with pytest.raises(BadInput, match=message):
            base.check(smoke(folder, "neighbours", **changes))
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(BadInput, match="computed by one process"):
        prepared(folder, **{"augment.features": ("encoder",)})


def test_no_set_is_made(tmp_path):
    run = prepared(tmp_path)
    assert not (tmp_path / "data" / "augmented").exists()
    assert json.loads(json.dumps(run.summary))["repeated_views"] == 0
