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
    {"step": 20, "pseudo/margins_1": [0.25, 0.75], "alarm/one_class": 0.0},
]


def workdir_of(folder):
    """A finished run folder of UDA with another seed than the default and one evaluation."""
    config = configs.as_json(configs.default()) | {"algorithm": "uda", "seed": 5, "uda.gone": 0.5}
    folder.mkdir(parents=True)
    for name, value in {
        "config": config,
        "report": {"algorithm": "uda", "seed": 5},
        "policy": {"thresholds": {}},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    for name, rows in {"predictions": PREDICTIONS, "metrics": METRICS}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "evaluations").mkdir()
    evaluation = {"cohort": {"corpus": "made"}, "curves": {"reliability": []}}
    (folder / "evaluations/made.given-0.5.json").write_text(json.dumps(evaluation))
    return folder


@pytest.mark.parametrize("name", ["cell-0", "cell-0.json", "cell-0.5"])
def test_a_record_is_read_as_its_folder(tmp_path, name):
    folder = workdir_of(tmp_path / "run")
    records.pack(folder, tmp_path / name)
    record, live = results.load(tmp_path / name), results.load(folder)
    for key in ("report", "policy", "predictions"):
        assert record[key] == live[key]
    kept = [{k: v for k, v in row.items() if k != "time/seconds"} for row in live["metrics"]]
    assert record["metrics"] == kept
    assert record["config"] == json.loads((folder / "config.json").read_text())
    assert record["workdir"] == tmp_path / name.removesuffix(".json")
    assert record["evaluations"] == {"made.given-0.5": {"cohort": {"corpus": "made"}}}


def test_a_record_has_the_difference_to_the_default_config(tmp_path):
    records.pack(workdir_of(tmp_path / "run"), tmp_path / "cell")
    config = json.loads((tmp_path / "cell.json").read_text())["config"]
    assert config == {"algorithm": "uda", "seed": 5, "uda.gone": 0.5}


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
    (tmp_path / "cell.parquet").unlink()
    with pytest.raises(BadInput, match="no predictions"):
        results.load(tmp_path / "cell")
