"""Runs the cells of an experiment that have no record, and prints its tables.

    python -m experiments.sweep methods --corpora=DIR           # all cells without a record
    python -m experiments.sweep methods 'short/uda-*'           # cells that match a pattern
    python -m experiments.sweep methods --table                 # only the tables

An experiment is a folder with cells.py, which has CELLS, {name: Cell}, and table(); and
write_corpora(folder) if its corpora are read from DIR. The record of a cell is
<experiment>/<name>.json and .parquet (see ssl_guard.report.records). An interrupted cell resumes
from its last checkpoint and skips finished commands.
"""

import argparse
import importlib
import itertools
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

from ssl_guard.report import records

HERE = Path(__file__).parent
EXPERIMENTS = sorted(path.parent.name for path in HERE.glob("*/cells.py"))


class Cell(NamedTuple):
    """One run of an experiment.

    config: file of configs/, without .py
    settings: {dotted key: value} of the config
    before, after: commands of ssl_guard to run before and after training, with flags; {workdir}
        in a flag stands for the run folder
    more: {name: glob of a JSON file} to store in the record
    """

    config: str
    settings: Mapping[str, Any] = {}
    before: Sequence[Sequence[str]] = ()
    after: Sequence[Sequence[str]] = ()
    more: Mapping[str, str] = {}


def product(**axes: Sequence) -> Iterator[dict]:
    """Yields {axis: value} for every combination; the last axis changes fastest."""
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def overrides(settings: Mapping[str, Any]) -> list[str]:
    """Formats settings as flags of a command."""
    return [f"--config.{key}={value}" for key, value in settings.items()]


def training(cell: Cell, workdir: str) -> tuple[str, ...]:
    """Returns the command that trains a cell's run, or resumes it, with flags."""
    config, to = f"--config=configs/{cell.config}.py", f"--workdir={workdir}"
    return "train", config, to, *overrides(cell.settings)


def taught(cell: Cell, labels: str, teachers: Mapping[str, Cell | None]) -> Cell:
    """Returns a student's cell that first makes its soft labels, and stores their manifest.

    cell: of configs/self_training.py, without soft labels; labels: their folder; teachers: {name
    for the command `teach`: cell to train in the folder of that name, None for no run}.
    """
    before = [training(own, name) for name, own in teachers.items() if own is not None]
    flags = (f"--to={labels}", f"--teachers={','.join(teachers)}")
    config = f"--config=configs/{cell.config}.py"
    return cell._replace(
        settings={**cell.settings, "data.soft_labels": labels},
        before=[*before, ("teach", config, *flags, *overrides(cell.settings))],
        more={"soft_labels": f"{labels}/manifest.json"},
    )


def run(experiment: str, name: str, cell: Cell) -> None:
    """Runs a cell and writes its record, unless the record exists."""
    record = HERE / experiment / name
    if records.path_of(record).exists():
        return
    workdir = Path("runs", experiment, name)
    for command in cell.before:
        _program(workdir, *command)
    _program(workdir, *training(cell, "{workdir}"))
    for number, command in enumerate(cell.after):
        done = workdir / f"after-{number}"
        if not done.exists():
            _program(workdir, *command)
            done.touch()
    more = {name: next(Path().glob(pattern)) for name, pattern in cell.more.items()}
    records.pack(workdir, record, more)


def _program(workdir: Path, command: str, *flags: str) -> None:
    flags = [flag.replace("{workdir}", str(workdir)) for flag in flags]
    subprocess.run([sys.executable, "-m", "ssl_guard", command, *flags], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("cells", nargs="*", metavar="cell", help="names or patterns (all)")
    parser.add_argument("--corpora", type=Path, help="folder of the corpora")
    parser.add_argument("--table", action="store_true", help="print only the tables")
    arguments = parser.parse_args()
    experiment = importlib.import_module(f"experiments.{arguments.experiment}.cells")
    if arguments.corpora:
        experiment.write_corpora(arguments.corpora)
    patterns = arguments.cells or ["*"]
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in experiment.CELLS):
            parser.error(
                f"no cell is named {pattern}: choose one of CELLS in {experiment.__file__}."
            )
    for name, cell in experiment.CELLS.items():
        if not arguments.table and any(fnmatch(name, pattern) for pattern in patterns):
            run(arguments.experiment, name, cell)
    print(experiment.table())


if __name__ == "__main__":
    main()
