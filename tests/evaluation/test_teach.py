"""Soft labels of teachers, against SciPy, scikit-learn and dense matrices called directly."""

import dataclasses
import json
import shutil
import types

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import rankdata
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from ssl_guard.commands import teach as command
from ssl_guard.data import assemble, soft_labels
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import prepare, teach
from ssl_guard.evaluation import teachers as teachers_module
from ssl_guard.evaluation.scorer import Scorer
from ssl_guard.train import run as train_run
from tests.tiny import ANSWERS, TOPICS, smoke


def platt(labels, scores):
    """Platt scaling by direct minimisation: a function of scores."""
    harmful = labels.sum()
    target = np.where(labels, (harmful + 1) / (harmful + 2), 1 / (len(labels) - harmful + 2))
    z = logit(np.clip(scores, 1e-7, 1 - 1e-7))

    def loss(ab):
        return (np.logaddexp(0, ab[0] * z + ab[1]) - target * (ab[0] * z + ab[1])).sum()

    a, b = minimize(loss, [1.0, 0.0], tol=1e-12).x
    return lambda scores: expit(a * logit(np.clip(scores, 1e-7, 1 - 1e-7)) + b)


def teachers(rows=60, dev=30, count=3):
    """Labels of dev, and scores of the pool and dev for each teacher, some of them equal."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, dev)
    own = [
        (rng.random(rows).round(1), np.clip(labels / 4 + rng.random(dev) * 0.7, 0, 1).round(1))
        for _ in range(count)
    ]
    return labels, own


def test_combined_by_rank():
    labels, scores = teachers()
    on_pool, on_dev = teach.combine("abc", scores, labels, "rank")
    expected = np.mean([(rankdata(mine) - 0.5) / 60 for mine, _ in scores], axis=0)
    np.testing.assert_allclose(on_pool, expected, atol=1e-12)
    below = [[(mine < s).mean() + (mine == s).mean() / 2 for s in dev] for mine, dev in scores]
    np.testing.assert_allclose(on_dev, np.mean(below, axis=0), atol=1e-12)
    cubed = [(mine**3, dev**3) for mine, dev in scores]  # only the order counts
    np.testing.assert_array_equal(teach.combine("abc", cubed, labels, "rank")[0], on_pool)


def test_combined_by_probability():
    labels, scores = teachers()
    on_pool, on_dev = teach.combine("abc", scores, labels, "probability")
    scale = [platt(labels, dev) for _, dev in scores]
    expected = np.mean([f(mine) for f, (mine, _) in zip(scale, scores, strict=True)], axis=0)
    np.testing.assert_allclose(on_pool, expected, atol=1e-4)
    expected = np.mean([f(dev) for f, (_, dev) in zip(scale, scores, strict=True)], axis=0)
    np.testing.assert_allclose(on_dev, expected, atol=1e-4)


def test_one_teacher_is_its_own_mean():
    labels, scores = teachers(count=1)
    on_pool, _ = teach.combine("a", scores, labels, "rank")
    np.testing.assert_allclose(on_pool, (rankdata(scores[0][0]) - 0.5) / 60, atol=1e-12)
    assert teach.agreement([scores[0][0]]) is None


def test_agreement():
    up = np.array([0.1, 0.2, 0.9])
    assert teach.agreement([up, up**2]) == pytest.approx(1)
    assert teach.agreement([up, up**2, -up]) == pytest.approx(-1 / 3)


def test_cut_offs_take_each_class_by_its_share():
    harmful = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0])  # of mean 0.5
    low, high = teach.cut_offs(harmful, 0.4)
    assert (harmful <= low).sum() == 2 == (harmful >= high).sum()
    skewed = np.linspace(0, 0.4, 1001)  # of mean 0.2
    low, high = teach.cut_offs(skewed, 0.5)
    assert (skewed <= low).sum() == 401 and (skewed >= high).sum() == 101


def test_a_share_of_one_is_the_whole_pool():
    for seed in range(20):
        harmful = np.random.default_rng(seed).random(37) ** (seed % 3 + 1)
        low, high = teach.cut_offs(harmful, 1.0)
        assert ((harmful <= low) | (harmful >= high)).all()
    equal = np.full(8, 0.3)
    low, high = teach.cut_offs(equal, 0.2)
    assert ((equal <= low) | (equal >= high)).all(), "rows that tie are used together"


def test_precision_of_each_end():
    labels = np.array([0, 0, 1, 0, 1, 1, 0])
    harmful = np.array([0.1, 0.2, 0.2, 0.5, 0.8, 0.9, 0.9])
    assert teach.precision(labels, harmful, 0.2, 0.8) == {"safe": 2 / 3, "harmful": 2 / 3}
    assert teach.precision(labels, harmful, 0.05, 0.8) == {"safe": None, "harmful": 2 / 3}


@pytest.mark.parametrize("prior", [0.001, 0.05, 0.5, 0.95])
def test_a_prior_is_bayes_rule_for_another_share(prior):
    rng = np.random.default_rng(0)
    pool, dev = rng.random(200) ** 0.3, rng.random(30)
    moved, moved_dev = teach.to_prior(pool, dev, prior)
    assert moved.mean() == pytest.approx(prior, abs=1e-9)
    # Equation 4 of Saerens et al. weighs the classes by the ratios of their priors, here r and 1.
    ratios = moved / (1 - moved) / (pool / (1 - pool))
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-9)
    weighed = ratios[0] * dev
    np.testing.assert_allclose(moved_dev, weighed / (weighed + 1 - dev), rtol=1e-9)


def test_a_prior_of_certain_scores():
    moved, _ = teach.to_prior(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0]), 0.1)
    assert np.isfinite(moved).all() and moved.mean() == pytest.approx(0.1, abs=1e-9)
    moved, _ = teach.to_prior(np.full(5, 1.0), np.array([0.5]), 0.1)
    np.testing.assert_allclose(moved, 0.1)


# Whole calls, on the tiny encoder and rows.
@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a finished run, and the scores of two noisy judges."""
    folder = tmp_path_factory.mktemp("teach")
    train_run.train_and_evaluate(smoke(folder, "graph"), folder / "graph")
    for number in (1, 2):
        rng = np.random.default_rng(number)
        judged = {f"row{i}": (i % 2 + rng.random() * 2) / 3 for i in range(160)}
        write_scores(folder / f"judge{number}.jsonl", judged)
    return folder


def write_scores(path, judged):
    path.write_text("\n".join(json.dumps({"id": i, "score": s}) for i, s in judged.items()))
    return f"scores:{path}"


def judges(folder):
    return [f"scores:{folder}/judge{number}.jsonl" for number in (1, 2)]


def config_of(folder, **changes):
    return smoke(folder, "self_training", **{"teach.features": ("lsa",)} | changes)


def stored(config, labels):
    """The soft labels as a run would open them."""
    config = config.copy_and_resolve_references()
    config.data.soft_labels = str(labels)
    return prepare.prepare(config, views=("weak",)).soft_labels


def dense_weights(nodes, k, rows=None):
    """The matrix W, [rows, nodes]."""
    cosines = (nodes if rows is None else rows) @ nodes.T
    if rows is None:
        np.fill_diagonal(cosines, -np.inf)
    for row in cosines:
        row[np.argsort(-row)[k:]] = 0
    cosines = np.clip(cosines, 0, None)
    return cosines / cosines.sum(axis=1, keepdims=True)


def test_soft_labels_are_the_dense_reference(folder, tmp_path):
    """Mean rank, smoothed with the labelled rows as nodes of their label, and Platt scaling."""
    changes = {"teach.neighbours": 4, "teach.alpha": 0.6, "teach.share": 0.5}
    config = config_of(folder, **changes)
    manifest = teach.teach(config, judges(folder), tmp_path / "soft")
    sides = prepare.read_split(config).rows
    scores = {
        side: np.array(
            [
                [json.loads(line)["score"] for line in path.read_text().splitlines()]
                for path in (folder / "judge1.jsonl", folder / "judge2.jsonl")
            ]
        )[:, [int(e.id.removeprefix("row")) for e in rows]]
        for side, rows in sides.items()
    }
    labels = {side: np.array([e.label for e in rows]) for side, rows in sides.items()}
    pool, dev = scores["unlabelled"], scores["dev"]
    on_pool = ((rankdata(pool, axis=1) - 0.5) / 90).mean(axis=0)
    on_dev = (pool[:, None] < dev[:, :, None]).mean(axis=2).mean(axis=0)

    def text(side):
        return [f"{e.prompt} {e.response}" for e in sides[side]]

    words = TfidfVectorizer(sublinear_tf=True)
    known = words.fit_transform(text("labelled") + text("unlabelled"))
    svd = TruncatedSVD(min(200, *known.shape), random_state=0).fit(known)

    def features(texts):
        found = svd.transform(words.transform(texts))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    nodes = features(text("labelled") + text("unlabelled"))
    own = np.concatenate([labels["labelled"], on_pool])
    smoothed, W = own, dense_weights(nodes, 4)
    for _ in range(10):
        smoothed = 0.4 * own + 0.6 * W @ smoothed
    read = 0.4 * on_dev + 0.6 * dense_weights(nodes, 4, features(text("dev"))) @ smoothed
    scale = platt(labels["dev"], read)
    expected = scale(smoothed[20:])
    found = stored(config, tmp_path / "soft")
    np.testing.assert_allclose(found.harmful, expected, atol=1e-4)

    low, high = np.quantile(expected, [0.5 * (1 - expected.mean()), 1 - 0.5 * expected.mean()])
    np.testing.assert_array_equal(found.weight, (expected <= low) | (expected >= high))
    results = manifest["results"]
    assert results["used"] == found.weight.sum() and 40 < results["used"] < 50
    assert results["harmful_share"] == pytest.approx(expected.mean(), abs=1e-4)
    assert results["dev"]["auprc"] == pytest.approx(
        average_precision_score(labels["dev"], scale(read)), abs=1e-9
    )
    for row, name, own_dev in zip(results["teachers"], judges(folder), dev, strict=True):
        assert row["name"] == name
        assert row["dev"]["auprc"] == pytest.approx(average_precision_score(labels["dev"], own_dev))


def test_without_a_graph_they_are_the_scaled_mean(folder, tmp_path):
    config = config_of(folder, **{"teach.features": ()})
    teach.teach(config, judges(folder), tmp_path / "none")
    teach.teach(config_of(folder, **{"teach.alpha": 0.0}), judges(folder), tmp_path / "zero")
    found = [stored(config, tmp_path / name).harmful for name in ("none", "zero")]
    np.testing.assert_array_equal(found[0], found[1])


def test_a_pool_of_other_traffic_gets_its_share(folder, tmp_path):
    changes = {"teach.features": (), "teach.share": 0.5}
    own = teach.teach(config_of(folder, **changes), judges(folder), tmp_path / "own")
    config = config_of(folder, **changes, **{"teach.prior": 0.05})
    manifest = teach.teach(config, judges(folder), tmp_path / "soft")
    moved, before = (stored(config, tmp_path / name) for name in ("soft", "own"))
    assert moved.harmful.mean() == pytest.approx(0.05, abs=1e-6)
    np.testing.assert_array_equal(np.argsort(moved.harmful), np.argsort(before.harmful))
    auprc = [one["results"]["dev"]["auprc"] for one in (manifest, own)]
    assert auprc[0] == pytest.approx(auprc[1], abs=1e-9)
    # A twentieth of the used rows are the most harmful ones, where it was nearly a half.
    harmful = [
        int(found.weight[found.harmful > np.median(found.harmful)].sum())
        for found in (moved, before)
    ]
    assert harmful[0] <= 3 and harmful[1] > 15


def test_a_run_teaches_and_is_not_asked_twice(folder, tmp_path, monkeypatch, capsys):
    config, run = config_of(folder, **{"teach.features": ("lsa", "encoder")}), str(folder / "graph")
    names, soft = [run, judges(folder)[0]], tmp_path / "soft"
    manifest = teach.teach(config, names, soft)
    assert [row["name"] for row in manifest["results"]["teachers"]] == names
    assert manifest["results"]["teachers"][0]["dev"]["auprc"] > 0.9
    assert -1 <= manifest["results"]["agreement"] <= 1
    files = {path: path.read_bytes() for path in soft.iterdir()}
    load_run = teach.scorer.load_run
    monkeypatch.setattr(teach.scorer, "load_run", None)
    assert teach.teach(config, names, soft) == manifest
    for flag, value in {"CONFIG": config, "TEACHERS": names, "TO": str(soft)}.items():
        holder = types.SimpleNamespace(value=value)
        monkeypatch.setattr(command, flag, holder, raising=False)
    monkeypatch.setattr("ssl_guard.runtime.compilation.configure", lambda **how: None)
    command.main([])
    printed = capsys.readouterr().out
    assert f"| {run} " in printed and "| soft labels " in printed
    assert f"{soft}: 90 soft labels, " in printed
    assert {path: path.read_bytes() for path in soft.iterdir()} == files
    monkeypatch.setattr(teach.scorer, "load_run", load_run)
    (soft / soft_labels.RECORDS).write_bytes(b"damaged")
    assert teach.teach(config, names, soft) == manifest
    assert {path: path.read_bytes() for path in soft.iterdir()} == files


@pytest.mark.parametrize(
    "changes",
    [
        {"teach.alpha": 0.3},
        {"teach.share": 0.7},
        {"model.pooling": "cls"},  # of the graph's features
    ],
)
def test_other_settings_make_other_soft_labels(folder, tmp_path, changes):
    names, soft = judges(folder), tmp_path / "soft"
    kinds = {"teach.features": ("encoder",)}
    first = teach.teach(config_of(folder, **kinds), names, soft)
    second = teach.teach(config_of(folder, **kinds | changes), names, soft)
    assert first["sha256"] != second["sha256"] and soft_labels.read_manifest(soft) == second
    assert teach.teach(config_of(folder, **kinds), names, soft) == first


def test_a_changed_file_of_scores_is_another_teacher(folder, tmp_path):
    name = write_scores(tmp_path / "judge.jsonl", {f"row{i}": i % 7 / 7 for i in range(0)})
    shutil.copy(folder / "judge1.jsonl", tmp_path / "judge.jsonl")
    config, soft = config_of(folder), tmp_path / "soft"
    first = teach.teach(config, [name], soft)
    assert first["results"]["agreement"] is None
    shutil.copy(folder / "judge2.jsonl", tmp_path / "judge.jsonl")
    assert teach.teach(config, [name], soft)["sha256"] != first["sha256"]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"row3": None}, "no score in [0, 1] for 1 of 110 rows of the pool and dev, such as row3"),
        ({"row3": float("nan")}, "such as row3: score them"),
        ({"row3": 7}, "such as row3: score them"),
        ({f"row{i}": 0.5 for i in range(160)}, "the same score: leave it out"),
    ],
)
def test_scores_that_do_not_teach(folder, tmp_path, changes, words):
    """Of rows of the pool or dev; the others need no score."""
    lines = (folder / "judge1.jsonl").read_text().splitlines()
    judged = {row["id"]: row["score"] for row in map(json.loads, lines)} | changes
    rows = prepare.read_split(config_of(folder)).rows
    used = {example.id for example in rows["unlabelled"] + rows["dev"]}
    if "row3" not in used:
        judged, other = judged | {"row3": 0.5}, min(used)
        judged[other], words = changes.get("row3", 0.5), words.replace("row3", other)
    judged = {i: s for i, s in judged.items() if s is not None and i in used}
    name = write_scores(tmp_path / "judge.jsonl", judged)
    with pytest.raises(BadInput) as error:
        teach.teach(config_of(folder), [name], tmp_path / "soft")
    assert words in str(error.value) and not (tmp_path / "soft").exists()


@pytest.mark.parametrize(
    "line, words",
    [
        ('{"id": "row1", "sc', "line 2 of"),
        ('{"id": "row1"}', "line 2 of"),
        ('{"id": "row1", "score": "high"}', "line 2 of"),
        ("[1]", "line 2 of"),
        ('"row1"', "line 2 of"),
        ("\xff", "line 2 of"),
        ('{"id": "row0", "score": 0.5}', "line 2 of .* is a second score of row0"),
    ],
)
def test_broken_lines_of_scores(folder, tmp_path, line, words):
    path = tmp_path / "judge.jsonl"
    path.write_bytes(b'{"id": "row0", "score": 0.5}\n' + line.encode("latin-1"))
    with pytest.raises(BadInput, match=words):
        teachers_module.open_teacher(f"scores:{path}", None, 1.0)


def test_numbers_as_ids_and_a_last_line_without_an_end(tmp_path):
    (tmp_path / "judge.jsonl").write_bytes(b'{"id": 1, "score": 0.5}\r\n\n{"id": 2, "score": 1}')
    teacher = teachers_module.open_teacher(f"scores:{tmp_path}/judge.jsonl", None, 1.0)
    rows = [types.SimpleNamespace(id="2"), types.SimpleNamespace(id="1")]
    np.testing.assert_array_equal(teacher.score(rows)[0], [1, 0.5])


def test_teachers_that_are_refused(folder, tmp_path):
    config = config_of(folder)

    def refused(words, name, config=config, to=tmp_path / "soft"):
        with pytest.raises(BadInput, match=words):
            teach.teach(config, [name] if name else [], to)
        assert not (tmp_path / "soft").exists()

    refused("no teacher is given", "")
    refused("cannot be read: No such file", f"scores:{tmp_path}/nothing.jsonl")
    refused("there is no run", str(tmp_path / "nothing"))
    refused("there is no folder", f"hf:{tmp_path}/nothing")
    (tmp_path / "file").write_text("")
    refused("--to: .* cannot be a folder to write to", judges(folder)[0], to=tmp_path / "file")
    with_labels = config_of(folder, **{"data.soft_labels": str(tmp_path)})
    refused("config.data.soft_labels is for the student", judges(folder)[0], with_labels)
    other = config_of(folder, seed=1)
    refused("was trained on another corpus or split", str(folder / "graph"), other)
    inverted = {f"row{i}": (1 - i % 2) / 2 + i / 1000 for i in range(160)}
    without = config_of(folder, **{"teach.alpha": 0.0})
    scaled = config_of(folder, **{"teach.combine": "probability"})
    name = write_scores(tmp_path / "inverted.jsonl", inverted)
    refused("worse than guessing", name, without)
    refused(f"the teacher {name} .* worse than guessing", name, scaled)


@pytest.mark.parametrize("key", ["train.oracle", "data.all_labels"])
def test_a_teacher_of_hidden_labels_is_refused(folder, tmp_path, key):
    shutil.copytree(folder / "graph", tmp_path / "run")
    values = json.loads((tmp_path / "run/config.json").read_text()) | {key: True}
    (tmp_path / "run/config.json").write_text(json.dumps(values))
    with pytest.raises(BadInput, match="was trained on hidden labels of the pool"):
        teach.teach(config_of(folder), [str(tmp_path / "run")], tmp_path / "soft")


def test_a_classifier_of_hugging_face(folder, tmp_path, monkeypatch):
    """As --scorers opens it."""
    opened = []

    def open_folder(name):
        opened.append(name)
        return Scorer("toxic", "f", lambda rows: (np.arange(len(rows)) / len(rows), None))

    monkeypatch.setattr(teachers_module.external, "checkpoint_scorer", open_folder)
    manifest = teach.teach(config_of(folder), [judges(folder)[0], "hf:x/toxic"], tmp_path / "soft")
    assert opened == ["x/toxic"] and ["toxic", "f"] in manifest["made_from"]["teachers"]


def write_states(path, ids, states):
    np.savez(path, ids=np.array(ids), states=states)
    return f"states:{path}"


def noisy_states(count=160):
    """Four columns: the label with noise, two of noise, a constant. Scales differ."""
    rng = np.random.default_rng(3)
    label = np.arange(count) % 2
    columns = [label + rng.normal(size=count), *rng.normal(size=(2, count)), np.ones(count)]
    return (np.array(columns) * [[1], [0.1], [30], [5]]).T.astype(np.float16)


def test_states_teach_as_scikit_learn_does(folder, tmp_path):
    """Rows in another order, some of them of no side, and a column that does not vary."""
    order, states = np.random.default_rng(0).permutation(160), noisy_states()
    name = write_states(tmp_path / "a.npz", [f"row{i}" for i in order], states[order])
    config = config_of(folder, **{"teach.C": 0.3, "teach.alpha": 0.0})
    manifest = teach.teach(config, [name], tmp_path / "soft")
    sides = prepare.read_split(config).rows

    def of(*names):
        return states[[int(e.id[3:]) for side in names for e in sides[side]]].astype(np.float64)

    scaler = StandardScaler().fit(of("labelled", "unlabelled"))
    head = LogisticRegression(C=0.3, class_weight="balanced", max_iter=5000)
    head.fit(scaler.transform(of("labelled")), [e.label for e in sides["labelled"]])
    expected = head.predict_proba(scaler.transform(of("dev")))[:, 1]
    labels = [e.label for e in sides["dev"]]
    found = manifest["results"]["teachers"][0]
    assert found["name"] == name
    assert found["dev"]["auprc"] == pytest.approx(average_precision_score(labels, expected))
    assert found["dev"]["auprc"] < 1
    prepared = prepare.prepare(config, views=("weak",))
    teacher = teachers_module.open_teacher(name, prepared, 0.3)
    np.testing.assert_allclose(teacher.score(sides["dev"])[0], expected, atol=1e-4)
    other = teach.teach(config_of(folder, **{"teach.C": 1.0, "teach.alpha": 0.0}), [name], tmp_path)
    assert other["made_from"]["settings"] != manifest["made_from"]["settings"]


IDS = [f"row{i}" for i in range(160)]


@pytest.mark.parametrize(
    "ids, states, words",
    [
        (IDS[:100], noisy_states()[:100], "a.npz has no states of .* rows of the labelled rows"),
        (IDS, noisy_states()[:100], r"must have ids \[rows\] and states .* not \(160,\)"),
        (IDS, noisy_states()[:, 0], r"must have ids .* and \(160,\)"),
        (["row0", *IDS[:-1]], noisy_states(), "several states of one id"),
        (IDS, noisy_states() * np.nan, "must be finite floats"),
        (IDS, np.array([["harmful"]] * 160), "must be finite floats"),
        (IDS, np.array([[None]] * 160), "must be an .npz file"),
    ],
)
def test_states_that_do_not_teach(folder, tmp_path, ids, states, words):
    name = write_states(tmp_path / "a.npz", ids, states)
    with pytest.raises(BadInput, match=words):
        teach.teach(config_of(folder), [name], tmp_path / "soft")


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04 cut off", {"ids": [1]}, 3.5])
def test_files_that_hold_no_states(folder, tmp_path, content):
    path = tmp_path / "a.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    elif content:
        with path.open("wb") as file:
            np.save(file, content)
    with pytest.raises(BadInput, match="cannot be read: No such|must be an .npz file"):
        teach.teach(config_of(folder), [f"states:{path}"], tmp_path / "soft")


def test_several_processes_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(teach.jax, "process_count", lambda: 2)
    with pytest.raises(BadInput, match="made by one process"):
        teach.teach(config_of(folder), judges(folder), tmp_path / "soft")


@pytest.mark.parametrize("hide", [lambda label: 1 - label, lambda label: None])
def test_hidden_labels_change_nothing(folder, tmp_path, monkeypatch, hide):
    """The same split of rows whose hidden labels are all false, or that have none at all."""
    names = [str(folder / "graph"), judges(folder)[0]]
    teach.teach(config_of(folder), names, tmp_path / "true")
    read_split, hidden = assemble.read_split, []

    def without(*specs):
        source = read_split(*specs)
        pool = [dataclasses.replace(e, label=hide(e.label)) for e in source.rows["unlabelled"]]
        hidden.append(len(pool))
        return source._replace(rows=source.rows | {"unlabelled": pool})

    monkeypatch.setattr(prepare.assemble, "read_split", without)
    config = config_of(folder, **{"data.dir": str(tmp_path / "data")})  # shards of these labels
    read_config = teach.scorer.read_config

    def moved(workdir):
        found = read_config(workdir).unlock()
        found.data.dir = config.data.dir
        return found

    monkeypatch.setattr(teach.scorer, "read_config", moved)
    teach.teach(config, names, tmp_path / "hidden")
    records = [(tmp_path / name / soft_labels.RECORDS).read_bytes() for name in ("true", "hidden")]
    assert records[0] == records[1] and hidden == [90, 90]


def test_packed_rows_of_two_tasks(folder, tmp_path):
    rows = [
        {"id": f"prompt{i}", "prompt": f"{TOPICS[i % 32]} {i}? {ANSWERS[i % 2]}", "label": i % 2}
        for i in range(60)
    ]
    lines = "\n".join(json.dumps(row) for row in rows)
    (tmp_path / "prompts.jsonl").write_text(lines + "\n")
    changes = {
        "data.prompt_corpus": str(tmp_path / "prompts.jsonl"),
        "data.packing": True,
        "teach.features": ("lsa", "encoder"),
    }
    judged = {f"row{i}": (i % 2 + i / 160) / 2 for i in range(160)}
    judged |= {f"prompt{i}": (i % 2 + i / 160) / 2 for i in range(60)}
    name = write_scores(tmp_path / "judge.jsonl", judged)
    config = config_of(folder, **changes)
    teach.teach(config, [name], tmp_path / "soft")
    found = stored(config, tmp_path / "soft")
    ids = [e.id for e in prepare.read_split(config).rows["unlabelled"]]
    assert len(found.harmful) == len(ids) == 150
    odd = np.array([int(i.strip("rowpmt")) % 2 for i in ids])
    assert average_precision_score(odd, found.harmful) > 0.9
