"""Every config as a whole smoke run on eight simulated devices: train, resume, compare, report."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from ssl_guard import algorithms
from ssl_guard.evaluation import teach
from ssl_guard.report import build
from ssl_guard.runtime.files import read_jsonl
from ssl_guard.train import run as train_run
from tests.tiny import smoke

# mlm trains an encoder, not a classifier: test_masked_lm.py
CONFIGS = sorted({path.stem for path in Path("configs").glob("*.py")} - {"mlm"})
LABELS_ALONE = (
    "supervised",
    "supervised_full",
    "logistic_regression",
    "tfidf_logistic",
    "setfit",
    "tmix",
)


pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(scope="module")
def runs(folder):
    """Workdir and report of the run that others are compared with."""
    return {
        name: (folder / name, train_run.train_and_evaluate(smoke(folder, name), folder / name))
        for name in ("supervised",)
    }


def check_files(name, workdir, result, *, unlabelled):
    """Asserts that report and metrics are whole and count the rows that they should."""
    assert json.loads((workdir / "report.json").read_text()) == result
    scores = result["test"][result["weights"]]
    for metric in ("f1", "auprc", "recall_at_1_fpr", "ece"):
        assert 0 <= scores[metric]["low"] <= scores[metric]["high"] <= 1
    rows = read_jsonl(workdir / "metrics.jsonl")
    fitted = result["algorithm"] in algorithms.CLOSED_FORM
    assert [row["step"] for row in rows] == ([0] if fitted else [1, 2, 3, 4])
    assert all(np.isfinite(value).all() for row in rows for value in row.values())
    assert ("pseudo/mask_rate" in rows[-1]) == (name not in LABELS_ALONE and not fitted)
    assert result["data"]["rows"] == {
        "labelled": 20,
        "unlabelled": unlabelled,
        "dev": 20,
        "test": 30,
    }
    assert result["data"]["labels_used"] == (20 + unlabelled if name == "supervised_full" else 20)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_trains_and_reports(runs, folder, name):
    workdir = folder / name
    changes = {}
    if name == "self_training":
        train_run.train_and_evaluate(smoke(folder, "graph"), folder / "graph")
        teach.teach(smoke(folder, name), [str(folder / "graph")], folder / "soft_labels")
        changes = {"data.soft_labels": str(folder / "soft_labels")}
    result = train_run.train_and_evaluate(smoke(folder, name, **changes), workdir)
    check_files(name, workdir, result, unlabelled=90)
    if name in LABELS_ALONE:
        files = {"config.json", "metrics.jsonl", "predictions.jsonl", "report.json"}
        assert files <= {path.name for path in workdir.iterdir()}
        assert train_run.train_and_evaluate(smoke(folder, name), workdir) == result
        if name != "supervised":
            pair = [str(workdir), str(runs["supervised"][0])]
            text = build.write(workdir / "report", pair, against=None, published=None)
            assert f"\n{name} instead of supervised: " in text and "unlabelled data:" not in text
            labels = 110 if name == "supervised_full" else 20
            assert re.search(rf"\n\| {name} +\| {labels} ", text)


@pytest.mark.parametrize("name", ["supervised", "uda"])
def test_the_pretrained_model_and_the_real_corpus(tmp_path, name):
    config = importlib.import_module(f"configs.{name}").get_config("smoke")
    config.data.dir = str(tmp_path / "data")
    result = train_run.train_and_evaluate(config, tmp_path / "run")
    check_files(name, tmp_path / "run", result, unlabelled=995)
