"""Runs that are stopped, killed or damaged and resume bit for bit; workdirs that are refused."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from ssl_guard import steps
from ssl_guard.errors import BadInput
from ssl_guard.report import results
from ssl_guard.runtime import lock, preemption
from ssl_guard.runtime.checkpoint import Checkpoints
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.train import loop, neighbour_views
from ssl_guard.train import run as train_run
from tests.tiny import final_checkpoint, signal_at, smoke, timeless

pytestmark = pytest.mark.usefixtures("shared_programs")


def test_a_supervised_start_to_the_end_is_the_supervised_run(runs, folder):
    started = train_run.train_and_evaluate(
        smoke(folder, "uda", **{"train.supervised_steps": 4}), folder / "started"
    )
    alone = train_run.train_and_evaluate(smoke(folder, "supervised"), folder / "alone")
    assert started["dev"]["raw"] == pytest.approx(alone["dev"]["raw"], rel=1e-4)
    assert started["dev"]["raw"] != pytest.approx(runs["uda"][1]["dev"]["raw"], rel=1e-4)


def test_an_oracle_is_marked_and_needs_pseudo_labels(folder):
    oracle = {"train.oracle": True}
    report = train_run.train_and_evaluate(smoke(folder, "fixmatch", **oracle), folder / "oracle")
    assert report["oracle"] is True
    assert results.own_test(results.load(folder / "oracle")).method == "fixmatch (oracle)"
    rows = [row for row in timeless(folder / "oracle") if "pseudo/accuracy" in row]
    assert rows and all(row["pseudo/accuracy"] == 1 for row in rows)
    for name in ("supervised", "tfidf_logistic"):
        with pytest.raises(BadInput, match="no pseudo-labels"):
            train_run.train_and_evaluate(smoke(folder, name, **oracle), folder / "refused")


def test_a_run_that_selects_by_rank_uses_about_its_share(folder):
    changes = {"train.selection": "rank", "train.rank_share": 0.5, "train.supervised_steps": 1}
    report = train_run.train_and_evaluate(smoke(folder, "fixmatch", **changes), folder / "rank")
    rows = timeless(folder / "rank")
    used = [1 - row["pseudo/mask_rate"] for row in rows if "pseudo/mask_rate" in row]
    assert len(used) == 3 and 0.2 < np.mean(used) < 0.8 and report["oracle"] is False
    with pytest.raises(BadInput, match="selects no pseudo-labels"):
        train_run.train_and_evaluate(smoke(folder, "mixmatch", **changes), folder / "refused")


def test_a_finished_run_returns_at_once(runs, folder, monkeypatch):
    monkeypatch.setattr(neighbour_views, "prepare", None)  # nothing of it may be needed
    again = train_run.train_and_evaluate(smoke(folder, "uda"), folder / "uda")
    assert again == runs["uda"][1]


def test_a_workdir_of_another_config_is_refused(runs, folder):
    with pytest.raises(BadInput, match=r"another config: optim.lr \(0.0002 there, 0.1 now\)"):
        train_run.train_and_evaluate(smoke(folder, "uda", **{"optim.lr": 0.1}), folder / "uda")


def test_a_workdir_in_use_is_refused(runs, folder):
    with lock.held(folder / "in use"), pytest.raises(BadInput, match="is in use by process"):
        train_run.train_and_evaluate(smoke(folder, "supervised"), folder / "in use")


def test_what_a_resumed_run_may_change(runs, folder):
    changes = {"train.keep_last": 5, "train.on_save_error": "continue", "compilation_cache": "x"}
    assert train_run.train_and_evaluate(smoke(folder, "uda", **changes), folder / "uda")


@pytest.mark.parametrize("name, stop_at", [("uda", 2), ("uda", 4), ("setfit", 4)])
def test_an_interrupted_run_ends_bit_equal(runs, folder, monkeypatch, name, stop_at):
    """Stopped in step 2 (no checkpoint yet, so it is the same run twice) or 4 (checkpoint of step
    2), then started again."""
    workdir, calls = folder / f"interrupted-{name}-{stop_at}", []
    if name not in runs:
        runs[name] = (
            folder / name,
            train_run.train_and_evaluate(smoke(folder, name), folder / name),
        )
    count = loop.pipeline.token_counts

    def interrupt(batch):
        calls.append(1)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return count(batch)

    monkeypatch.setattr(loop.pipeline, "token_counts", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_run.train_and_evaluate(smoke(folder, name), workdir)
    monkeypatch.undo()
    result = train_run.train_and_evaluate(smoke(folder, name), workdir)
    whole, expected = runs[name]
    assert result["test"] == expected["test"]
    assert timeless(workdir) == timeless(whole)
    for ours, theirs in zip(final_checkpoint(workdir), final_checkpoint(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("where", ["step", "evaluation"])
def test_a_signal_saves_and_the_run_goes_on_bit_equal(runs, folder, monkeypatch, where):
    """After step 3, which is between two checkpoints and two rows of metrics, or while dev is
    scored after step 2: the state is saved without an evaluation, and replaced by one with it."""
    workdir = folder / f"signal-{where}"
    config, whole = smoke(folder, "uda"), runs["uda"][0]
    if where == "step":
        config.train.log_every_steps, whole = 4, folder / "every-fourth"
        train_run.train_and_evaluate(config, whole)

    signal_at(monkeypatch, {"step": 3, "evaluation": None}[where])
    with pytest.raises(preemption.Preempted, match="stopped by SIGTERM") as stopped:
        train_run.train_and_evaluate(config, workdir)
    monkeypatch.undo()
    assert stopped.value.code == 143
    saved = {"step": 3, "evaluation": 2}[where]
    assert (workdir / "checkpoints" / str(saved) / "manifest.json").exists()
    rows = [row["step"] for row in read_jsonl(workdir / "metrics.jsonl")]
    assert rows == {"step": [2], "evaluation": [1]}[where]
    result = train_run.train_and_evaluate(config, workdir)
    assert timeless(workdir) == timeless(whole)
    assert result["test"] == json.loads((whole / "report.json").read_text())["test"]
    for ours, theirs in zip(final_checkpoint(workdir), final_checkpoint(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_kill_after_the_row_of_a_saved_step_makes_no_second_row(runs, folder, monkeypatch):
    """Saved by a signal before its evaluation, then killed between the row of metrics and the
    checkpoint that has the evaluation."""
    workdir = folder / "signal-then-kill"

    signal_at(monkeypatch, None)
    with pytest.raises(preemption.Preempted):
        train_run.train_and_evaluate(smoke(folder, "uda"), workdir)
    monkeypatch.undo()

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train_run.train_and_evaluate(smoke(folder, "uda"), workdir)
    monkeypatch.undo()
    assert [row["step"] for row in read_jsonl(workdir / "metrics.jsonl")] == [1, 2]
    train_run.train_and_evaluate(smoke(folder, "uda"), workdir)
    assert timeless(workdir) == timeless(runs["uda"][0])


def test_a_full_disk_stops_or_not_as_configured(folder, monkeypatch, capsys):
    save, saves = ocp.save_checkpointables_async, []

    def full(path, *arguments, **options):
        saves.append(path.name)
        if len(saves) == 1:
            raise OSError(28, "No space left on device")
        return save(path, *arguments, **options)

    monkeypatch.setattr(ocp, "save_checkpointables_async", full)
    with pytest.raises(BadInput, match="no space left on device while writing a checkpoint"):
        train_run.train_and_evaluate(smoke(folder, "supervised"), folder / "full")
    assert not (folder / "full" / "report.json").exists()
    saves.clear()
    config = smoke(folder, "supervised", **{"train.on_save_error": "continue"})
    result = train_run.train_and_evaluate(config, folder / "full-continue")
    assert saves == ["2", "4"] and result["selected_step"] == 4
    assert "while writing a checkpoint; continuing without it" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_made_again(runs, folder, capsys):
    """The newest one is set aside, the one before it is used, and the end is the same."""
    workdir = folder / "damaged"
    shutil.copytree(folder / "uda", workdir)
    (workdir / "report.json").unlink()
    for path in (workdir / "checkpoints" / "4" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    result = train_run.train_and_evaluate(smoke(folder, "uda"), workdir)
    assert "It is renamed to 4.damaged-" in capsys.readouterr().err
    assert result["checkpoint_sha256"] == runs["uda"][1]["checkpoint_sha256"]
    assert timeless(workdir) == timeless(runs["uda"][0])
    for ours, theirs in zip(
        final_checkpoint(workdir), final_checkpoint(folder / "uda"), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_damaged_checkpoints_are_not_restarted_over(runs, folder):
    """A run none of whose checkpoints can be read must say so, not begin again at step 0."""
    workdir = folder / "all-damaged"
    shutil.copytree(folder / "uda", workdir)
    (workdir / "report.json").unlink()
    for path in (workdir / "checkpoints").rglob("d/*"):
        path.write_bytes(b"")
    with pytest.raises(BadInput, match=r"none of the checkpoints \(steps 4, 2\) can be read"):
        train_run.train_and_evaluate(smoke(folder, "uda"), workdir)


def test_skipped_steps_in_a_row_are_counted_across_rows_of_metrics(folder, monkeypatch):
    """Steps 2 to 4 of 6, with a row of metrics and a checkpoint at each second step; a signal in
    the evaluation of step 2 does not make it count twice."""
    original, check = steps.train_step, preemption.check

    def skipping(state, batch, **static):
        after, found = original(state, batch, **static)
        bad = (state.step >= 1) & (state.step <= 3)
        found["skipped"] = (jax.numpy.where(bad, 1.0, found["skipped"][0]), found["skipped"][1])
        return after, found

    monkeypatch.setattr(steps, "train_step", skipping)
    changes = {"train.steps": 6, "train.log_every_steps": 2}
    config = smoke(folder, "supervised", **changes, **{"train.max_nonfinite_steps": 4})

    def signalled(step=None):
        if step is None:
            raise preemption.Preempted(signal.SIGTERM)

    monkeypatch.setattr(preemption, "check", signalled)
    with pytest.raises(preemption.Preempted):
        train_run.train_and_evaluate(config, folder / "skipped-3-of-4")
    monkeypatch.setattr(preemption, "check", check)
    train_run.train_and_evaluate(config, folder / "skipped-3-of-4")  # three are not four
    config = smoke(folder, "supervised", **changes, **{"train.max_nonfinite_steps": 3})
    with pytest.raises(BadInput, match="steps 2 to 4"):
        train_run.train_and_evaluate(config, folder / "skipped-3-of-3")
    assert [row["step"] for row in read_jsonl(folder / "skipped-3-of-3" / "metrics.jsonl")] == [2]
