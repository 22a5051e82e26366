"""Cells and tables of experiments/, and the size of their records."""

import importlib
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from experiments import sweep, tables
from experiments.gpu import cells as gpu
from experiments.ladder import cells as ladder
from experiments.tables import seeds_table
from experiments.transfer import cells as transfer
from ssl_guard import config as configs
from ssl_guard.errors import BadInput
from ssl_guard.evaluation import teach
from ssl_guard.report import records
from ssl_guard.train import run as train_run
from tests.report.test_records import workdir_of
from tests.report.test_report import cells, run
from tests.tiny import smoke


def test_seeds_table_means_spreads_and_gains():
    runs = {
        name: [run(name, s, noise) for s in (0, 1, 2)]
        for name, noise in (("twin", 0.6), ("ours", 0.3))
    }
    title, _, *rows = seeds_table(runs, baseline="twin").splitlines()
    assert cells(title)[-3:] == ["F1 gain [95%]", "better", "shadow alarm"]
    rows = {cells(row)[0]: cells(row) for row in rows}
    assert list(rows) == ["ours", "twin"]  # best F1 first
    f1 = {
        name: np.array([r["report"]["test"]["raw"]["f1"]["value"] for r in part])
        for name, part in runs.items()
    }
    for name, values in f1.items():
        assert rows[name][1] == "3"
        expected = f"{100 * values.mean():.1f} ± {100 * values.std(ddof=1):.1f}"
        assert rows[name][2] == expected
    gain = f1["ours"] - f1["twin"]
    value, low, high = rows["ours"][-3].replace("[", "").replace("]", "").replace(",", "").split()
    assert value == f"{100 * gain.mean():+.1f}"
    assert float(low) < float(value) < float(high)
    assert rows["ours"][-2:] == [f"{(gain > 0).sum()} of 3", "1 of 3"]
    assert rows["twin"][-3:] == ["-", "-", "-"]


def test_a_gain_needs_the_twin_of_every_seed():
    runs = {"twin": [run("twin", 0, 0.6)], "ours": [run("ours", s, 0.3) for s in (0, 1)]}
    ours = next(r for r in seeds_table(runs, baseline="twin").splitlines() if "ours" in r)
    assert cells(ours)[-3:] == ["-", "-", "1 of 2"]


def test_the_gain_of_a_method_on_itself_is_zero():
    runs = {"twin": [run("twin", 0, 0.6)], "ours": [run("twin", 0, 0.6)]}
    ours = next(r for r in seeds_table(runs, baseline="twin").splitlines() if "ours" in r)
    assert cells(ours)[-3] == "+0.0 [+0.0, +0.0]"


def test_a_table_refuses_other_test_rows():
    runs = {"twin": [run("twin", 0, 0.6)], "ours": [run("ours", 0, 0.3)]}
    runs["ours"][0]["predictions"].pop()
    with pytest.raises(BadInput, match="differ in split .the test rows"):
        seeds_table(runs, baseline="twin")


def test_a_method_by_another_name_is_its_own_row():
    one, other = run("ours", 0, 0.3), run("ours", 1, 0.3)
    table = seeds_table({"long": [one], "short": [other]}, baseline="short")
    assert {cells(line)[0] for line in table.splitlines()[2:]} == {"long", "short"}


def test_an_oracle_is_marked():
    runs = {"twin": [run("twin", 0, 0.6)], "ours": [run("ours", 0, 0.3)]}
    runs["ours"][0]["report"]["oracle"] = True
    table = seeds_table(runs, baseline="twin")
    assert {cells(line)[0] for line in table.splitlines()[2:]} == {"ours (oracle)", "twin"}


def test_a_cell_with_a_record_does_not_run_again(tmp_path, monkeypatch):
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "HERE", tmp_path / "experiments")
    monkeypatch.setattr(sweep.subprocess, "run", lambda command, check: started.append(command[2:]))
    workdir_of(tmp_path / "runs/made/uda-0")
    (tmp_path / "set.json").write_text('{"rows": 3}')
    cell = sweep.Cell(
        "uda",
        {"seed": 0},
        before=[("augment", "--config=a.py")],
        after=[("evaluate", "--workdir={workdir}")],
        more={"set": "*.json"},
    )
    sweep.run("made", "uda-0", cell)
    at = "--workdir=runs/made/uda-0"
    assert started == [
        ["ssl_guard", "augment", "--config=a.py"],
        ["ssl_guard", "train", "--config=configs/uda.py", at, "--config.seed=0"],
        ["ssl_guard", "evaluate", at],
    ]
    sweep.run("made", "uda-0", cell)
    assert len(started) == 3
    (tmp_path / "experiments/made/uda-0.json").unlink()
    sweep.run("made", "uda-0", cell)
    assert [command[1] for command in started[3:]] == ["augment", "train"]


def config_of(cell):
    """The config of a cell, with the settings as flags set them."""
    config = importlib.import_module(f"configs.{cell.config}").get_config()
    config.update_from_flattened_dict(dict(cell.settings))
    return config


@pytest.mark.parametrize("name", [name for name in gpu.CELLS if name.startswith("smoke/")])
def test_smoke_cells_are_full_cells_cut_down(name):
    full, small = gpu.CELLS[name.replace("smoke/", "full/")], gpu.CELLS[name]
    assert full.config == small.config
    expected = configs.as_json(configs.smoke(config_of(full)))
    found = configs.as_json(config_of(small))
    configs.check(config_of(full))
    configs.check(config_of(small))
    differing = {key for key in found if found[key] != expected[key]}
    folders = "monitor.baseline_run", "data.soft_labels"
    assert differing <= {"data.num_shapes", *folders}
    for key in folders:
        assert found[key] == expected[key].replace("/full/", "/smoke/")


def parsed(*arguments):
    """The flags of a command, read as the command does."""
    values, argv = flags.FlagValues(), ["command", *arguments]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    for name in ("workdir", "to"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    flags.DEFINE_list("teachers", [], "", flag_values=values)
    with warnings.catch_warnings(action="ignore"):  # ml_collections loads files the old way
        values(argv)
    return values


STUDENTS = {
    f"{folder}/{name}": cell
    for folder, module in (("gpu", gpu), ("ladder", ladder))
    for name, cell in module.CELLS.items()
    if cell.before
}


@pytest.mark.parametrize("name", [name for name in STUDENTS if name.endswith(("0", "7"))])
def test_a_students_teachers_are_trained_on_its_rows_and_asked(name):
    cell = STUDENTS[name]
    student = configs.as_json(parsed(*flags_of(cell)).config)
    *trained, (command, *last) = cell.before
    asked = parsed(*last)
    assert command == "teach" and {command for command, *_ in trained} <= {"train"}
    assert asked.to == student["data.soft_labels"]
    assert configs.as_json(asked.config) | {"data.soft_labels": asked.to} == student
    assert cell.more == {"soft_labels": f"{asked.to}/manifest.json"}
    runs = {one.workdir: one.config for one in (parsed(*rest) for _, *rest in trained)}
    assert list(runs) == [name for name in asked.teachers if not name.startswith("states:")]
    for workdir, config in runs.items():
        configs.check(config)
        teacher = configs.as_json(config)
        same = [key for key in student if key.startswith(("data.", "model.", "seed"))]
        differing = {key for key in same if teacher[key] != student[key]}
        assert differing <= {"data.soft_labels", "data.packing"} and not teacher["data.soft_labels"]
        experiment, _, arm = workdir.removeprefix("runs/").partition("/")
        own = importlib.import_module(f"experiments.{experiment}.cells").CELLS.get(arm)
        assert own is None or teacher == configs.as_json(parsed(*flags_of(own)).config)


def flags_of(cell):
    _, *found = sweep.training(cell, "x")
    return found


def test_students_have_the_teachers_of_their_protocol():
    student, llm = (STUDENTS[f"ladder/{name}-7"].before for name in ("student", "llm_student"))
    assert parsed(*student[-1][1:]).teachers == [
        "runs/ladder/supervised-7",
        "runs/ladder/ensemble-7",
    ]
    assert parsed(*llm[-1][1:]).teachers == ["states:data/llm_0.5b.npz"] and len(llm) == 1
    for before in (student, STUDENTS["gpu/full/self_training-0"].before):
        ensemble = next(
            c for _, *rest in before if (c := parsed(*rest).config).algorithm == "graph"
        )
        assert ensemble.graph.alpha == 0 and ensemble.graph.scores == ("tfidf", "lsa", "encoder")


def test_the_smoke_cells_train_and_fill_the_table(tmp_path, monkeypatch):
    kept = (
        *("train.", "optim.", "monitor.", "graph.", "teach.", "augment.name", "augment.ops"),
        *("data.packing", "data.soft_labels", "model.dtype", "seed"),
    )

    def program(workdir, command, *arguments):
        found = parsed(*(part.replace("{workdir}", str(workdir)) for part in arguments))
        own = {k: v for k, v in configs.leaves(found.config).items() if k.startswith(kept)}
        config = smoke(tmp_path, found.config.algorithm, **own)
        if command == "teach":
            teach.teach(config, found.teachers, found.to)
        else:
            train_run.train_and_evaluate(config, found.workdir)

    (tmp_path / "configs").symlink_to(Path("configs").resolve())
    monkeypatch.chdir(tmp_path)
    for module in (sweep, tables):
        monkeypatch.setattr(module, "HERE", tmp_path / "experiments")
    monkeypatch.setattr(sweep, "_program", program)
    assert gpu.table() == ""
    for name, cell in gpu.CELLS.items():
        if name.startswith("smoke/"):
            sweep.run("gpu", name, cell)
    assert gpu.table() == ""  # of the full cells
    labels = records.read(f"experiments/gpu/smoke/{gpu.RECIPE}-0")["more"]["soft_labels"]
    names = [teacher["name"] for teacher in labels["results"]["teachers"]]
    assert names == ["runs/gpu/smoke/supervised-0", "runs/gpu/smoke/ensemble-0"]
    Path("experiments/gpu/smoke").rename("experiments/gpu/full")
    _, _, *rows = gpu.table().splitlines()
    assert {cells(row)[0] for row in rows} == {gpu.BASELINE, gpu.RECIPE}


def test_false_positives_on_other_traffic_at_the_same_recall(monkeypatch):
    rows = [("wildguard_test", 1, s) for s in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)]
    rows += [("wildguard_test", 0, s) for s in (0.55, 0.45, 0.1, 0.2)]
    rows += [("toxicchat", 1, 0.95), ("toxicchat", 1, 0.3), ("toxicchat", 0, 0.5)]
    rows += [("openai_mod", 1, 0.6), ("openai_mod", 0, 0.75)]
    rows += [(source, 0, s) for source, s in zip(("dolly", "arena_hard"), (0.52, 0.1), strict=True)]
    test = SimpleNamespace(
        rows=[{"id": f"p-{source}-{number}"} for number, (source, *_) in enumerate(rows)],
        truth=np.array([label for _, label, _ in rows]),
        probabilities=np.array([score for *_, score in rows]),
    )
    monkeypatch.setattr(transfer.results, "own_test", lambda run: test)
    run = {"report": {"weights": "ema", "dev": {"ema": {"threshold": 0.7}}}}
    found = transfer.measure(run)
    assert {name: value for name, value in found.items() if name.endswith(("recall", "FPR"))} == {
        "wildguard: recall": 0.5, "wildguard: FPR": 0.0,
        "toxicchat: recall": 0.5, "toxicchat: FPR": 0.0,
        "openai_mod: recall": 0.0, "openai_mod: FPR": 1.0, "benign: FPR": 0.0,
    }  # fmt: skip
    # 80% of six scores are those of at least 0.5.
    equal = {name.split(":")[0]: value for name, value in found.items() if "at 80%" in name}
    assert equal == {"wildguard": 0.25, "toxicchat": 1.0, "openai_mod": 1.0, "benign": 0.5}
    assert found["toxicchat: AUPRC"] == pytest.approx((1 + 2 / 3) / 2)


def test_product_changes_the_last_axis_fastest():
    found = [(cell["a"], cell["b"]) for cell in sweep.product(a="xy", b=(1, 2))]
    assert found == [("x", 1), ("x", 2), ("y", 1), ("y", 2)]


@pytest.mark.parametrize("experiment", sweep.EXPERIMENTS)
def test_every_record_is_of_a_cell_and_every_config_is_there(experiment):
    found = importlib.import_module(f"experiments.{experiment}.cells").CELLS
    folder = Path("experiments", experiment)
    records = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.json")}
    assert records or "There are no records yet" in (folder / "README.md").read_text()
    assert records <= set(found)
    assert all(Path(f"configs/{cell.config}.py").exists() for cell in found.values())


def test_the_test_rows_of_records_are_those_that_there_are():
    named = {
        path.with_name(f"rows-{sha256[:12]}.parquet")
        for path in Path("experiments").glob("*/**/*.json")
        if (sha256 := json.loads(path.read_text()).get("rows"))
        and path.with_suffix(".parquet").exists()
    }
    assert named and named == set(Path("experiments").rglob("rows-*.parquet"))


def test_the_folder_is_small():
    files = [path for path in Path("experiments").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files if path.suffix != ".pyc") < 3e6
