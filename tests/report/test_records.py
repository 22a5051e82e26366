"""Records give what the run folder held."""

import json

import pytest

from ssl_guard import config as configs
from ssl_guard.errors import BadInput
from ssl_guard.report import records, results

PREDICTIONS = [
    {"id": "a", "group": 0, "label": 1, "raw": 0.9907713, "ema": 1 / 3},
    {"id": "b", "group": 0, "label": 0, "raw": 0.0000001, "ema": 0.25},
    {"id": "c", "group": 7, "label": 0, "raw": 1.0, "ema": 0.0},
]
METRICS = [
    {"step": 10, "loss/supervised": 0.6938898746783917, "time/seconds": 3.0},
    {
        "step": 20,
        "pseudo/margins_1": [0.33333333, 0.75, 0.0],
        "loss/total": 0.5,
        "alarm/one_class": 0.0,
    },
    {
        "step": 123456,
        "loss/supervised": 1234567.0,
        "dev/raw/f1": 1.2345678e-07,
        "pseudo/mask_rate": 0.5,
    },
    {"dev/raw/f1_at_half": 0.5, "pseudo/mask_rate_1": 0.5, "step": 123457},
]
KEPT = [  # of those that tables and plots read; five digits
    {"step": 10, "loss/supervised": 0.69389},
    {"step": 20, "pseudo/margins_1": [0.33333, 0.75, 0], "alarm/one_class": 0},
    {
        "step": 123456,
        "loss/supervised": 1234600,
        "dev/raw/f1": 1.2346e-07,
        "pseudo/mask_rate": 0.5,
    },
    {"step": 123457},
]
MADE_BY = {"commit": "c0", "max_length": 64}


def workdir_of(folder):
    """A finished run folder of UDA with another seed than the default and one evaluation."""
    config = configs.as_json(configs.default()) | {"algorithm": "uda", "seed": 5, "uda.gone": 0.5}
    folder.mkdir(parents=True)
    for name, value in {
        "config": config,
        "report": {
            "algorithm": "uda",
            "seed": 5,
            "observatory": {"braked_steps": 0, "label_next": [{"id": "u"}]},
            "provenance": MADE_BY,
        },
        "policy": {"thresholds": {}},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    for name, rows in {"predictions": PREDICTIONS, "metrics": METRICS}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "evaluations").mkdir()
    evaluation = {
        "cohort": {"corpus": "made"},
        "curves": {"reliability": []},
        "slices": {"group": {}},
        "provenance": MADE_BY | {"commit": "c1"},
    }
    (folder / "evaluations/made.given-0.5.json").write_text(json.dumps(evaluation))
    return folder


@pytest.mark.parametrize("name", ["cell-0", "cell-0.json", "cell-0.5"])
def test_a_record_is_read_as_its_folder(tmp_path, name):
    folder = workdir_of(tmp_path / "run")
    records.pack(folder, tmp_path / name)
    record, live = results.load(tmp_path / name), results.load(folder)
    live["report"]["observatory"].pop("label_next")
    for key in ("report", "policy", "predictions"):
        assert record[key] == live[key]
    assert record["metrics"] == KEPT
    assert record["config"] == json.loads((folder / "config.json").read_text())
    assert record["workdir"] == tmp_path / name.removesuffix(".json")
    evaluation = {"cohort": {"corpus": "made"}, "provenance": {"commit": "c1"}}
    assert record["evaluations"] == {"made.given-0.5": evaluation}


def test_a_record_has_the_difference_to_the_default_config(tmp_path):
    records.pack(workdir_of(tmp_path / "run"), tmp_path / "cell")
    config = json.loads((tmp_path / "cell.json").read_text())["config"]
    assert config == {"algorithm": "uda", "seed": 5, "uda.gone": 0.5}


def rows_file(folder):
    (found,) = folder.glob("rows-*.parquet")
    return found


def test_records_of_the_same_rows_share_their_file(tmp_path):
    folder = workdir_of(tmp_path / "run")
    records.pack(folder, tmp_path / "cell-0")
    before = rows_file(tmp_path).stat()
    scores = [row | {"raw": 0.5} for row in PREDICTIONS]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in scores))
    records.pack(folder, tmp_path / "cell-1")
    assert rows_file(tmp_path).stat() == before
    assert records.read(tmp_path / "cell-0")["predictions"] == PREDICTIONS
    assert records.read(tmp_path / "cell-1")["predictions"] == scores


@pytest.mark.parametrize(("key", "value"), [("id", "d"), ("group", 1), ("label", 0)])
def test_other_rows_have_another_file(tmp_path, key, value):
    folder = workdir_of(tmp_path / "run")
    records.pack(folder, tmp_path / "cell-0")
    changed = [PREDICTIONS[0] | {key: value}, *PREDICTIONS[1:]]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    records.pack(folder, tmp_path / "cell-1")
    assert len(list(tmp_path.glob("rows-*.parquet"))) == 2
    assert records.read(tmp_path / "cell-0")["predictions"] == PREDICTIONS
    assert records.read(tmp_path / "cell-1")["predictions"] == changed


def test_rows_of_another_run_are_refused(tmp_path):
    folder = workdir_of(tmp_path / "run")
    records.pack(folder, tmp_path / "a" / "cell")
    changed = [row | {"label": 1 - row["label"]} for row in PREDICTIONS]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
    records.pack(folder, tmp_path / "b" / "cell")
    rows_file(tmp_path / "b").replace(rows_file(tmp_path / "a"))
    with pytest.raises(BadInput, match="is incomplete"):
        results.load(tmp_path / "a" / "cell")


def test_more_files_are_kept_by_name(tmp_path):
    (tmp_path / "manifest.json").write_text('{"rows": 3}')
    records.pack(
        workdir_of(tmp_path / "run"), tmp_path / "cell", {"set": tmp_path / "manifest.json"}
    )
    assert records.read(tmp_path / "cell")["more"] == {"set": {"rows": 3}}


def test_an_unfinished_run_is_not_packed(tmp_path):
    folder = workdir_of(tmp_path / "run")
    (folder / "report.json").unlink()
    with pytest.raises(BadInput, match="no report.json"):
        records.pack(folder, tmp_path / "cell")
    assert not (tmp_path / "cell.json").exists()


def test_a_record_that_is_not_whole_is_refused(tmp_path):
    records.pack(workdir_of(tmp_path / "run"), tmp_path / "cell")
    (tmp_path / "cell.parquet").write_bytes(b"PAR1")
    with pytest.raises(BadInput, match="is incomplete"):
        results.load(tmp_path / "cell")
    records.pack(workdir_of(tmp_path / "run-1"), tmp_path / "cell")
    rows_file(tmp_path).unlink()
    with pytest.raises(BadInput, match="is incomplete"):
        results.load(tmp_path / "cell")
    (tmp_path / "cell.parquet").unlink()
    with pytest.raises(BadInput, match="no predictions"):
        results.load(tmp_path / "cell")
