"""Teachers and students from the labelled rows to the last student."""

import dataclasses
import shutil
import signal
import types

import numpy as np
import pytest

from ssl_guard.commands import self_train as command
from ssl_guard.config import check, leaves
from ssl_guard.data import assemble, soft_labels
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import inference, prepare
from ssl_guard.runtime import preemption
from ssl_guard.runtime.files import write_jsonl
from ssl_guard.train import run as train_run
from ssl_guard.train import self_training
from tests.tiny import final_checkpoint, signal_at, smoke, timeless

pytestmark = pytest.mark.usefixtures("shared_programs")
STAGES = ("ensemble", "supervised", "soft_labels-1", "student-1", "soft_labels-2", "student-2")


def config_of(folder, **changes):
    return smoke(folder, "self_training", **{"teach.rounds": 2} | changes)


@pytest.fixture(scope="module")
def whole(folder):
    """The folder of two rounds."""
    config = config_of(folder)
    runs = self_training.self_train(config, folder / "whole")
    assert leaves(config) == leaves(config_of(folder))  # the runs' configs are copies
    assert [run.name for run in runs] == ["supervised", "ensemble", "student-1", "student-2"]
    return folder / "whole"


def assert_same_students(workdir, other):
    for number in (1, 2):
        mine, theirs = (w / f"soft_labels-{number}" / soft_labels.RECORDS for w in (workdir, other))
        assert mine.read_bytes() == theirs.read_bytes()
        pair = [final_checkpoint(w / f"student-{number}") for w in (workdir, other)]
        for ours, expected in zip(*pair, strict=True):
            np.testing.assert_array_equal(ours, expected)


def test_every_stage_has_its_folder(whole):
    assert {path.name for path in whole.iterdir()} == set(STAGES)
    first, second = (soft_labels.read_manifest(whole / f"soft_labels-{n}") for n in (1, 2))
    named = [[row["name"] for row in m["results"]["teachers"]] for m in (first, second)]
    ensemble = str(whole / "ensemble")
    assert named == [[str(whole / "supervised"), ensemble], [str(whole / "student-1"), ensemble]]
    assert first["sha256"] != second["sha256"]
    for number in (1, 2):
        rows = timeless(whole / f"student-{number}")
        assert len(rows) == 4 and all(row["pseudo/mask_rate"] == 0 for row in rows)


def test_the_supervised_teacher_is_a_run_of_its_own_config(whole, folder):
    """So a student is compared with the baseline of as many steps."""
    changes = {key: leaves(config_of(folder))[key] for key in ("optim.freeze", "data.packing")}
    alone = smoke(folder, "supervised", **changes)
    alone = train_run.train_and_evaluate(alone, folder / "supervised")
    report = train_run.finished(whole / "supervised")
    assert report["checkpoint_sha256"] == alone["checkpoint_sha256"]
    assert report["test"] == alone["test"] and report["oracle"] is False


@pytest.mark.parametrize("stage", ["soft_labels-1", "student-1", "soft_labels-2"])
def test_a_kill_between_stages_changes_nothing(whole, folder, monkeypatch, stage):
    """Keeps the finished stages and runs the others."""
    workdir, config, made = folder / f"killed-{stage}", config_of(folder), []
    for name in STAGES[: min(STAGES.index(stage), 3)]:
        shutil.copytree(whole / name, workdir / name)

    def watched(call, killed):
        def watching(*arguments):
            name, is_there = arguments[-1].name, (arguments[-1] / "config.json").exists()
            if name == killed:
                raise KeyboardInterrupt
            made.extend([] if is_there or soft_labels.read_manifest(arguments[-1]) else [name])
            return call(*arguments)

        return watching

    train, teach = self_training.train_and_evaluate, self_training.teach.teach
    for killed in (stage, None):
        monkeypatch.setattr(self_training, "train_and_evaluate", watched(train, killed))
        monkeypatch.setattr(self_training.teach, "teach", watched(teach, killed))
        if killed:
            with pytest.raises(KeyboardInterrupt):
                self_training.self_train(config, workdir)
            made.clear()
    self_training.self_train(config, workdir)
    assert made == list(STAGES[STAGES.index(stage) :])
    assert_same_students(workdir, whole)


def test_a_signal_in_a_student_resumes_it(whole, folder, monkeypatch):
    workdir = folder / "signal"
    for name in STAGES[:3]:
        shutil.copytree(whole / name, workdir / name)

    signal_at(monkeypatch, 3)
    with pytest.raises(preemption.Preempted):
        self_training.self_train(config_of(folder), workdir)
    monkeypatch.undo()
    assert not (workdir / "student-1/report.json").exists()
    self_training.self_train(config_of(folder), workdir)
    assert_same_students(workdir, whole)


def test_a_finished_call_returns_at_once_and_may_have_more_rounds(whole, folder, monkeypatch):
    monkeypatch.setattr(train_run, "opened", None)  # no run starts
    assert len(self_training.self_train(config_of(folder), whole)) == 4
    fewer = config_of(folder, **{"teach.rounds": 1})
    assert self_training.self_train(fewer, whole)[-1] == whole / "student-1"
    with pytest.raises(TypeError):
        self_training.self_train(config_of(folder, **{"teach.rounds": 3}), whole)


def test_a_deleted_teacher_is_trained_again_and_is_the_same(whole, folder):
    files = {path: path.stat().st_mtime_ns for path in whole.glob("s*-*/*.json")}
    assert len(files) > 6
    shutil.rmtree(whole / "supervised")
    self_training.self_train(config_of(folder), whole)
    assert (whole / "supervised/report.json").exists()
    assert {path: path.stat().st_mtime_ns for path in whole.glob("s*-*/*.json")} == files


def test_another_config_is_refused(whole, folder):
    with pytest.raises(BadInput, match="another config: teach.alpha"):
        self_training.self_train(config_of(folder, **{"teach.alpha": 0.1}), whole)


@pytest.mark.parametrize("done", [True, False])
def test_a_student_whose_soft_labels_were_made_again_is_refused(whole, folder, done):
    """Finished or not; with the old soft labels, or none, it is the same run still."""
    labels, report = whole / "soft_labels-1", whole / "student-1/report.json"
    files = {path: path.read_bytes() for path in (*labels.iterdir(), report)}
    made_from = soft_labels.read_manifest(labels)["made_from"]
    ids = [e.id for e in prepare.read_split(config_of(folder)).rows["unlabelled"]]
    soft_labels.write(labels, ids, np.full(90, 0.5), np.ones(90), made_from=made_from, results={})
    if not done:
        report.unlink()
    try:
        with pytest.raises(BadInput, match="student-1 learns other soft labels than those in"):
            self_training.self_train(config_of(folder), whole)
        assert report.exists() == done
    finally:
        for path, content in files.items():
            path.write_bytes(content)
    assert len(self_training.self_train(config_of(folder), whole)) == 4


def test_hidden_labels_change_no_weight(whole, folder, tmp_path, monkeypatch):
    """Half of them false and the rest missing: teachers, soft labels and students are the same."""
    read_split = assemble.read_split

    def without(*specs):
        source = read_split(*specs)
        pool = [
            dataclasses.replace(example, label=1 - example.label if i % 2 else None)
            for i, example in enumerate(source.rows["unlabelled"])
        ]
        return source._replace(rows=source.rows | {"unlabelled": pool})

    monkeypatch.setattr(prepare.assemble, "read_split", without)
    config = config_of(folder, **{"data.dir": str(tmp_path / "data")})
    self_training.self_train(config, tmp_path / "hidden")
    assert_same_students(tmp_path / "hidden", whole)
    true, false = (timeless(w / "student-1")[-1] for w in (whole, tmp_path / "hidden"))
    assert true["pseudo/accuracy"] != false["pseudo/accuracy"]  # the only use of them


def test_a_student_learns_what_is_stored_and_an_oracle_the_hidden_labels(folder):
    """Of soft labels that are all wrong."""
    prepared = prepare.prepare(config_of(folder), views=("strong",))
    wrong = 1 - inference.labels_of(prepared.unlabelled)
    ids = [example.id for example in prepared.texts["unlabelled"]]
    stored = folder / "wrong", ids, wrong, np.ones(90)
    soft_labels.write(*stored, made_from=prepared.hashes, results={})
    for oracle in (False, True):
        changes = {"data.soft_labels": str(folder / "wrong"), "train.oracle": oracle}
        workdir = folder / f"wrong-{oracle}"
        report = train_run.train_and_evaluate(config_of(folder, **changes), workdir)
        rows = timeless(workdir)
        assert rows and all(row["pseudo/accuracy"] == oracle for row in rows)
        assert report["oracle"] is oracle
    without = train_run.train_and_evaluate(
        config_of(folder, **{"train.oracle": True}), folder / "oracle"
    )
    assert without["checkpoint_sha256"] == report["checkpoint_sha256"]


def test_a_student_of_another_pool_is_refused(whole, folder):
    taught = {"data.soft_labels": str(whole / "soft_labels-1")}
    with pytest.raises(BadInput, match="of another corpus or split; make them"):
        train_run.train_and_evaluate(config_of(folder, seed=1, **taught), folder / "refused")
    with pytest.raises(BadInput, match="learns from the soft labels of teachers"):
        train_run.train_and_evaluate(config_of(folder), folder / "refused")
    assert not (folder / "refused").exists()


@pytest.mark.parametrize(
    "name, changes, words",
    [
        ("uda", {}, "use configs/self_training.py"),
        ("self_training", {"data.soft_labels": "x"}, "makes the soft labels itself"),
        ("self_training", {"eval.stride": 8}, "graph reads whole texts"),
        ("self_training", {"teach.combine": "mean"}, "rank, probability"),
    ],
)
def test_configs_that_are_refused_before_any_training(folder, tmp_path, name, changes, words):
    with pytest.raises(BadInput, match=words):
        self_training.self_train(smoke(folder, name, **changes), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_teacher_has_the_students_config_but_for_its_method(folder):
    config = config_of(folder, **{"train.oracle": True, "optim.lr": 0.5})
    for name, group in (("supervised", {}), ("graph", self_training.ENSEMBLE)):
        other = self_training.other_method(config, name, group)
        check(other)
        mine, theirs = leaves(config), leaves(other)
        changed = {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
        own = {f"{name}.{key}" for key in group} | {"self_training.supervised_weight"}
        assert changed == own | {"algorithm", "train.oracle"} and not other.train.oracle


def run_command(monkeypatch, config, workdir):
    for flag, value in {"CONFIG": config, "WORKDIR": str(workdir), "TEACHERS": []}.items():
        holder = types.SimpleNamespace(value=value)
        monkeypatch.setattr(command, flag, holder, raising=False)
    monkeypatch.setattr(preemption, "listen", lambda: None)
    monkeypatch.setattr("ssl_guard.runtime.compilation.configure", lambda **how: None)
    command.main([])


def test_given_teachers_take_the_place_of_the_trained_ones(whole, folder):
    workdir, judge = folder / "given", folder / "judge.jsonl"
    rows = [{"id": f"row{i}", "score": (i % 2 + i / 160) / 2} for i in range(160)]
    write_jsonl(judge, rows)
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        self_training.self_train(config_of(folder), workdir, ["scores:nothing.jsonl"])
    assert not workdir.exists()
    runs = self_training.self_train(config_of(folder), workdir, [f"scores:{judge}"])
    assert [run.name for run in runs] == ["supervised", "student-1", "student-2"]
    assert {path.name for path in workdir.iterdir()} == {*STAGES} - {"ensemble"}
    manifests = [soft_labels.read_manifest(workdir / f"soft_labels-{n}") for n in (1, 2)]
    named = [[row["name"] for row in m["results"]["teachers"]] for m in manifests]
    assert named == [[f"scores:{judge}"], [str(workdir / "student-1"), f"scores:{judge}"]]
    reports = [train_run.finished(w / "supervised") for w in (workdir, whole)]
    assert reports[0]["checkpoint_sha256"] == reports[1]["checkpoint_sha256"]


def test_the_command_compares_the_last_student_with_its_baseline(
    whole, folder, monkeypatch, capsys
):
    shutil.copytree(whole, folder / "copied", dirs_exist_ok=True)
    monkeypatch.setattr(
        self_training, "self_train", lambda config, workdir, teachers: [
            whole / name for name in ("supervised", "ensemble", "student-1", "student-2")
        ],
    )  # fmt: skip
    run_command(monkeypatch, config_of(folder), folder / "copied")
    printed = capsys.readouterr().out
    assert all(f"\n| {name} " in printed for name in ("supervised", "graph", "self_training"))
    assert "unlabelled data: " in printed
    assert (folder / "copied/report/report.html").exists()


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_command_ends_with_the_code_of_the_signal(
    folder, tmp_path, monkeypatch, capsys, number, code
):
    def stopped(config, workdir, teachers):
        raise preemption.Preempted(number)

    monkeypatch.setattr(self_training, "self_train", stopped)
    with pytest.raises(SystemExit) as end:
        run_command(monkeypatch, config_of(folder), tmp_path / "x")
    assert end.value.code == code and f"stopped by {number.name}" in capsys.readouterr().err
