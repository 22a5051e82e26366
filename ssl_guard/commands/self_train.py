"""Trains teachers, and students on their soft labels.

    python -m ssl_guard self_train --config=configs/self_training.py --workdir=runs/self_training

The folder gets a run for each teacher and for each student (config.teach.rounds), which `report`
compares; the last student is the result. --teachers=states:chat.npz, say, takes the place of the
trained teachers, see the command `teach`. The same command resumes an interrupted one. See
ssl_guard/train/self_training.py.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from ssl_guard.runtime import cli


def main(argv: list[str]) -> None:
    config, workdir = cli.required(CONFIG, "config"), cli.required(WORKDIR, "workdir")
    from ssl_guard.report import build
    from ssl_guard.runtime import compilation, preemption
    from ssl_guard.train.self_training import self_train

    preemption.listen()
    compilation.configure(dtype=config.model.dtype, compilation_cache=config.compilation_cache)
    try:
        runs = [str(run) for run in self_train(config, workdir, TEACHERS.value)]
    except preemption.Preempted as stopped:
        print(f"ssl_guard: {stopped}", file=sys.stderr)
        sys.exit(stopped.code)
    folder = Path(workdir, "report")
    baselines = runs[: -config.teach.rounds]
    table = build.write(folder, [runs[-1], *baselines], against="supervised", published=None)
    preemption.finish()
    print(table)
    print(f"page: {folder / 'report.html'}")


if __name__ == "__main__":
    CONFIG = config_flags.DEFINE_config_file("config", None, "A config file of configs/.")
    TEACHERS = flags.DEFINE_list("teachers", [], "Teachers in place of the runs; see `teach`.")
    WORKDIR = flags.DEFINE_string("workdir", None, "Folder of all runs.")
    cli.run(main)
