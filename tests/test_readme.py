"""The tables in the READMEs are what the committed run records give."""

import importlib.util
import re
from pathlib import Path

from ssl_guard import report

RECORDS = Path("experiments/first_light")


def table_in(path):
    return re.search(r"<!-- table.*? -->\n(.*?)<!-- /table -->", path.read_text(), re.S)[1].strip()


def test_the_first_table_comes_from_the_run_records():
    run, twin = (report.load(RECORDS / name) for name in ("uda-0", "supervised-0"))
    expected = report.summary(run, twin, report.compare(run, twin))
    assert table_in(Path("README.md")) == expected.strip()


def test_the_table_over_seeds_comes_from_the_run_records():
    spec = importlib.util.spec_from_file_location("sweep", RECORDS / "sweep.py")
    sweep = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sweep)
    assert table_in(RECORDS / "README.md") == sweep.table().strip()


def test_the_table_of_speeds_comes_from_its_records(monkeypatch):
    folder = Path("experiments/speed")
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("encoders", folder / "encoders.py")
    encoders = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(encoders)
    assert table_in(folder / "README.md") == encoders.table().strip()
