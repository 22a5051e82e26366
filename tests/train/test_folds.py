"""Runs that choose by cross-validation, against scikit-learn and the folds' own records."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline, make_union

from ssl_guard.config import check
from ssl_guard.data import assemble, folds, soft_labels
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import prepare, scorer, teach
from ssl_guard.report import build
from ssl_guard.runtime import preemption
from ssl_guard.runtime.files import read_jsonl, write_jsonl
from ssl_guard.train import folds as train_folds
from ssl_guard.train import run as train_run
from ssl_guard.train import self_training
from tests.evaluation.test_teach import platt
from tests.tiny import final_checkpoint, signal_at, smoke, timeless

pytestmark = pytest.mark.usefixtures("shared_programs")
FOLDS = 2


def config_of(folder, name="supervised", **changes):
    return smoke(folder, name, **{"eval.folds": FOLDS} | changes)


def of_folds(workdir, file):
    return [read_jsonl(workdir / f"folds/{fold}/{file}") for fold in range(2)]


def held(workdir):
    """Ids, labels and scores at the last step of the rows that each fold left out."""
    runs = sorted((workdir / "folds").iterdir())
    rows = [row for run in runs for row in read_jsonl(run / "predictions.jsonl")]
    scores = [timeless(run)[-1]["dev/raw/scores"] for run in runs]
    return [row["id"] for row in rows], np.array([row["label"] for row in rows]), sum(scores, [])


def changed(monkeypatch, **sides):
    """Has the split's sides read as sides[name](rows)."""
    read_split = assemble.read_split

    def read(*specs):
        source = read_split(*specs)
        new = {name: change(source.rows[name]) for name, change in sides.items()}
        return source._replace(rows=source.rows | new)

    monkeypatch.setattr(prepare.assemble, "read_split", read)


def other_labels(rows):
    return [dataclasses.replace(example, label=1 - example.label) for example in rows]


@pytest.fixture(scope="module")
def whole(folder):
    """A finished run, compiled by its first fold."""
    train_run.train_and_evaluate(config_of(folder), folder / "whole")
    return folder / "whole"


def test_the_best_mean_step_and_the_scores_of_all_folds_choose(whole):
    report, rows = train_run.finished(whole), of_folds(whole, "metrics.jsonl")
    held = of_folds(whole, "predictions.jsonl")
    ids = [row["id"] for part in held for row in part]
    assert len(ids) == len(set(ids)) == 20
    labels = np.array([row["label"] for part in held for row in part])
    at = [{row["step"]: row for row in part if "dev/raw/scores" in row} for part in rows]
    parts = [np.array([row["label"] for row in part]) for part in held]
    mean = {
        step: np.mean([
            average_precision_score(mine, part[step]["dev/raw/scores"])
            for mine, part in zip(parts, at, strict=True)
        ])
        for step in (2, 4)
    }  # fmt: skip
    best = max(mean, key=lambda step: (round(mean[step], 12), -step))
    assert report["selected_step"] == report["steps"] == best
    scores = np.concatenate([part[best]["dev/raw/scores"] for part in at])
    dev = report["dev"]["raw"]
    assert dev["auprc"] == pytest.approx(average_precision_score(labels, scores))
    chosen = scores >= dev["threshold"]
    assert dev["f1"] == pytest.approx(2 * (chosen & (labels == 1)).sum() / (chosen.sum() + 10))
    assert timeless(whole)[-1]["step"] == best
    assert report["data"]["labels_choosing"] == {"labelled": 20, "dev": 0}
    assert report["data"]["labels_used"] == 20 and "dev" not in report["data"]["rows"]


def test_the_steps_are_counted_in_the_schedule_of_a_run_without_folds(whole, folder):
    """The last run is the run without folds up to the chosen step."""
    train_run.train_and_evaluate(smoke(folder, "supervised"), folder / "plain")
    report = train_run.finished(folder / "plain")
    assert report["data"]["labels_choosing"] == {"labelled": 0, "dev": 20}
    for mine, plain in zip(timeless(whole), timeless(folder / "plain"), strict=False):
        assert mine["loss/total"] == plain["loss/total"] and mine["optim/lr"] == plain["optim/lr"]


def test_the_earliest_of_equal_steps_wins(tmp_path):
    for fold, values in enumerate(([0.5, 0.9, 0.8], [0.7, 0.7, 0.8])):
        rows = [
            {"step": step, "dev/raw/auprc": value, "dev/raw/scores": [0.2, step / 10]}
            for step, value in zip((2, 4, 6), values, strict=True)
        ]
        (tmp_path / str(fold)).mkdir()
        for name, lines in (
            ("metrics", [{"step": 1}, *rows]),
            ("predictions", [{"label": 0}, {"label": 1}]),
        ):
            write_jsonl(tmp_path / str(fold) / f"{name}.jsonl", lines)
    chosen = train_folds.choose([tmp_path / "0", tmp_path / "1"], "auprc")
    assert chosen.step == 4 and chosen.labels.tolist() == [0, 1, 0, 1]
    assert chosen.scores["raw"].tolist() == [0.2, 0.4, 0.2, 0.4]


def test_a_fold_has_the_other_rows_and_its_own_as_dev_and_test(whole, folder):
    rows = [row["id"] for part in of_folds(whole, "predictions.jsonl") for row in part]
    plan = train_folds.plan(config_of(folder), folder / "x")
    assert [path for _, path in plan] == [folder / "x/folds/0", folder / "x/folds/1"]
    for (config, _), left in zip(plan, (rows[:10], rows[10:]), strict=True):
        one = prepare.prepare(config, views=())
        texts = {side: [e.id for e in one.texts[side]] for side in ("labelled", "dev", "test")}
        assert texts["dev"] == texts["test"] == left
        assert sorted(texts["labelled"]) == sorted(set(rows) - set(left))
        assert len(one.labelled) == len(one.dev) == len(one.test) == 10


def test_dev_rows_are_not_read(whole, folder, monkeypatch):
    changed(monkeypatch, dev=lambda rows: [None])
    train_run.train_and_evaluate(config_of(folder), folder / "without")
    pair = [train_run.finished(workdir) for workdir in (folder / "without", whole)]
    for key in ("dev", "test", "checkpoint_sha256", "selected_step"):
        assert pair[0][key] == pair[1][key]


def test_a_fold_does_not_learn_the_labels_that_it_leaves_out(whole, folder, monkeypatch, tmp_path):
    left = set(held(whole)[0][: 20 // FOLDS])
    number = folds.assign(prepare.read_split(config_of(folder)).rows["labelled"], FOLDS, 0)
    monkeypatch.setattr(prepare.folds, "assign", lambda *_: number)
    changed(
        monkeypatch,
        labelled=lambda rows: [other_labels([e])[0] if e.id in left else e for e in rows],
    )
    changes = {"data.dir": str(tmp_path / "data")}
    train_run.train_and_evaluate(config_of(folder, **changes), tmp_path / "run")
    for fold, same in enumerate((True, False)):
        pair = [timeless(w / "folds" / str(fold))[-1] for w in (tmp_path / "run", whole)]
        assert (pair[0]["dev/raw/scores"] == pair[1]["dev/raw/scores"]) is same


def test_folds_share_the_compiled_step(folder, tmp_path):
    """All folds and the last run add no program to those of the first fold."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "programs"))
    jax.experimental.compilation_cache.compilation_cache.reset_cache()
    programs, config = [], config_of(folder, **{"data.labelled": 22, "eval.folds": 2})
    plan = train_folds.plan(config, tmp_path / "run")
    try:
        for own, workdir in plan:
            train_run.train_and_evaluate(own, workdir)
            names = {path.name for path in (tmp_path / "programs").glob("jit_train_step*-cache")}
            programs.append(names)
        train_run.train_and_evaluate(config, tmp_path / "run")
        names = {path.name for path in (tmp_path / "programs").glob("jit_train_step*-cache")}
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.experimental.compilation_cache.compilation_cache.reset_cache()
    assert programs[0] and programs[0] == programs[1] == names


@pytest.mark.parametrize("stage", ["folds/1", "last"])
def test_a_stopped_run_resumes(whole, folder, monkeypatch, stage):
    workdir = folder / f"stopped-{stage[-1]}"
    shutil.copytree(whole / "folds/0", workdir / "folds/0")
    if stage == "last":
        shutil.copytree(whole / "folds/1", workdir / "folds/1")

    signal_at(monkeypatch, 1)
    with pytest.raises(preemption.Preempted):
        train_run.train_and_evaluate(config_of(folder), workdir)
    monkeypatch.undo()
    assert not (workdir / "report.json").exists()
    report = train_run.train_and_evaluate(config_of(folder), workdir)
    assert report["test"] == train_run.finished(whole)["test"]
    for mine, theirs in zip(final_checkpoint(workdir), final_checkpoint(whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_logistic_regression_is_that_of_scikit_learn(folder, monkeypatch):
    grid = (100.0, 0.01, 1.0)
    config = config_of(folder, "tfidf_logistic", **{"tfidf_logistic.C": grid})
    report = train_run.train_and_evaluate(config, folder / "tfidf")
    rows = prepare.read_split(config).rows["labelled"]
    labels, texts = np.array([e.label for e in rows]), [f"{e.prompt}\n{e.response}" for e in rows]
    number = folds.assign(rows, FOLDS, 0)

    def model(C):
        words = make_union(
            TfidfVectorizer(ngram_range=(1, 2)),
            TfidfVectorizer(ngram_range=(3, 4), analyzer="char"),
        )
        return make_pipeline(words, LogisticRegression(C=C, class_weight="balanced", max_iter=5000))

    ids, _, _ = held(folder / "tfidf")
    place = [[e.id for e in rows].index(name) for name in ids]
    for step, C in enumerate(sorted(grid)):
        split = PredefinedSplit(number)
        expected = cross_val_predict(model(C), texts, labels, cv=split, method="predict_proba")
        found = [timeless(folder / "tfidf/folds" / str(k))[step] for k in range(FOLDS)]
        scores = np.concatenate([row["dev/raw/scores"] for row in found])
        # The vocabulary of a fold is that of all its training rows.
        np.testing.assert_allclose(scores, expected[place, 1], atol=1e-9)
    assert report["dev"]["raw"]["C"] in grid

    choose = train_folds.choose
    monkeypatch.setattr(
        train_folds, "choose", lambda *arguments: choose(*arguments)._replace(step=2)
    )
    report = train_run.train_and_evaluate(config, folder / "tfidf-2")
    assert report["dev"]["raw"]["C"] == 100
    test = [f"{e.prompt}\n{e.response}" for e in prepare.read_split(config).rows["test"]]
    expected = model(100).fit(texts, labels).predict_proba(test)[:, 1]
    found = [row["raw"] for row in read_jsonl(folder / "tfidf-2/predictions.jsonl")]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_graph_is_calibrated_on_the_scores_of_all_folds(folder):
    report = train_run.train_and_evaluate(config_of(folder, "graph"), folder / "graph")
    _, labels, scores = held(folder / "graph")
    expected = platt(labels, np.array(scores))
    found = np.load(folder / "graph/graph.npz")["platt"]
    np.testing.assert_allclose(expit(found[1]), expected(0.5), atol=1e-4)
    best = max(
        f1_score(labels, expected(np.array(scores)) >= t) for t in expected(np.array(scores))
    )
    assert report["dev"]["raw"]["f1"] == pytest.approx(best)


@pytest.fixture(scope="module")
def taught(folder):
    """Teachers and a student, all of them with folds."""
    config = config_of(folder, "self_training", **{"teach.features": ("lsa",)})
    self_training.self_train(config, folder / "taught")
    return folder / "taught"


def test_a_fold_learns_soft_labels_of_its_own_teachers(taught, folder):
    config = config_of(folder, "self_training", **{"teach.features": ("lsa",)})
    manifests = [
        soft_labels.read_manifest(taught / "soft_labels-1" / name)
        for name in ("fold-0", "fold-1", "")
    ]
    assert [m["made_from"]["folds"] for m in manifests] == [[2, 0], [2, 1], [2, -1]]
    assert len({m["sha256"] for m in manifests}) == 3
    for fold, manifest in enumerate(manifests[:2]):
        used = [sha256 for _, sha256 in manifest["made_from"]["teachers"]]
        own = [taught / f"{name}/folds/{fold}" for name in ("supervised", "ensemble")]
        assert used == [train_run.finished(run)["checkpoint_sha256"] for run in own]
    names = [str(taught / name) for name in ("supervised", "ensemble")]
    kept = {path: path.read_bytes() for path in (taught / "soft_labels-1").rglob("*.tfrecord")}
    assert len(kept) == 3
    shutil.rmtree(taught / "soft_labels-1/fold-1")  # is made again, and is the same
    assert teach.teach(config, names, taught / "soft_labels-1") == manifests[2]
    assert {path: path.read_bytes() for path in kept} == kept
    for fold in range(2):
        start = json.loads((taught / f"student-1/folds/{fold}/provenance.json").read_text())
        assert start["starts"][-1]["shards_sha256"]["soft_labels"] == manifests[fold]["sha256"]


def test_quality_is_that_of_scores_out_of_fold(taught):
    manifest = soft_labels.read_manifest(taught / "soft_labels-1")
    scores, labels = [], []
    for fold in range(2):
        run = scorer.load_run(taught / f"ensemble/folds/{fold}")
        held = prepare.prepare(run.config, views=("weak",)).texts["dev"]
        scores += run.score(held)["raw"].tolist()
        labels += [example.label for example in held]
    found = manifest["results"]["teachers"][1]["dev"]
    assert found["auprc"] == pytest.approx(average_precision_score(labels, scores))
    assert found["brier"] == pytest.approx(np.mean((np.array(scores) - labels) ** 2))


def test_teachers_and_soft_labels_of_other_folds_are_refused(taught, folder, whole):
    plain = smoke(folder, "graph")
    train_run.train_and_evaluate(plain, folder / "graph_of_dev")
    config = config_of(folder, "self_training", **{"teach.features": ()})
    with pytest.raises(BadInput, match="has config.eval.folds = 0 and not 2: train it with"):
        teach.teach(config, [str(folder / "graph_of_dev")], folder / "refused")
    other = smoke(folder, "self_training", **{"teach.features": ()})
    teach.teach(other, [str(folder / "graph_of_dev")], folder / "of_dev")
    shutil.copytree(folder / "of_dev", folder / "of_dev/fold-0")
    config.data.soft_labels = str(folder / "of_dev")
    with pytest.raises(BadInput, match="of another corpus or split"):
        train_run.train_and_evaluate(config, folder / "refused")
    assert not (folder / "refused").exists()


def test_the_report_names_the_labels_that_chose(taught, whole, folder, tmp_path):
    table = build.write(tmp_path / "report", [str(whole)], against="supervised", published=None)
    assert "step and threshold chosen on 20 labelled rows in folds;" in table


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("supervised", {"eval.folds": 1}, "must be 0 .* or at least 2"),
        ("supervised", {"eval.folds": -1}, "eval.folds"),
        ("supervised", {"eval.folds": 0, "eval.fold": 0}, "leave it at -1"),
        ("supervised", {"eval.folds": 2, "eval.fold": 2}, "leave it at -1"),
        ("supervised", {"eval.folds": 2, "eval.stride": 8}, "does not support config.eval.stride"),
        ("uda", {"eval.folds": 2, "monitor.baseline_run": "x"}, "monitor.baseline_run = 'x'"),
        ("mlm", {"eval.folds": 2}, "no labels to cross-validate"),
        ("graph", {"eval.folds": 2, "graph.nodes": "labelled"}, "takes its quantiles from dev"),
    ],
)
def test_settings_that_are_refused(folder, name, changes, words):
    with pytest.raises(BadInput, match=words):
        check(smoke(folder, name, **changes))


def test_labels_that_do_not_suffice_are_refused_before_anything_is_written(folder):
    for changes, words in (
        ({"eval.folds": 11}, "11 folds need as many labelled rows of each class"),
        ({"train.labelled_batch": 16}, "is larger than the 10 labelled rows"),
    ):
        with pytest.raises(BadInput, match=words):
            train_run.train_and_evaluate(config_of(folder, **changes), folder / "few")
        assert not (folder / "few").exists()
