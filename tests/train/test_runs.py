"""The files of a smoke run: predictions, metrics, shards, comparisons and reports."""

import json
import shutil

import numpy as np
import pytest

from ssl_guard import steps
from ssl_guard.commands import report as report_command
from ssl_guard.config import ranges
from ssl_guard.data import pipeline
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import inference, prepare, scorer
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.steps import optim
from ssl_guard.train import run as train_run
from tests.tiny import smoke

pytestmark = pytest.mark.usefixtures("shared_programs")


def test_predictions_hold_ids_and_no_text(runs):
    workdir, result = runs["uda"]
    rows = [json.loads(line) for line in (workdir / "predictions.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == result["data"]["rows"]["test"]
    assert all(row.keys() == {"id", "group", "label", "raw"} for row in rows)


def test_shards_of_other_arguments_are_refused(runs, folder):
    config = smoke(folder, "uda", **{"augment.tfidf.p": 0.7})
    with pytest.raises(BadInput, match=r"p: 0.3 there, 0.7 now.*ssl_guard.prepare --config"):
        train_run.train_and_evaluate(config, folder / "other")
    assert not (folder / "other" / "report.json").exists()


def test_overwrite_makes_the_shards_again(runs, folder, tmp_path):
    """Runs the command of the error above, in a copy since other tests read these shards."""
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


def test_the_report_names_the_checkpoint_that_it_measured(runs, folder):
    hashes = {name: runs[name][1]["checkpoint_sha256"] for name in ("supervised", "uda")}
    assert hashes["supervised"] != hashes["uda"]
    for name, sha256 in hashes.items():
        assert scorer.load_run(folder / name).checkpoint_sha256 == sha256


def test_learning_rate_and_spikes_are_in_the_metrics(runs, folder):
    rows = read_jsonl(runs["uda"][0] / "metrics.jsonl")
    config = smoke(folder, "uda")
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


@pytest.mark.parametrize("side", ["labelled", "unlabelled"])
def test_a_batch_larger_than_its_pool_is_refused(runs, folder, side):
    rows = {"labelled": 20, "unlabelled": 90}[side]
    config = smoke(folder, "uda", **{f"train.{side}_batch": 8 * (rows // 8 + 1)})
    with pytest.raises(BadInput, match=f"train.{side}_batch = .* than the {rows} {side} rows"):
        train_run.train_and_evaluate(config, folder / "large")
    assert not (folder / "large" / "config.json").exists()


def test_a_diverged_run_names_steps_and_rows(runs, folder, monkeypatch):
    """The first update takes the weights out of float32: every later step is skipped, and the
    third of them, which is not the last of its row of metrics, ends the run."""
    monkeypatch.setitem(ranges.RANGES, "optim.lr", "[0, 1e30]")
    changes = {
        "optim.lr": 1e30,
        "optim.clip_norm": 0.0,
        "train.max_nonfinite_steps": 3,
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
    batches = pipeline.train_batches(
        prepared.labelled,
        prepared.unlabelled,
        prepared.strong,
        seed=config.seed,
        steps=6,
        labelled_batch=8,
        unlabelled_batch=8,
        buckets=tuple(config.data.buckets),
        strata=inference.labels_of(prepared.labelled),
        pad_id=prepared.tokenizer.pad_id,
    )
    for step, batch in enumerate(batches, 1):
        if str(step) in rows:
            ids = [prepared.labelled[i]["id"] for i in batch["labelled"]["index"]]
            ids += [prepared.unlabelled[i]["id"] for i in batch["index"]]
            assert rows[str(step)] == ids


def test_bfloat16_is_compared_with_float32_on_dev(folder):
    changes = {"model.dtype": "bfloat16", "train.float32_check": True, "train.steps": 2}
    config = smoke(folder, "supervised", **changes)
    train_run.train_and_evaluate(config, folder / "bfloat16")
    rows = read_jsonl(folder / "bfloat16" / "metrics.jsonl")
    assert [row["step"] for row in rows if "bfloat16/score" in row] == [2]
    assert 0 < rows[-1]["bfloat16/score"] < 0.02 and abs(rows[-1]["bfloat16/loss"]) < 0.02


def test_ema_and_raw_weights_are_both_reported(folder):
    changes = {"optim.ema_decay": 0.5, "data.calibration": 20}
    config = smoke(folder, "supervised", **changes)
    result = train_run.train_and_evaluate(config, folder / "ema")
    assert result["weights"] == "ema"
    assert result["test"].keys() == result["dev"].keys() == {"raw", "ema"}
    rows = [read_jsonl(folder / "ema" / f"{name}.jsonl") for name in ("calibration", "predictions")]
    assert [len(lines) for lines in rows] == [20, 30]
    assert all(line.keys() == {"id", "group", "label", "raw", "ema"} for line in sum(rows, []))
    assert not {line["id"] for line in rows[0]} & {line["id"] for line in rows[1]}


def test_too_long_for_the_encoder(folder):
    config = smoke(folder, "supervised", **{"data.max_length": 600, "data.buckets": (600,)})
    with pytest.raises(BadInput, match="600 is more than the 64 positions"):
        config.data.dir = str(folder / "data600")
        train_run.train_and_evaluate(config, folder / "long")


def test_report_compares_a_run_with_its_twin(runs, capsys):
    (uda, _), (twin, _) = runs["uda"], runs["supervised"]
    report_command.show([str(uda), str(twin)])
    printed = capsys.readouterr().out
    assert (uda / "report" / "report.md").read_text() in printed
    assert "\nunlabelled data: " in printed
    assert "F1 harmful" in printed and "30 test rows" in printed


def test_report_of_an_unfinished_run(tmp_path):
    with pytest.raises(BadInput, match="no report.json"):
        report_command.show([str(tmp_path)])
