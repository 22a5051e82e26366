"""Trains and evaluates one run.

    python -m ssl_guard.main --config=configs/uda.py --workdir=runs/uda

The same command resumes an interrupted run and returns at once from a finished one.
"""

import json

from absl import flags
from ml_collections import config_flags

from ssl_guard import cli, mlm, runtime
from ssl_guard.data import overlap
from ssl_guard.data.schema import licence_notes
from ssl_guard.train import train_and_evaluate

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where the run lives; the same one resumes it.")


def main(argv: list[str]) -> None:
    config, workdir = cli.required(CONFIG, "config"), cli.required(WORKDIR, "workdir")
    runtime.configure(dtype=config.model.dtype, compilation_cache=config.compilation_cache)
    if config.algorithm == "mlm":
        report = mlm.pretrain(config, workdir)
        print(f"{workdir}/encoder: held out {json.dumps(report['held_out'])}")
        return
    report = train_and_evaluate(config, workdir)
    test = report["test"][report["weights"]]
    shown = {
        name: round(test[name]["value"], 4) for name in ("f1", "auprc", "recall_at_1_fpr", "ece")
    }
    print(f"{workdir}: step {report['selected_step']}, test {json.dumps(shown)}")
    for note in (overlap.note(report["contamination"]), *licence_notes(report["data"]["licence"])):
        print(note)


if __name__ == "__main__":
    cli.run(main)
