"""Whole runs in their smoke form, on eight simulated devices: train, resume, compare, report."""

import importlib
import json
import shutil
import signal
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from PIL import Image

from ssl_guard import algorithms, prepare, steps
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import scorer
from ssl_guard.report import build
from ssl_guard.runtime import preemption
from ssl_guard.runtime.writer import read
from ssl_guard.steps import optim
from ssl_guard.train import run as train_run

# mlm trains an encoder, not a classifier: test_mlm.py
CONFIGS = sorted({path.stem for path in Path("configs").glob("*.py")} - {"mlm"})
LABELS_ALONE = (
    "supervised",
    "supervised_full",
    "logistic_regression",
    "tfidf_logistic",
    "setfit",
    "tmix",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def smoke(folder, name, **changes):
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    config.data.dir = str(folder / "data")
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def runs(folder):
    """Workdir and report of the smoke runs that the tests below look at closely."""
    return {
        name: (folder / name, train_run.train_and_evaluate(smoke(folder, name), folder / name))
        for name in ("supervised", "uda")
    }


def final_checkpoint(workdir):
    """Every array of the newest checkpoint, as Orbax stored it."""
    steps = [int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    newest = workdir / "checkpoints" / str(max(steps))
    with warnings.catch_warnings(action="ignore"):  # it prefers to be told the shardings
        tree = ocp.load_checkpointables(newest, {"state": None})["state"]
    return [
        np.asarray(
            jax.random.key_data(leaf)
            if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            else leaf
        )
        for leaf in jax.tree.leaves(tree)
    ]


def timeless(workdir):
    rows = read(workdir / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_trains_and_reports(runs, folder, name):
    workdir = folder / name
    result = train_run.train_and_evaluate(smoke(folder, name), workdir)
    assert json.loads((workdir / "report.json").read_text()) == result
    scores = result["test"][result["weights"]]
    for metric in ("f1", "auprc", "recall_at_1_fpr", "ece"):
        assert 0 <= scores[metric]["low"] <= scores[metric]["high"] <= 1
    rows = read(workdir / "metrics.jsonl")
    fitted = result["algorithm"] in algorithms.FITTED
    assert [row["step"] for row in rows] == ([0] if fitted else [1, 2, 3, 4])
    assert all(np.isfinite(value).all() for row in rows for value in row.values())
    assert ("pseudo/mask_rate" in rows[-1]) == (name not in LABELS_ALONE)
    assert result["data"]["rows"] == {"labelled": 20, "unlabelled": 995, "dev": 20, "test": 30}
    assert result["data"]["labels_used"] == (1015 if name == "supervised_full" else 20)
    if name in LABELS_ALONE:
        files = {"config.json", "metrics.jsonl", "predictions.jsonl", "report.json"}
        assert files <= {path.name for path in workdir.iterdir()}
        assert train_run.train_and_evaluate(smoke(folder, name), workdir) == result
        if name != "supervised":
            run, twin = build.load(workdir), build.load(runs["supervised"][0])
            text = build.summary(run, twin, build.compare(run, twin))
            assert f"\n{name} instead of supervised: " in text and "unlabelled data:" not in text
            assert (f"({name}: 1015 labels)" in text) == (name == "supervised_full")


def test_predictions_hold_ids_and_no_text(runs):
    workdir, result = runs["uda"]
    rows = [json.loads(line) for line in (workdir / "predictions.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == result["data"]["rows"]["test"]
    assert all(row.keys() == {"id", "group", "label", "raw"} for row in rows)


def test_a_finished_run_returns_at_once(runs, folder, monkeypatch):
    monkeypatch.setattr(train_run, "prepare", None)  # nothing of it may be needed
    again = train_run.train_and_evaluate(smoke(folder, "uda"), folder / "uda")
    assert again == runs["uda"][1]


def test_a_workdir_of_another_config_is_refused(runs, folder):
    with pytest.raises(BadInput, match=r"another config: optim.lr \(0.0002 there, 0.1 now\)"):
        train_run.train_and_evaluate(smoke(folder, "uda", **{"optim.lr": 0.1}), folder / "uda")


def test_what_a_resumed_run_may_change(runs, folder):
    changes = {"train.keep_last": 5, "train.on_save_error": "continue", "compilation_cache": "x"}
    assert train_run.train_and_evaluate(smoke(folder, "uda", **changes), folder / "uda")


def test_shards_of_other_arguments_are_refused(runs, folder):
    config = smoke(folder, "uda", **{"augment.tfidf.p": 0.7})
    with pytest.raises(BadInput, match=r"p: 0.3 there, 0.7 now.*ssl_guard.prepare --config"):
        train_run.train_and_evaluate(config, folder / "other")
    assert not (folder / "other" / "report.json").exists()


def test_overwrite_makes_the_shards_again(runs, folder, tmp_path):
    """What the refusal above tells to do; in a copy, for the other tests read these shards."""
    shutil.copytree(folder / "data", tmp_path / "data")
    config = smoke(tmp_path, "uda", **{"augment.tfidf.p": 0.7})
    made = prepare.prepare(config, views=("weak", "strong"), overwrite=True)
    (there,) = (tmp_path / "data" / "augmented").glob("*/tfidf/manifest.json")
    assert json.loads(there.read_text())["made_from"]["arguments"] == {"tfidf": {"p": 0.7}}
    (view,) = made.strong.views
    sha256 = view.manifest["made_from"]["set_sha256"]
    (other,) = (folder / "data" / "shards").glob("*/unlabelled-tfidf/manifest.json")
    assert sha256 != json.loads(other.read_text())["made_from"]["set_sha256"]
    prepare.prepare(config, views=("weak", "strong"))  # and now they fit


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
    count = train_run.pipeline.token_counts

    def interrupt(batch):
        calls.append(1)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return count(batch)

    monkeypatch.setattr(train_run.pipeline, "token_counts", interrupt)
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
    workdir, check = folder / f"signal-{where}", preemption.check
    config, whole = smoke(folder, "uda"), runs["uda"][0]
    if where == "step":
        config.train.log_every_steps, whole = 4, folder / "every-fourth"
        train_run.train_and_evaluate(config, whole)

    def signalled(step=None):
        """After step 3, or at the first batch of the first evaluation."""
        if step == {"step": 3, "evaluation": None}[where]:
            monkeypatch.setattr(preemption, "_asked", signal.SIGTERM)
        check(step)

    monkeypatch.setattr(preemption, "check", signalled)
    with pytest.raises(preemption.Preempted, match="stopped by SIGTERM") as stopped:
        train_run.train_and_evaluate(config, workdir)
    monkeypatch.undo()
    assert stopped.value.code == 143
    saved = {"step": 3, "evaluation": 2}[where]
    assert (workdir / "checkpoints" / str(saved) / "manifest.json").exists()
    rows = [row["step"] for row in read(workdir / "metrics.jsonl")]
    assert rows == {"step": [2], "evaluation": [1]}[where]
    result = train_run.train_and_evaluate(config, workdir)
    assert timeless(workdir) == timeless(whole)
    assert result["test"] == json.loads((whole / "report.json").read_text())["test"]
    for ours, theirs in zip(final_checkpoint(workdir), final_checkpoint(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_kill_after_the_row_of_a_saved_step_makes_no_second_row(runs, folder, monkeypatch):
    """Saved by a signal before its evaluation, then killed between the row of metrics and the
    checkpoint that has the evaluation."""
    workdir, check = folder / "signal-then-kill", preemption.check

    def signalled(step=None):
        if step is None:
            monkeypatch.setattr(preemption, "_asked", signal.SIGTERM)
        check(step)

    monkeypatch.setattr(preemption, "check", signalled)
    with pytest.raises(preemption.Preempted):
        train_run.train_and_evaluate(smoke(folder, "uda"), workdir)
    monkeypatch.undo()

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_run.Checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train_run.train_and_evaluate(smoke(folder, "uda"), workdir)
    monkeypatch.undo()
    assert [row["step"] for row in read(workdir / "metrics.jsonl")] == [1, 2]
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
    assert "while writing a checkpoint; going on without it" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_made_again(runs, folder, capsys):
    """The newest one is set aside, the one before it is used, and the end is the same."""
    workdir = folder / "damaged"
    shutil.copytree(folder / "uda", workdir)
    (workdir / "report.json").unlink()
    for path in (workdir / "checkpoints" / "4" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    result = train_run.train_and_evaluate(smoke(folder, "uda"), workdir)
    assert "Set aside as 4.damaged-" in capsys.readouterr().err
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
    with pytest.raises(BadInput, match="steps 4, 2 can be read, and the run would begin again"):
        train_run.train_and_evaluate(smoke(folder, "uda"), workdir)


def test_the_report_names_the_checkpoint_that_it_measured(runs, folder):
    hashes = {name: runs[name][1]["checkpoint_sha256"] for name in ("supervised", "uda")}
    assert hashes["supervised"] != hashes["uda"]
    for name, sha256 in hashes.items():
        assert scorer.load_run(folder / name).checkpoint_sha256 == sha256


def test_learning_rate_and_spikes_are_in_the_metrics(runs):
    rows = read(runs["uda"][0] / "metrics.jsonl")
    config = smoke(Path(), "uda")
    for i, row in enumerate(rows):
        peak = optim.warmup_cosine(
            row["step"] - 1,
            peak=config.optim.lr,
            warmup_steps=config.optim.warmup_steps,
            total_steps=config.train.steps,
        )
        assert row["optim/lr"] == float(peak)
        before = [r["loss/total"] for r in rows[:i]] or [row["loss/total"]]
        assert row["loss/spike"] == pytest.approx(row["loss/total"] / np.median(before))
    assert rows[0]["loss/spike"] == 1 and rows[1]["loss/spike"] != 1


def test_one_compiled_step_per_bucket(runs, folder, monkeypatch):
    """The compiled shapes are the buckets that occurred, no more."""
    traced = []
    original = steps.train_step

    def counting(state, batch, **static):
        traced.append(batch["labelled"]["input_ids"].shape[1])
        return original(state, batch, **static)

    monkeypatch.setattr(steps, "train_step", counting)
    changes = {"data.buckets": (32, 48, 64), "train.steps": 12, "train.eval_every_steps": 12}
    config = smoke(folder, "supervised", **changes)
    train_run.train_and_evaluate(config, folder / "buckets")
    assert len(traced) == len(set(traced)) and set(traced) <= {32, 48, 64}


def test_a_diverged_run_names_steps_and_rows(runs, folder):
    """The first update takes the weights out of float32: every later step is skipped, and the
    third of them, which is not the last of its row of metrics, ends the run."""
    changes = {
        "optim.lr": 1e30,
        "optim.clip_norm": 0.0,
        "train.max_skipped": 3,
        "train.steps": 6,
        "train.log_every_steps": 6,
        "train.eval_every_steps": 6,
    }
    config = smoke(folder, "uda", **changes)
    with pytest.raises(BadInput, match="not a number in steps 2 to 4.*config.optim.lr") as error:
        train_run.train_and_evaluate(config, folder / "diverged")
    rows = json.loads((folder / "diverged" / "skipped.json").read_text())
    assert list(rows) == ["2", "3", "4"] and ", ".join(rows["2"]) in str(error.value)
    prepared = prepare.prepare(config, views=("weak", "strong"))
    batches = train_run.pipeline.train_batches(
        prepared.labelled,
        prepared.unlabelled,
        prepared.strong,
        seed=config.seed,
        steps=6,
        labelled_batch=8,
        unlabelled_batch=8,
        buckets=tuple(config.data.buckets),
        window_steps=config.data.window_steps,
        pad_id=prepared.tokenizer.pad_id,
    )
    for step, batch in enumerate(batches, 1):
        if str(step) in rows:
            ids = [prepared.labelled[i]["id"] for i in batch["labelled"]["index"]]
            ids += [prepared.unlabelled[i]["id"] for i in batch["index"]]
            assert rows[str(step)] == ids


def test_skipped_steps_in_a_row_are_counted_across_rows_of_metrics(folder, monkeypatch):
    """Steps 2 to 4 of 6, with a row of metrics and a checkpoint at each second step; a signal in
    the evaluation of step 2 does not make it count twice."""
    original, check = train_run.steps_module.train_step, preemption.check

    def skipping(state, batch, **static):
        after, found = original(state, batch, **static)
        bad = (state.step >= 1) & (state.step <= 3)
        found["skipped"] = (jax.numpy.where(bad, 1.0, found["skipped"][0]), found["skipped"][1])
        return after, found

    monkeypatch.setattr(train_run.steps_module, "train_step", skipping)
    changes = {"train.steps": 6, "train.log_every_steps": 2}
    config = smoke(folder, "supervised", **changes, **{"train.max_skipped": 4})

    def signalled(step=None):
        if step is None:
            raise preemption.Preempted(signal.SIGTERM)

    monkeypatch.setattr(preemption, "check", signalled)
    with pytest.raises(preemption.Preempted):
        train_run.train_and_evaluate(config, folder / "skipped-3-of-4")
    monkeypatch.setattr(preemption, "check", check)
    train_run.train_and_evaluate(config, folder / "skipped-3-of-4")  # three are not four
    config = smoke(folder, "supervised", **changes, **{"train.max_skipped": 3})
    with pytest.raises(BadInput, match="steps 2 to 4"):
        train_run.train_and_evaluate(config, folder / "skipped-3-of-3")
    assert [row["step"] for row in read(folder / "skipped-3-of-3" / "metrics.jsonl")] == [2]


def test_bfloat16_is_compared_with_float32_on_dev(folder):
    changes = {"model.dtype": "bfloat16", "train.float32_check": True, "train.steps": 2}
    config = smoke(folder, "supervised", **changes)
    train_run.train_and_evaluate(config, folder / "bfloat16")
    rows = read(folder / "bfloat16" / "metrics.jsonl")
    assert [row["step"] for row in rows if "bfloat16/score" in row] == [2]
    assert 0 < rows[-1]["bfloat16/score"] < 0.02 and abs(rows[-1]["bfloat16/loss"]) < 0.02


def test_ema_and_raw_weights_are_both_reported(folder):
    changes = {"optim.ema_decay": 0.5, "data.calibration": 20}
    config = smoke(folder, "supervised", **changes)
    result = train_run.train_and_evaluate(config, folder / "ema")
    assert result["weights"] == "ema"
    assert result["test"].keys() == result["dev"].keys() == {"raw", "ema"}
    rows = [read(folder / "ema" / f"{name}.jsonl") for name in ("calibration", "predictions")]
    assert [len(lines) for lines in rows] == [20, 30]
    assert all(line.keys() == {"id", "group", "label", "raw", "ema"} for line in sum(rows, []))
    assert not {line["id"] for line in rows[0]} & {line["id"] for line in rows[1]}


def test_too_long_for_the_encoder(folder):
    config = smoke(folder, "supervised", **{"data.max_length": 600, "data.buckets": (600,)})
    with pytest.raises(BadInput, match="600 is more than the 512 positions"):
        config.data.dir = str(folder / "data600")
        train_run.train_and_evaluate(config, folder / "long")


def test_report_compares_a_run_with_its_twin(runs, capsys):
    (uda, _), (twin, _) = runs["uda"], runs["supervised"]
    build.show([str(uda), str(twin)])
    printed = capsys.readouterr().out
    comparison = json.loads((uda / "comparison.json").read_text())
    assert f"unlabelled data: {comparison['unlabelled_data']}" in printed
    assert "F1 harmful" in printed and "30 test rows" in printed
    for name in ("learning_curves", "precision_recall", "pseudo_labels", "margins"):
        pixels = np.asarray(Image.open(uda / "plots" / f"{name}.png").convert("L"))
        assert (pixels < 250).mean() > 0.005, f"{name} is blank"


def test_report_of_a_run_with_itself_is_no_evidence(runs):
    run = build.load(runs["uda"][0])
    comparison = build.compare(run, run)
    assert comparison["unlabelled_data"] == "no evidence"
    assert all(set(d.values()) == {0.0} for d in comparison["difference"].values())


def test_runs_of_one_algorithm_go_by_their_folders():
    run, twin = ({"workdir": Path(p), "report": {"algorithm": "uda"}} for p in ("a/x", "b/x"))
    assert build.names(run, twin) == ["a/x", "b/x"]
    assert build.names(run, twin | {"workdir": Path("b/y")}) == ["x", "y"]
    assert build.names(run, twin | {"report": {"algorithm": "dash"}}) == ["uda", "dash"]


@pytest.mark.parametrize(
    "low, high, word",
    [(0.01, 0.05, "helped"), (-0.05, -0.01, "hurt"), (-0.01, 0.01, "no evidence")],
)
def test_verdict_follows_from_the_interval(low, high, word):
    assert build.verdict(build.metrics.Interval((low + high) / 2, low, high)) == word


def test_report_refuses_runs_on_other_rows(runs):
    run, twin = build.load(runs["uda"][0]), build.load(runs["supervised"][0])
    twin["report"]["provenance"]["split_sha256"] = "other"
    with pytest.raises(BadInput, match="split_sha256"):
        build.compare(run, twin)


def test_report_of_an_unfinished_run(tmp_path):
    with pytest.raises(BadInput, match="no report.json"):
        build.load(tmp_path)
