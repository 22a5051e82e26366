"""The tables in the READMEs are what the committed run records give."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from experiments.ladder import cells as ladder
from ssl_guard.data import catalogue
from ssl_guard.report import build, comparison, results, writers

RECORDS = Path("experiments/first_light")
FIRST = ("self_training-0", "supervised-0", "graph-0")  # runs of the first table


def table_in(path, of=""):
    """The table between the marks, the first one or that of a command that holds `of`."""
    marks = rf"<!-- table[^>]*{re.escape(of)}[^>]*-->\n(.*?)<!-- /table -->"
    return re.search(marks, path.read_text(), re.S)[1].strip()


def test_the_first_table_comes_from_the_run_records(tmp_path):
    records = [str(RECORDS / name) for name in FIRST]
    expected = build.write(tmp_path, records, against="supervised", published=None)
    assert table_in(Path("README.md")) == expected.strip()


@pytest.mark.parametrize(
    "pair",
    [
        "llm_1.5b_student less supervised",
        "llm_1.5b_student less supervised_32",
        "llm_student less supervised",
        "student less supervised",
        "oracle less supervised",
    ],
)
def test_the_gains_on_the_first_page_are_the_ladders(pair):
    _, gains = ladder.rows("confirming")
    (row,) = [row for row in gains if row[0] == pair]
    text = " ".join(Path("README.md").read_text().split())
    assert f"{row[1]} AUPRC and {row[2]} F1" in text
    if pair == "llm_1.5b_student less supervised":
        auprc, f1 = (cell.split()[0].removeprefix("+") for cell in row[1:3])
        assert f"[{auprc} points of AUPRC and {f1} of F1]" in text


def test_a_table_of_non_commercial_rows_says_so():
    found = [results.own_test(results.load(RECORDS / n)) for n in FIRST]
    found[0].run["report"]["data"]["licence"] = "CC-BY-NC-4.0 and MIT"
    parts = [(found, comparison.summarise(found, "supervised"))]
    last = writers.to_markdown(parts, [], "supervised").splitlines()[-1]
    assert last == "licence of the rows: CC-BY-NC-4.0 and MIT, which forbids commercial use"


def test_the_corpora_are_those_that_there_are():
    assert table_in(Path("README.md"), of="ssl_guard data list") == catalogue.table(
        "", status=False
    )


@pytest.mark.parametrize(
    "experiment",
    [
        "first_light",
        "methods",
        "augmentation",
        "operating_point",
        "evaluation",
        "budget",
        "ladder",
        "gpu",
    ],
)
def test_the_tables_of_the_sweeps_come_from_their_records(experiment):
    cells = importlib.import_module(f"experiments.{experiment}.cells")
    path = Path("experiments", experiment, "README.md")
    of = f"experiments.sweep {experiment} --table"
    assert table_in(path, of=of) == cells.table().strip()


@pytest.mark.parametrize(
    "script",
    [
        "faults/kill_matrix.py",
        "neighbours/measure.py",
        "speed/encoders.py",
        "speed/deberta.py",
        "speed/bookkeeping.py",
        "speed/frozen.py",
        "speed/padding.py",
        "speed/pipeline.py",
        "speed/pool.py",
        "speed/scaling.py",
        "speed/augmentation.py",
        "speed/llm_client.py",
    ],
)
def test_the_tables_of_the_experiments_come_from_their_records(script, monkeypatch):
    path = Path("experiments") / script
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert table_in(path.parent / "README.md", of=f"{script} --table") == module.table().strip()


@pytest.mark.parametrize(
    ("folder", "command"),
    [
        ("methods", "experiments.sweep methods"),
        ("faults", "faults/kill_matrix.py"),
        ("speed", "speed/scaling.py"),
    ],
)
def test_tables_in_the_readme_are_those_of_the_experiments(folder, command):
    there = Path("experiments", folder, "README.md")
    assert table_in(Path("README.md"), of=command) == table_in(there, of=command)
