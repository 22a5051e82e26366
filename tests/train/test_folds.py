"""Runs that choose by cross-validation, against scikit-learn and the folds' own records."""

import dataclasses
import json
import shutil
import signal

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from ssl_guard import prepare
from ssl_guard.config import check
from ssl_guard.data import assemble, soft_labels
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import baselines, scorer, teach
from ssl_guard.report import build
from ssl_guard.runtime import preemption
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.train import folds, self_training
from ssl_guard.train import run as train_run
from tests.tiny import final_checkpoint, smoke, timeless

pytestmark = pytest.mark.usefixtures("shared_programs")
FOLDS = {"eval.folds": 2}


def config_of(folder, name="supervised", **changes):
    return smoke(folder, name, **FOLDS | changes)


def of_folds(workdir, file):
    return [read_jsonl(workdir / f"folds/{fold}/{file}") for fold in range(2)]


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
            text = "\n".join(map(json.dumps, lines))
            (tmp_path / str(fold) / f"{name}.jsonl").write_text(text)
    chosen = folds.choose([tmp_path / "0", tmp_path / "1"], "auprc")
    assert chosen.step == 4 and chosen.labels.tolist() == [0, 1, 0, 1]
    assert chosen.scores["raw"].tolist() == [0.2, 0.4, 0.2, 0.4]


def test_dev_rows_and_labels_left_out_are_not_read(whole, folder, tmp_path, monkeypatch):
    """Dev labels turned around change nothing; a fold's weights do not depend on its labels."""
    read_split = assemble.read_split
    held = {row["id"] for row in read_jsonl(whole / "folds/0/predictions.jsonl")}

    def turned(sides):
        def reading(*specs):
            source = read_split(*specs)
            rows = {
                side: [
                    dataclasses.replace(e, label=1 - e.label)
                    if side in sides or side == "labelled" and "held" in sides and e.id in held
                    else e
                    for e in examples
                ]
                for side, examples in source.rows.items()
            }
            return source._replace(rows=rows)

        return reading

    config = config_of(folder)
    monkeypatch.setattr(prepare.assemble, "read_split", turned({"dev"}))
    report = train_run.train_and_evaluate(config, tmp_path / "dev")
    assert report["test"] == train_run.finished(whole)["test"]
    plan = folds.plan(config, tmp_path)
    assert [path for _, path in plan] == [tmp_path / "folds/0", tmp_path / "folds/1"]
    one = prepare.prepare(plan[0][0], views=())
    assert {e.id for e in one.texts["dev"]} == {e.id for e in one.texts["test"]} == held
    assert held.isdisjoint(e.id for e in one.texts["labelled"]) and len(one.labelled) == 10


def test_folds_share_the_compiled_step(folder, tmp_path):
    """All folds and the last run add no program to those of the first fold."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "programs"))
    jax.experimental.compilation_cache.compilation_cache.reset_cache()
    programs, config = [], config_of(folder, **{"data.labelled": 22, "eval.folds": 2})
    plan = folds.plan(config, tmp_path / "run")
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
    workdir, check_ = folder / f"stopped-{stage[-1]}", preemption.check
    shutil.copytree(whole / "folds/0", workdir / "folds/0")
    if stage == "last":
        shutil.copytree(whole / "folds/1", workdir / "folds/1")

    def signalled(step=None):
        if step == 1:
            monkeypatch.setattr(preemption, "_asked", signal.SIGTERM)
        check_(step)

    monkeypatch.setattr(preemption, "check", signalled)
    with pytest.raises(preemption.Preempted):
        train_run.train_and_evaluate(config_of(folder), workdir)
    monkeypatch.undo()
    assert not (workdir / "report.json").exists()
    report = train_run.train_and_evaluate(config_of(folder), workdir)
    assert report["test"] == train_run.finished(whole)["test"]
    for mine, theirs in zip(final_checkpoint(workdir), final_checkpoint(whole), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_penalty_of_a_logistic_regression_is_chosen(folder):
    config = config_of(folder, "tfidf_logistic")
    report = train_run.train_and_evaluate(config, folder / "tfidf")
    grid, pairs = sorted(config.tfidf_logistic.C), []
    for own, _ in folds.plan(config, folder / "tfidf"):
        one = prepare.prepare(own, views=())
        features = baselines.text_features(one.texts["labelled"])
        known, held = features(one.texts["labelled"]), features(one.texts["dev"])
        labels = [[e.label for e in one.texts[side]] for side in ("labelled", "dev")]
        pairs.append((known, held, *labels))

    def scores(C):
        return [
            LogisticRegression(C=C, class_weight="balanced", max_iter=5000)
            .fit(known, labels)
            .predict_proba(held)[:, 1]
            for known, held, labels, _ in pairs
        ]

    means = [
        np.mean([average_precision_score(pair[3], s) for pair, s in zip(pairs, scores(C))])  # noqa: B905
        for C in grid
    ]
    assert report["dev"]["raw"]["C"] == grid[int(np.argmax(np.round(means, 12)))]
    truth = np.concatenate([pair[3] for pair in pairs])
    expected = average_precision_score(truth, np.concatenate(scores(report["dev"]["raw"]["C"])))
    assert report["dev"]["raw"]["auprc"] == pytest.approx(expected)
    run = scorer.load_run(folder / "tfidf")
    rows = prepare.read_split(config).rows["test"]
    stored = [row["raw"] for row in read_jsonl(folder / "tfidf/predictions.jsonl")]
    np.testing.assert_allclose(run.score(rows)["raw"], stored, atol=1e-6)


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
    found = manifest["results"]["teachers"][1]["dev"]["auprc"]
    assert found == pytest.approx(average_precision_score(labels, scores))


def test_teachers_and_soft_labels_of_other_folds_are_refused(taught, folder, whole):
    plain = smoke(folder, "graph")
    train_run.train_and_evaluate(plain, folder / "without")
    config = config_of(folder, "self_training", **{"teach.features": ()})
    with pytest.raises(BadInput, match="has config.eval.folds = 0 and not 2: train it with"):
        teach.teach(config, [str(folder / "without")], folder / "refused")
    other = smoke(folder, "self_training", **{"teach.features": ()})
    teach.teach(other, [str(folder / "without")], folder / "of_dev")
    shutil.copytree(folder / "of_dev", folder / "of_dev/fold-0")
    config.data.soft_labels = str(folder / "of_dev")
    with pytest.raises(BadInput, match="of another corpus or split"):
        train_run.train_and_evaluate(config, folder / "refused")
    assert not (folder / "refused").exists()


def test_the_report_names_the_labels_that_chose(taught, whole, folder, tmp_path):
    table = build.write(
        tmp_path / "report", [str(whole)], against="supervised", published=None
    )
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
