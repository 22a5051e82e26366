"""Score smoothing on a graph, against dense matrices and scikit-learn called directly."""

import json
import sys

import numpy as np
import pytest
import scipy.sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from ssl_guard.data.schema import Example
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import baselines, evaluate, graph, graph_model, scorer
from ssl_guard.evaluation.prepare import prepare, read_split
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.train import run as train_run
from tests.tiny import smoke


def unit(rows, width=6, seed=0):
    x = np.random.default_rng(seed).normal(size=(rows, width))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def dense_weights(nodes, k, rows=None):
    """The matrix W with loops, [rows, nodes]."""
    mine = nodes if rows is None else rows
    found = np.zeros((len(mine), len(nodes)))
    for i, row in enumerate(mine):
        cosines = np.array([row @ n / np.linalg.norm(row) / np.linalg.norm(n) for n in nodes])
        if rows is None:
            cosines[i] = -np.inf
        for j in np.argsort(-cosines)[:k]:
            found[i, j] = max(cosines[j], 0)
        found[i] /= found[i].sum()
    return found


def matrix(found, nodes):
    dense = np.zeros((len(found.indices), nodes))
    np.put_along_axis(dense, found.indices, found.weights, axis=1)
    return dense


def test_neighbours_are_those_of_the_dense_matrix():
    nodes, rows = unit(40), unit(15, seed=1)
    for new in (None, rows):
        found = graph.neighbours(nodes, 5, new)
        np.testing.assert_allclose(matrix(found, 40), dense_weights(nodes, 5, new), atol=1e-12)


def test_blocks_change_nothing():
    from sklearn import config_context

    nodes = unit(3000, 40)
    whole = graph.neighbours(nodes, 5)
    with config_context(working_memory=1):  # MiB: 43 rows a block
        blocks = graph.neighbours(nodes, 5)
    np.testing.assert_array_equal(whole.indices, blocks.indices)
    np.testing.assert_allclose(whole.weights, blocks.weights, atol=1e-12)


def test_many_rounds_reach_the_closed_form():
    nodes, rows, alpha = unit(40), unit(15, seed=1), 0.7
    scores, own = (np.random.default_rng(2).random(n) for n in (40, 15))
    W = dense_weights(nodes, 5)
    expected = (1 - alpha) * np.linalg.solve(np.eye(40) - alpha * W, scores)
    found = graph.smooth(scores, graph.neighbours(nodes, 5), alpha=alpha, rounds=200)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    read = graph.read(own, graph.neighbours(nodes, 5, rows), expected, alpha=alpha)
    expected = (1 - alpha) * own + alpha * dense_weights(nodes, 5, rows) @ expected
    np.testing.assert_allclose(read, expected, atol=1e-12)


def test_few_rounds():
    nodes, scores = unit(40), np.random.default_rng(2).random(40)
    W, found = dense_weights(nodes, 5), graph.neighbours(nodes, 5)
    np.testing.assert_array_equal(graph.smooth(scores, found, alpha=0.5, rounds=0), scores)
    once = (scores + W @ scores) / 2
    np.testing.assert_allclose(graph.smooth(scores, found, alpha=0.5, rounds=1), once)
    twice = (scores + W @ once) / 2
    np.testing.assert_allclose(graph.smooth(scores, found, alpha=0.5, rounds=2), twice)


def test_sparse_features_are_joined_as_dense_ones():
    parts = [unit(40), 3 * unit(40, 9, seed=2)]
    dense, sparse = graph.join(parts), graph.join([parts[0], scipy.sparse.csr_array(parts[1])])
    np.testing.assert_allclose(sparse.toarray(), dense, atol=1e-7)
    found, expected = graph.neighbours(sparse, 5), graph.neighbours(dense, 5)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-6)


def test_many_rows_need_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    nodes = unit(40)
    graph.neighbours(nodes, 5, exact_rows=40)
    with pytest.raises(
        BadInput, match=r"40 rows are too many.*: pip install ssl_guard\[neighbours"
    ):
        graph.neighbours(nodes, 5, exact_rows=39)


def test_fewer_nodes_than_neighbours():
    nodes = np.abs(unit(4))
    assert graph.neighbours(nodes, 15).indices.shape == (4, 3)
    assert graph.neighbours(nodes, 15, nodes[:2]).indices.shape == (2, 4)


def test_duplicates_are_neighbours_of_each_other_never_of_themselves():
    nodes = np.repeat(np.abs(unit(3)), 4, axis=0)
    found = graph.neighbours(nodes, 3)
    for i, indices in enumerate(found.indices):
        assert set(indices) == set(range(i // 4 * 4, i // 4 * 4 + 4)) - {i}
    np.testing.assert_allclose(found.weights, 1 / 3)


def test_a_row_without_similar_neighbours_keeps_its_score():
    nodes = np.array([[1.0, 0, 0], [0.9, 0.1, 0], [0, 0, 1.0], [-1, 0, 0]])
    nodes = np.vstack([nodes, np.zeros(3)])  # a text without a known word
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.6])
    found = graph.smooth(scores, graph.neighbours(nodes, 2), alpha=0.5, rounds=3)
    np.testing.assert_array_equal(found[2:], scores[2:])
    assert scores[0] < found[0] < scores[1]


def test_a_constant_pool_stays_constant():
    """All rows of one class."""
    found = graph.smooth(np.full(20, 0.25), graph.neighbours(unit(20), 3), alpha=0.9, rounds=9)
    np.testing.assert_allclose(found, 0.25, rtol=1e-12)


def test_joined_features_have_the_mean_of_the_cosines():
    parts = [3 * unit(8, 5), unit(8, 7, seed=1)]
    joined = graph.join(parts)
    expected = (parts[0] @ parts[0].T / 9 + parts[1] @ parts[1].T) / 2
    np.testing.assert_allclose(joined @ joined.T, expected, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(joined, axis=1), 1, atol=1e-6)


def test_quantiles():
    reference = np.array([0.1, 0.2, 0.2, 0.4])
    found = graph.quantile(np.array([0.0, 0.1, 0.15, 0.2, 0.3, 0.9]), reference)
    np.testing.assert_allclose(found, [0, 0.125, 0.25, 0.5, 0.75, 1])


def blobs(rows, seed):
    """Labels, and features of two clusters, one for each class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    x = rng.normal(size=(rows, 8)) + 2 * np.outer(2 * labels - 1, np.ones(8)) / 8**0.5
    return labels, x, labels + rng.normal(0, 1.5, rows)  # a score with noise of its own


def test_smoothing_helps_where_neighbours_share_a_class():
    (y, x, scores), (new_y, new_x, own) = blobs(300, 0), blobs(300, 1)
    smoothed = graph.smooth(scores, graph.neighbours(x, 10), alpha=0.5, rounds=10)
    read = graph.read(own, graph.neighbours(x, 10, new_x), smoothed, alpha=0.5)
    assert average_precision_score(y, smoothed) > average_precision_score(y, scores) + 0.1
    assert average_precision_score(new_y, read) > average_precision_score(new_y, own) + 0.1


# The model.
SETTINGS = graph_model.Settings(
    scores=("tfidf", "encoder"),
    features=("encoder",),
    nodes="pool",
    neighbours=5,
    alpha=0.5,
    rounds=400,
    C=10.0,
)


def made_up(sizes, seed=0):
    """{split: {kind: features}} and {split: labels}."""
    features, labels = {}, {}
    for number, (split, rows) in enumerate(sizes.items()):
        y, x, _ = blobs(rows, 10 * seed + number)
        labels[split] = y
        sparse = scipy.sparse.csr_matrix(np.where(np.abs(x) > 0.5, x, 0))
        features[split] = {"tfidf": sparse, "encoder": x / np.linalg.norm(x, axis=1)[:, None]}
    return features, labels


SIZES = {"labelled": 20, "unlabelled": 60, "dev": 30, "test": 25}


def seen(features, *allowed):
    """features(split), for these splits alone."""
    return {split: features[split] for split in allowed}.__getitem__


def test_the_model_is_the_dense_reference():
    features, labels = made_up(SIZES)
    mine = {"labelled": labels["labelled"], "dev": labels["dev"]}
    model = graph_model.fit(seen(features, "labelled", "unlabelled", "dev"), mine, SETTINGS)
    found = {s: graph_model.predict(model, features[s], SETTINGS) for s in ("dev", "test")}

    pool = scipy.sparse.vstack([features[s]["tfidf"] for s in ("labelled", "unlabelled")])
    nodes = np.vstack([features[s]["encoder"] for s in ("labelled", "unlabelled")])
    ranks = {"pool": [], "dev": [], "test": []}
    for kind, of_pool in (("tfidf", pool), ("encoder", nodes)):
        head = LogisticRegression(C=10.0, class_weight="balanced", max_iter=5000)
        head.fit(features["labelled"][kind], labels["labelled"])
        of_pool = head.predict_proba(of_pool)[:, 1]
        for split in ranks:
            mine = of_pool
            if split != "pool":
                mine = head.predict_proba(features[split][kind])[:, 1]
            below = [(of_pool < s).mean() + (of_pool == s).mean() / 2 for s in mine]
            ranks[split].append(below)
    own = {split: np.mean(values, axis=0) for split, values in ranks.items()}
    spread = 0.5 * np.linalg.solve(np.eye(80) - 0.5 * dense_weights(nodes, 5), own["pool"])
    np.testing.assert_allclose(model["nodes/scores"], spread, atol=1e-6)
    expected = {
        s: (own[s] + dense_weights(nodes, 5, features[s]["encoder"]) @ spread) / 2
        for s in ("dev", "test")
    }
    slope, intercept = model["platt"]
    assert slope > 0
    for split, scores in expected.items():
        logits = slope * np.log(scores / (1 - scores)) + intercept
        np.testing.assert_allclose(found[split], 1 / (1 + np.exp(-logits)), atol=1e-5)
    np.testing.assert_allclose(found["dev"].mean(), labels["dev"].mean(), atol=0.02)  # Platt


def test_dev_and_test_rows_are_no_nodes():
    features, labels = made_up(SIZES)
    model = graph_model.fit(seen(features, "labelled", "unlabelled", "dev"), labels, SETTINGS)
    other, others = made_up(SIZES, seed=1)
    changed = graph_model.fit(
        {**features, "dev": other["dev"]}.__getitem__,
        labels | {"dev": others["dev"]},
        SETTINGS,
    )
    for name, values in model.items():
        assert (name == "platt") != np.array_equal(values, changed[name]), name
    whole = graph_model.predict(model, features["test"], SETTINGS)
    for i in (0, 24):  # a score depends on no other row
        alone = {kind: values[i : i + 1] for kind, values in features["test"].items()}
        np.testing.assert_allclose(graph_model.predict(model, alone, SETTINGS), whole[i], rtol=1e-5)


def test_the_control_reads_no_unlabelled_row():
    features, labels = made_up(SIZES)
    settings = SETTINGS._replace(nodes="labelled")
    model = graph_model.fit(seen(features, "labelled", "dev"), labels, settings)
    assert len(model["nodes/scores"]) == 20 and len(model["tfidf/reference"]) == 30


def test_no_smoothing_is_the_ensemble():
    features, labels = made_up(SIZES)
    settings = SETTINGS._replace(alpha=0.0, features=("lsa",))  # never read
    assert settings.kinds == ("tfidf", "encoder")
    model = graph_model.fit(features.__getitem__, labels, settings)
    assert not {"nodes/scores", "nodes/features"} & model.keys()
    found = graph_model.predict(model, features["test"], settings)
    ranks = [
        graph.quantile(
            1 / (1 + np.exp(-(features["test"][k] @ model[f"{k}/coef"] + model[f"{k}/intercept"]))),
            model[f"{k}/reference"],
        )
        for k in settings.scores
    ]
    order = np.argsort(np.mean(ranks, axis=0), kind="stable")
    assert (np.diff(found[order]) >= 0).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": ()},
        {"scores": ("words",)},
        {"features": ()},
        {"features": ("tfidf",)},
        {"nodes": "test"},
        {"neighbours": 0},
        {"alpha": 1.0},
        {"alpha": -0.1},
        {"rounds": -1},
        {"C": 0.0},
    ],
)
def test_settings_that_no_model_can_have(changes):
    SETTINGS.check()
    with pytest.raises(BadInput, match=f"config.graph.*{next(iter(changes))}"):
        SETTINGS._replace(**changes).check()


def texts(rows, seed=0):
    rng = np.random.default_rng(seed)
    words = ["pond", "garden", "tree", "kettle", "river", "lantern"]
    for i in range(rows):
        yield Example(str(i), " ".join(rng.choice(words, 5)), None, None, None, "made up", "CC0")


def test_lsa_features():
    fitted, new = list(texts(30)), [*texts(5, seed=1)]
    new.append(Example("x", "unheard", None, None, None, "made up", "CC0"))
    found = baselines.lsa_features(fitted, components=3)(new)
    words = TfidfVectorizer(sublinear_tf=True).fit([e.prompt for e in fitted])
    svd = TruncatedSVD(3, random_state=0).fit(words.transform([e.prompt for e in fitted]))
    expected = svd.transform(words.transform([e.prompt for e in new]))
    expected[:-1] /= np.linalg.norm(expected[:-1], axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (found[-1] == 0).all()
    assert baselines.lsa_features(fitted)(new).shape == (6, 6)  # no more than there are words
    np.testing.assert_array_equal(found, baselines.lsa_features(fitted, components=3)(new))


# The method.
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph")
    config = smoke(folder, "graph")
    return config, folder / "run", train_run.train_and_evaluate(config, folder / "run")


def test_a_finished_run_scores_texts(run):
    """As it scored test; without pickles; dependent on no other row."""
    config, workdir, report = run
    loaded = scorer.load_run(workdir)
    assert loaded.checkpoint_sha256 == report["checkpoint_sha256"]
    test = read_split(config).rows["test"]
    expected = [row["raw"] for row in read_jsonl(workdir / "predictions.jsonl")]
    np.testing.assert_allclose(loaded.score(test)["raw"], expected, atol=1e-6)
    np.testing.assert_allclose(loaded.score(test[3:4])["raw"], expected[3], atol=1e-5)
    assert report["test"]["raw"]["auprc"]["value"] > 0.9  # the answer tells the label
    (found,) = evaluate.evaluate_run(workdir, ["test"])
    for metric, value in report["test"]["raw"].items():
        assert found["scores"]["raw"][metric]["value"] == pytest.approx(value["value"], abs=1e-6)
    assert report["data"]["labels_used"] == 20 and report["data"]["rows"]["unlabelled"] == 90


def test_the_same_run_again_has_the_same_model(run, tmp_path):
    config, workdir, report = run
    again = train_run.train_and_evaluate(config, tmp_path / "run")
    assert again["checkpoint_sha256"] == report["checkpoint_sha256"]
    assert again["test"] == report["test"]
    assert (tmp_path / "run/graph.npz").read_bytes() == (workdir / "graph.npz").read_bytes()


def test_views_are_encoded_once(run, tmp_path):
    """Rows in memory each time; other weights or rows have files of their own."""
    config, views = run[0], []
    folder = tmp_path / "features"

    def encode(records):
        views.append(records)
        return np.full((len(records), 2), len(views), float)

    def features(records, made_from=("a",)):
        return scorer.stored_once(encode, folder, list(made_from), records)[0, 0]

    prepared = prepare(config, views=())
    assert [features(prepared.dev) for _ in range(3)] == [1, 1, 1]
    assert features(prepared.test) == 2 and features(prepared.dev, ("b",)) == 3
    assert features(prepared.dev) == 1
    part = prepared.dev.subset([0, 1])
    assert [features(part), features(part)] == [4, 5]
    rows = scorer.load_run(run[1]).records(prepared.texts["dev"])
    assert [features(rows), features(rows)] == [6, 7]
    assert len([*folder.iterdir()]) == 3


def test_a_run_without_its_model(run, tmp_path):
    for name in ("config.json", "report.json"):
        (tmp_path / name).write_bytes((run[1] / name).read_bytes())
    with pytest.raises(BadInput, match="has no graph.npz"):
        scorer.load_run(tmp_path)


def test_the_control_run_has_no_unlabelled_view(run, tmp_path):
    config = run[0].copy_and_resolve_references()
    config.graph.nodes = "labelled"
    report = train_run.train_and_evaluate(config, tmp_path / "run")
    assert "unlabelled" not in json.dumps(report["data"]["rows_longer_than_max_length"])
    with np.load(tmp_path / "run/graph.npz") as model:
        assert model["nodes/scores"].shape == (20,)
