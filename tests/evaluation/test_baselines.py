"""Logistic regression on fixed features, against scikit-learn called directly."""

import functools

import jax
import numpy as np
import pytest
import scipy.sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from ssl_guard import models, steps
from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import baselines, prepare
from ssl_guard.runtime import sharding


def rows(count, seed):
    """Harmless texts, a third without a response, whose label is mostly one of the words."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        label = int(rng.integers(2))
        words = rng.choice(["pond", "garden", "über-tree", "I", "7"], 4)
        told = "sunny" if (rng.random() < 0.8) == label else "rainy"
        prompt, response = " ".join(words), None if i % 3 == 0 else f"{told} day"
        yield Example(str(i), prompt, response, label, None, "made up", "CC0")


def test_text_features_and_their_head():
    texts = {"labelled": list(rows(40, 0)), "dev": list(rows(30, 1))}
    features = baselines.text_features(texts["labelled"])
    labels = np.array([example.label for example in texts["labelled"]])
    head = baselines.logistic(features(texts["labelled"]), labels, 10.0)

    joined = {
        side: [e.prompt + "\n" + ("" if e.response is None else e.response) for e in examples]
        for side, examples in texts.items()
    }
    words = TfidfVectorizer(ngram_range=(1, 2)).fit(joined["labelled"])
    characters = TfidfVectorizer(analyzer="char", ngram_range=(3, 4)).fit(joined["labelled"])
    stacked = {
        side: scipy.sparse.hstack([words.transform(t), characters.transform(t)])
        for side, t in joined.items()
    }
    for side in texts:
        np.testing.assert_array_equal(features(texts[side]).toarray(), stacked[side].toarray())
    expected = LogisticRegression(C=10.0, class_weight="balanced", max_iter=5000)
    expected = expected.fit(stacked["labelled"], labels).predict_proba(stacked["dev"])[:, 1]
    np.testing.assert_allclose(baselines.harmful(head, features(texts["dev"])), expected, rtol=1e-9)
    assert expected.std() > 0.05  # it has learned something


def test_dev_chooses_the_penalty():
    rng = np.random.default_rng(0)
    labels = {side: rng.integers(0, 2, 40) for side in ("labelled", "dev")}
    data = {side: rng.normal(size=(40, 12)) + 0.5 * y[:, None] for side, y in labels.items()}
    grid = (100.0, 1e-3, 1.0)
    head, scores = baselines.fit(data.get, labels, grid=grid, select_by="auprc")
    by_hand = {}
    for C in grid:
        model = LogisticRegression(C=C, class_weight="balanced", max_iter=5000)
        model.fit(data["labelled"], labels["labelled"])
        by_hand[C] = average_precision_score(labels["dev"], model.predict_proba(data["dev"])[:, 1])
    assert len(set(by_hand.values())) == 3
    assert scores["C"] == head.C == max(by_hand, key=by_hand.get)
    assert scores["auprc"] == pytest.approx(max(by_hand.values()))


def test_of_equally_good_penalties_the_smallest():
    y = np.array([0, 1] * 4)
    head, _ = baselines.fit(
        lambda side: y[:, None] * 1.0,
        {"labelled": y, "dev": y},
        grid=(10.0, 1.0),
        select_by="f1",
    )
    assert head.C == 1.0


@pytest.mark.parametrize("grid", [(), (0.0, 1.0), (-1.0,)])
def test_no_penalty_to_choose_from(grid):
    with pytest.raises(BadInput, match="one or more numbers above 0"):
        baselines.fit({}.get, {}, grid=grid, select_by="f1")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from configs import supervised, supervised_full

    folder = tmp_path_factory.mktemp("data")
    made = []
    for config in (supervised.get_config("smoke"), supervised_full.get_config("smoke")):
        config.data.dir = str(folder)
        made.append(prepare.prepare(config, views=()))
    return made


def ids(records):
    return [row["id"] for row in records.gather(range(len(records)))]


def test_all_labels_are_those_of_the_same_split(data):
    twin, full = data
    assert twin.hashes == full.hashes and twin.summary["rows"] == full.summary["rows"]
    counts = full.summary["rows"]
    assert twin.summary["labels_used"] == len(twin.labelled) == counts["labelled"]
    # Every row of this corpus has a label.
    assert full.summary["labels_used"] == counts["labelled"] + counts["unlabelled"]
    assert ids(full.labelled)[: counts["labelled"]] == ids(twin.labelled)
    for side in ("dev", "test"):
        assert ids(getattr(full, side)) == ids(getattr(twin, side))
        assert not set(ids(full.labelled)) & set(ids(getattr(full, side)))
    assert ids(full.labelled) == [example.id for example in full.texts["labelled"]]
    labels = [row["label"] for row in full.labelled.gather(range(len(full.labelled)))]
    assert labels == [example.label for example in full.texts["labelled"]]


def test_all_labels_leave_nothing_for_a_method_with_unlabelled_rows(tmp_path):
    from configs import uda

    config = uda.get_config("smoke")
    config.data.dir, config.data.all_labels = str(tmp_path), True
    with pytest.raises(BadInput, match="configs/supervised_full.py"):
        prepare.prepare(config, views=("weak", "strong"))


def test_features_are_unit_length_means_over_real_tokens(data, minilm):
    """In the records' order, whatever batch and bucket a row was in."""
    records = data[0].dev
    model = models.build(minilm, num_layers=1, dropout=0.0)
    token = np.zeros((1, 1), np.int32)
    row = {"input_ids": token, "attention_mask": token, "token_type_ids": token, "row": token[0]}
    params = models.init_from_pretrained(model, minilm, jax.random.key(0), row)
    step = functools.partial(steps.feature_step, features=model.stages.features)
    found = baselines.encoder_features(
        jax.jit(step),
        params,
        records,
        batch_size=8,
        buckets=(32, 64),
        pad_id=data[0].tokenizer.pad_id,
        mesh=sharding.make_mesh(),
    )
    assert found.shape == (len(records), model.config.hidden_size)
    for i in (0, 7, len(records) - 1):
        tokens = records[i]["input_ids"][None].astype(np.int32)
        alone = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "token_type_ids": (np.arange(tokens.shape[1]) >= records[i]["second"])[None].astype(
                np.int32
            ),
            "row": np.zeros(1, np.int32),
        }
        feature = np.asarray(model.stages.features(params, alone, None, False))[0]
        np.testing.assert_allclose(found[i], feature / np.linalg.norm(feature), atol=1e-5)


def test_a_head_is_fitted_on_the_labelled_rows(data):
    """`predict`, with one column of made-up features: the id's number."""
    prepared = data[0]

    def features(params, records):
        return np.array([[params * (hash_of(i) % 97)] for i in ids(records)], float)

    def hash_of(i):
        return sum(i.encode())

    scores = baselines.predict(features, 0.01, prepared.dev, labelled=prepared.labelled, C=5.0)
    labels = [example.label for example in prepared.texts["labelled"]]
    expected = LogisticRegression(C=5.0, class_weight="balanced", max_iter=5000)
    expected.fit(features(0.01, prepared.labelled), labels)
    np.testing.assert_allclose(
        scores, expected.predict_proba(features(0.01, prepared.dev))[:, 1], rtol=1e-9
    )
