"""The command: a run's calibration rows, or a file's, become policy.json; never dev or test."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from configs import tfidf_logistic
from ssl_guard.commands import calibrate
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import calibrators, operating_point, prepare
from ssl_guard.evaluation.policy import make_policy
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.train import run as train_run

SETTINGS = {"target_fpr": 0.1, "target_recall": 0.8, "confidence": 0.9, "prevalence": 0.05}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run without an encoder, with calibration rows; its workdir and config."""
    folder = tmp_path_factory.mktemp("threshold")
    config = tfidf_logistic.get_config("smoke")
    config.data.dir = str(folder / "data")
    config.data.labelled, config.data.calibration = 60, 240
    train_run.train_and_evaluate(config, folder / "run")
    return folder / "run", config


def write_rows(path, examples, **more):
    rows = [{"id": e.id, "prompt": e.prompt, "response": e.response, **more} for e in examples]
    for row, example in zip(rows, examples, strict=True):
        if "label" not in row and example.label is not None:
            row["label"] = example.label
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sides(config):
    """Examples of the frozen split by side."""
    return prepare.read_split(config).rows


def test_the_policy_of_a_runs_own_rows(run):
    workdir, config = run
    policy = make_policy(workdir, **SETTINGS)
    assert json.loads((workdir / "policy.json").read_text()) == policy
    lines = read_jsonl(workdir / "calibration.jsonl")
    held = sides(config)
    assert [line["id"] for line in lines] == [e.id for e in held["calibration"]]
    assert [line["label"] for line in lines] == [e.label for e in held["calibration"]]
    assert all(line.keys() == {"id", "group", "label", "raw"} for line in lines)

    columns = {key: np.array([line[key] for line in lines]) for key in ("group", "label", "raw")}
    kept = calibrators.independent(columns["group"], columns["label"], [r["id"] for r in lines])
    expected = operating_point.policy(columns["label"][kept], columns["raw"][kept], **SETTINGS)
    assert {key: policy[key] for key in expected} == expected
    pairs = {(line["group"], line["label"]) for line in lines}
    assert policy["rows"] == len(pairs) < policy["rows_read"] == 240
    report = json.loads((workdir / "report.json").read_text())
    assert policy["run"]["split_sha256"] == report["provenance"]["split_sha256"]
    assert report["data"]["rows"]["calibration"] == 240


def test_a_file_of_the_same_rows_gives_the_same_thresholds(run, tmp_path):
    """Scored from the workdir as they were at the end of training, in whatever order."""
    workdir, config = run
    own = make_policy(workdir, **SETTINGS)
    rows = sides(config)
    again = rows["calibration"][::-1]
    file = write_rows(tmp_path / "mine.jsonl", again + rows["test"] + rows["labelled"][:7])
    theirs = make_policy(workdir, file, **SETTINGS)
    assert theirs["left_out"] == len(rows["test"]) + 7 and theirs["data"] == "mine.jsonl"
    assert theirs["rows_read"] == 240 + theirs["left_out"]
    told = {"data", "left_out", "rows_read"}
    same = [{k: v for k, v in policy.items() if k not in told} for policy in (own, theirs)]
    assert same[0] == same[1]


def test_the_data_hash_is_of_labels_and_scores(run, tmp_path):
    workdir, _ = run
    copy = shutil.copytree(workdir, tmp_path / "copy")
    before = make_policy(copy, **SETTINGS)
    lines = read_jsonl(copy / "calibration.jsonl")
    for line in lines:
        line["raw"] = round(line["raw"] / 2, 7)
    (copy / "calibration.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    after = make_policy(copy, **SETTINGS)
    assert len(before["data_sha256"]) == 64 and before["data_sha256"] != after["data_sha256"]


def test_without_calibration_rows_neither_dev_nor_test_is_used(run, tmp_path):
    copy = shutil.copytree(run[0], tmp_path / "copy")
    (copy / "calibration.jsonl").unlink()
    (copy / "policy.json").unlink(missing_ok=True)
    with pytest.raises(BadInput, match=r"--config.data.calibration=500.*dev rows chose the step"):
        make_policy(copy, **SETTINGS)
    assert not (copy / "policy.json").exists()


@pytest.mark.parametrize("side", ["unlabelled", "dev"])
def test_rows_of_the_run_are_refused(run, tmp_path, side):
    """Under other ids and with other punctuation: their prompts are what the run has seen."""
    workdir, config = run
    file = tmp_path / "seen.jsonl"
    write_rows(file, sides(config)[side][:40])
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row | {"id": f"new{i}", "prompt": row["prompt"] + " !"} for i, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadInput, match="near-duplicate of a row of the run"):
        make_policy(workdir, str(file), **SETTINGS)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prompt": "a", "response": "b"}], "no row with a label"),
        (
            [{"text": "a", "response": "b", "label": 1}],
            r"ROWS: .*no column 'prompt'.*\?prompt=COLUMN",
        ),
    ],
)
def test_unusable_files(run, tmp_path, rows, words):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BadInput, match=words):
        make_policy(run[0], str(file), **SETTINGS)


def test_an_unfinished_run(tmp_path):
    with pytest.raises(BadInput, match="holds no run: train one"):
        make_policy(tmp_path, **SETTINGS)


def test_the_command_prints_what_it_writes(run):
    """And a promise that the rows cannot keep leaves the policy as it is."""
    workdir, _ = run
    command = [sys.executable, "-m", "ssl_guard", "calibrate", f"--workdir={workdir}"]
    flags = ["--target-recall=0.8", "--confidence=0.9", "--prevalence=0.05", "--calibrator=none"]
    flags += ["--cost-false-positive=1", "--cost-false-negative=20"]
    done = subprocess.run([*command, *flags, "--target-fpr=0.1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    policy = json.loads((workdir / "policy.json").read_text())
    assert done.stdout == f"{calibrate.table(policy)}\npolicy: {workdir / 'policy.json'}\n"
    strict = policy["thresholds"]["strict"]
    row = re.search(r"\| strict .*", done.stdout)[0]
    assert f"| {strict['threshold']:.4f} " in row and "recall >= 0.8 with 0.9 confidence" in row
    assert f"{100 * strict['measured']['fpr']['value']:.1f} [" in row
    assert "least cost at 0.05 harmful, 1 to 20" in done.stdout
    assert "5% harmful" in done.stdout and "Calibrator: none" in done.stdout

    with pytest.raises(BadInput, match="needs 2302 safe rows"):
        make_policy(workdir, **SETTINGS | {"target_fpr": 0.001})
    assert json.loads((workdir / "policy.json").read_text()) == policy


def test_the_command_takes_the_cost_of_each_error(run):
    workdir, _ = run
    command = [sys.executable, "-m", "ssl_guard", "calibrate", f"--workdir={workdir}"]
    flags = ["--target_fpr=0.1", "--target_recall=0.8", "--confidence=0.9", "--prevalence=0.05"]
    costs = ["--cost_false_positive=1", "--cost_false_negative=20"]
    subprocess.run([*command, *flags, *costs], capture_output=True, check=True)
    found = json.loads((workdir / "policy.json").read_text())
    assert found == make_policy(workdir, **SETTINGS, costs=(1, 20))
    assert found != make_policy(workdir, **SETTINGS, costs=(20, 1))
